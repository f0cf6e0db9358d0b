"""Whether a step's gate is open: all conditions met at once, for long enough.

Unknown is neither met nor not met: the dwell stands still meanwhile, and begins again if it lasts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from msgspec import structs

from agent.rollouts.inputs import Condition, Verdict, WaitsFor
from agent.rollouts.record import RolloutRecord

UNKNOWN_GRACE_S = 30.0
"""Seconds for which evidence may be unknown before the step's least time begins again; as `unknown_grace`."""

LONGEST_GAP_S = 10.0
"""Seconds between two observations that count as watched; of a longer gap nothing is known."""


class GateReading(NamedTuple):
    """A gate in one second. `conditions` are all of them, `verdict` theirs together."""

    conditions: tuple[Condition, ...]
    verdict: Verdict

    @property
    def open(self) -> bool:
        return self.verdict == "met"


def together(conditions: Sequence[Condition]) -> Verdict:
    """One that is not met decides, then one that is unknown."""
    verdicts = {condition.verdict for condition in conditions}
    return "not met" if "not met" in verdicts else "unknown" if "unknown" in verdicts else "met"


def observe(record: RolloutRecord, evidence: Sequence[Condition], now: float) -> tuple[RolloutRecord, GateReading]:
    """Count the second that ends at `now` (Unix seconds), and read the gate of a verified step.

    `evidence` are the conditions that come from outside the record.
    """
    passed = now - (record.observed_at if record.observed_at is not None else record.verified_at or now)
    watched = passed if 0 <= passed <= LONGEST_GAP_S else 0.0
    known = together(evidence) != "unknown" and watched == passed
    unknown_s = 0.0 if known else record.unknown_s + max(passed, 0.0)
    dwell_s = record.dwell_s + watched if known else 0.0 if unknown_s > UNKNOWN_GRACE_S else record.dwell_s
    counted = structs.replace(record, observed_at=now, dwell_s=dwell_s, unknown_s=unknown_s)
    shown = (*evidence, *_checks(counted), _dwell(counted))
    verdict = together(shown)
    failing = any(one.failing for one in shown)
    asked = any(one.verdict != "met" and one.waits_for == "person" for one in shown)
    counted = structs.replace(
        counted,
        met_since=(counted.met_since if counted.met_since is not None else now) if _steady(shown) else None,
        not_met_since=(counted.not_met_since if counted.not_met_since is not None else now) if failing else None,
        not_met_announced=counted.not_met_announced and failing,
        busy_s=counted.busy_s + (0.0 if asked else watched),
    )
    held = 0.0 if counted.met_since is None else now - counted.met_since
    least = float(record.spec.gate.hold)
    text = f"all met together for {held:.0f} s of {least:.0f} s"
    hold = Condition("held", "met" if held >= least else "not met", text, "time", max(least - held, 0.0))
    return counted, GateReading((*shown, hold), together([*shown, hold]) if verdict == "met" else verdict)


def waits_for(record: RolloutRecord, reading: GateReading | None) -> WaitsFor | None:
    """What a rollout waits for now, None in a final state."""
    if record.state == "paused":
        return "person"
    if record.state in ("progressing", "baking"):
        if record.verified_at is None or reading is None:
            return "backend"
        waiting = [one.waits_for for one in reading.conditions if one.verdict != "met"]
        # What a person must do is said first, what passes by itself last.
        order: tuple[WaitsFor, ...] = ("person", "backend", "evidence", "time")
        return next((kind for kind in order if kind in waiting), "time")
    if record.state == "rolling-back":
        return "backend"
    return "evidence" if record.state == "pending" else None


def _steady(conditions: Sequence[Condition]) -> bool:
    """Everything but the least time is met."""
    return all(one.verdict == "met" for one in conditions if one.waits_for != "time")


def _dwell(record: RolloutRecord) -> Condition:
    least = float(record.step.at_least)
    verdict: Verdict = "met" if record.dwell_s >= least else "not met"
    text = f"{record.dwell_s:.0f} s of at least {least:.0f} s at {record.step.percent:g} %"
    return Condition("at_least", verdict, text, "time", max(least - record.dwell_s, 0.0))


def _checks(record: RolloutRecord) -> list[Condition]:
    """Tests of the stage, asked for before it is left."""
    following = record.next_place
    if following is not None and following.stage == record.at.stage:
        return []
    found = []
    for test in record.stage.checks:
        result = record.checks.get(check_name(record.at.stage, test))
        if result is None:
            found.append(Condition(test, "unknown", "no result yet", "person"))
        else:
            verdict: Verdict = "met" if result.passed else "not met"
            found.append(Condition(test, verdict, f"{verdict}, by {result.by}: {result.url}", "person"))
    return found


def check_name(stage: int, test: str) -> str:
    """The key of a test's result: two stages may have tests of one name."""
    return f"{stage}/{test}"
