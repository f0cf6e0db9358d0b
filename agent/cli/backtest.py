"""`flipback backtest`: triggers on recordings whose faults are known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.options import Finite, Written
from agent.cli.replay import FORMATS

if TYPE_CHECKING:
    from agent.offline.backtest import Backtest, TriggerReport


@click.command("backtest")
@click.option(
    "-c", "--config", "path", required=True, type=click.Path(path_type=Path), help="Configuration, YAML or TOML."
)
@click.option("--labels", required=True, type=click.Path(path_type=Path), help="The faults: a list, YAML or JSON.")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--format", type=click.Choice(FORMATS), help="Format of the files; the first telemetry topic's if absent."
)
@click.option(
    "--within",
    default=300.0,
    show_default=True,
    type=Finite(min=0),
    help="Seconds after a fault's end in which it may still be seen.",
)
@click.option("--plot", type=Written(), help="Write a timeline there, as one HTML file.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(
    path: Path,
    labels: Path,
    files: tuple[Path, ...],
    format: str | None,
    within: float,
    plot: Path | None,
    as_json: bool,
) -> int:
    """Replay FILES and say, for each trigger, which labelled faults it saw, how late, and how often it was wrong.

    A label is `{at: TIME, until: TIME, name: TEXT, service: NAME}`, all but `at` optional; times are Unix seconds or
    ISO 8601. A trigger that begins to fire between `at` and `until` plus --within has seen the fault; any other
    beginning is a false alarm. Exit status 1 where no sample is of a service that is watched.
    """
    from typing import cast

    import msgspec

    from agent.config.load import load
    from agent.offline.backtest import backtest, read_labels, unwatched
    from streams.settings import Format

    config = load(path)
    chosen = cast(Format, format or config.telemetry[0].format)
    faults = read_labels(labels)
    for warning in unwatched(config, faults):
        click.echo(f"flipback: warning: {labels}: {warning}", err=True)
    found = backtest(config, files, chosen, faults, within=within)
    if plot is not None:
        from agent.offline.backtest_plot import page

        plot.write_text(page(found))
    for note in found.notes:
        click.echo(f"flipback: note: {note}", err=True)
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        click.echo("\n".join(_table(found)))
    return 0 if found.matched else 1


def _table(found: Backtest) -> list[str]:
    head = ("trigger", "seen", "delay p50", "p95", "false alarms", "a healthy hour", "healthy h", "unknown h")
    rows = [head, *(_row(trigger) for trigger in found.triggers)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _row(trigger: TriggerReport) -> tuple[str, ...]:
    delays, rate = trigger.delays, trigger.false_alarms_per_hour

    def quantile(q: float) -> str:
        return f"{delays[min(int(q * len(delays)), len(delays) - 1)]:.0f} s" if delays else "-"

    return (
        f"{trigger.flag}/{trigger.trigger}",
        f"{trigger.detected} of {len(trigger.detections)}",
        quantile(0.5),
        quantile(0.95),
        str(len(trigger.false_alarms)),
        "-" if rate is None else f"{rate:.3g}",
        f"{trigger.healthy_hours:.2f}",
        f"{trigger.unknown_hours:.2f}",
    )
