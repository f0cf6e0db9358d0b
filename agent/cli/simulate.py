"""`flipback simulate`: how fast, how sure and how often wrong each trigger is."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from agent.cli.options import Finite, Written, config_option

_SHARE = Finite(0, 1)
_RATE = Finite(0, 1e6, min_open=True)


@click.command("simulate")
@config_option
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
    from agent.offline.simulate_lines import first_seen_lines, simulated_lines

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
        click.echo(msgspec.json.encode(result) if as_json else "\n".join(simulated_lines(result)))
    if not as_json and found:
        click.echo("\n".join(first_seen_lines(found)))
    if plot is not None:
        from agent.offline.simulate_plot import page

        plot.write_text(page(found))
    return 0
