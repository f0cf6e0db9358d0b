"""`flipback simulate`: how fast, how sure and how often wrong each trigger is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.options import Finite, Written

if TYPE_CHECKING:
    from agent.offline.simulate import Simulated

_SHARE = Finite(0, 1)
_RATE = Finite(0, 1e6, min_open=True)


@click.command("simulate")
@click.option(
    "-c", "--config", "path", required=True, type=click.Path(path_type=Path), help="Configuration, YAML or TOML."
)
@click.option("--rate", default=50.0, show_default=True, type=_RATE, help="Requests/s.")
@click.option("--baseline", type=_SHARE, help="Share of bad requests when healthy; 0.005 or a quarter of the limit.")
@click.option("--bad", type=_SHARE, help="Share of bad requests of the new variant; twice the trigger's limit.")
@click.option("--split", default=0.1, show_default=True, type=_SHARE, help="Share of requests with the new variant.")
@click.option(
    "--days",
    default=30.0,
    show_default=True,
    type=Finite(min=0),
    help="Days of a healthy service for false alarms; 0 for none.",
)
@click.option("--seed", default=20240501, show_default=True, help="Seed of the random numbers.")
@click.option("--plot", type=Written(), help="Write the delays there, as one HTML file.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a trigger.")
def command(
    path: Path,
    rate: float,
    baseline: float | None,
    bad: float | None,
    split: float,
    days: float,
    seed: int,
    plot: Path | None,
    as_json: bool,
) -> int:
    """Simulate traffic for each trigger: the delay until a regression is seen, at each stage of a rollout; the chance
    that it is missed; false alarms a month of a healthy service, steady and bursty.

    A stage must last at least as long as its p95 for a regression of that size to be seen in it.
    """
    import msgspec

    from agent.config.load import load
    from agent.offline.simulate import simulate

    shown = sys.stderr.isatty() and not as_json

    def progress(what: str) -> None:
        if shown:
            sys.stderr.write(f"\r\x1b[K{what}")
            sys.stderr.flush()

    found = []
    specs = load(path).trigger_specs()
    for result in simulate(
        specs, rate=rate, split=split, healthy=baseline, bad=bad, days=days, seed=seed, progress=progress
    ):
        found.append(result)
        if shown:
            sys.stderr.write("\r\x1b[K")
        click.echo(msgspec.json.encode(result) if as_json else "\n".join(_lines(result)))
    if not as_json and found:
        click.echo("\n".join(_summary(found)))
    if plot is not None:
        from agent.offline.simulate_plot import page

        plot.write_text(page(found))
    return 0


def _lines(result: Simulated) -> list[str]:
    lines = [f"{result.flag}/{result.trigger}: {result.condition}"]
    if result.scenario is None:
        return [*lines, f"  not simulated: {result.skipped}"]
    made = result.scenario
    lines.append(
        f"  {made.rate:g} requests/s, {made.healthy:.3%} bad when healthy, {made.bad:.3%} of the new variant's"
    )
    lines.append("  new variant   seen after p50       p95    missed")
    for one in result.delays:
        line = f"  {one.split:11.0%}   {_seconds(one.p50):>14}   {_seconds(one.p95):>7}   {one.missed:7.1%}"
        lines.append(line if one.in_reach else f"  {one.split:11.0%}   out of reach: {_out_of_reach(result)}")
    if result.steady_a_month is not None and result.bursty_a_month is not None:
        lines.append(
            f"  false alarms a month: {result.steady_a_month:.3g} steady, {result.bursty_a_month:.3g} bursty "
            "(each minute's share gamma-distributed, CV 1)"
        )
    return lines


def _out_of_reach(result: Simulated) -> str:
    if "@" in result.condition:
        return "with everybody on the new variant there is no control to compare with"
    return "so few bad requests keep the whole service within the limit; METRIC@VARIANT judges them alone"


def _summary(found: list[Simulated]) -> list[str]:
    """Which trigger of each flag sees a regression first."""
    from agent.offline.simulate import first_seen

    lines = []
    for flag in dict.fromkeys(one.flag for one in found):
        lines.append(f"{flag}: seen first, each trigger on its own kind of regression")
        for split, best, delay in first_seen([one for one in found if one.flag == flag]):
            if best is None or delay is None:
                lines.append(f"  {split:11.0%}   by no trigger")
            else:
                lines.append(
                    f"  {split:11.0%}   {_seconds(delay.p50):>14}   by {best.trigger}, {delay.missed:.1%} missed"
                )
    return lines


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} s"
