"""The figures of `flipback simulate` in lines for a person."""

from __future__ import annotations

from collections.abc import Sequence

from agent.offline.simulate import Simulated, first_seen


def simulated_lines(result: Simulated) -> list[str]:
    """Return the figures of a trigger: its scenario, its delay at each split, its false alarms."""
    found = [f"{result.flag}/{result.trigger}: {result.condition}"]
    if result.scenario is None:
        return [*found, f"  not simulated: {result.skipped}"]
    made = result.scenario
    found.append(
        f"  {made.rate:g} requests/s, {made.healthy:.3%} bad when healthy, {made.bad:.3%} of the new variant's"
    )
    found.append("  new variant   seen after p50       p95    missed")
    for one in result.delays:
        line = f"  {one.split:11.0%}   {_seconds(one.p50):>14}   {_seconds(one.p95):>7}   {one.missed:7.1%}"
        found.append(line if one.in_reach else f"  {one.split:11.0%}   out of reach: {_out_of_reach(result)}")
    if result.steady_a_month is not None and result.bursty_a_month is not None:
        found.append(
            f"  false alarms a month: {result.steady_a_month:.3g} steady, {result.bursty_a_month:.3g} bursty "
            "(each minute's share gamma-distributed, CV 1)"
        )
    return found


def _out_of_reach(result: Simulated) -> str:
    if "@" in result.condition:
        return "with everybody on the new variant there is no control to compare with"
    return "so few bad requests keep the whole service within the limit; METRIC@VARIANT judges them alone"


def first_seen_lines(found: Sequence[Simulated]) -> list[str]:
    """Return for each flag which of its triggers sees a regression first, at each split."""
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
