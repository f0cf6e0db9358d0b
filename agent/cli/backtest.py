"""`flipback backtest`: triggers on recordings whose faults are known."""

from __future__ import annotations

from pathlib import Path

import click

from agent.cli.options import Finite, Written, config_option
from agent.cli.replay import FORMATS


@click.command("backtest")
@config_option
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
    from agent.offline.backtest_table import table
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
        click.echo("\n".join(table(found)))
    return 0 if found.matched else 1
