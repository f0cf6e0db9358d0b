"""The verdicts of a shard's triggers as dashboards read them."""

from __future__ import annotations

from collections.abc import Sequence

from detectors.conditions.spec import TriggerSpec
from detectors.state import BEFORE
from detectors.triggers.evaluation import STATES, Evaluation
from streams.monitor.health import TriggerHealth, or_none
from streams.monitor.standing import StandingUnknown


def verdict_rows(verdicts: Evaluation, standing: StandingUnknown, scopes: Sequence[str]) -> list[TriggerHealth]:
    """The verdict of every trigger, and since when it has stayed unknown; `scopes` has the triggers' scopes as text."""
    return [
        TriggerHealth(
            flag=spec.flag,
            trigger=spec.name,
            scope=scope,
            state=STATES[state],
            value=value,
            threshold=threshold,
            samples=samples,
            reason=reason,
            unknown_since=None if since == BEFORE else since,
            told=announced,
            judged_since=begin if anew else None,
        )
        for spec, scope, state, value, threshold, samples, reason, since, announced, begin, anew in zip(
            verdicts.specs,
            scopes,
            verdicts.state.tolist(),
            or_none(verdicts.value),
            or_none(verdicts.threshold),
            verdicts.samples.tolist(),
            verdicts.reasons(),
            standing.since.tolist(),
            standing.announced.tolist(),
            verdicts.begin.tolist(),
            verdicts.judged_anew.tolist(),
            strict=True,
        )
    ]


def unknown_rows(
    specs: Sequence[TriggerSpec], standing: StandingUnknown, scopes: Sequence[str], why: str
) -> list[TriggerHealth]:
    """Every trigger as unknown, all for the reason `why`."""
    return [
        TriggerHealth(
            flag=spec.flag,
            trigger=spec.name,
            scope=scope,
            state="unknown",
            value=None,
            threshold=None,
            samples=0,
            reason=why,
            unknown_since=None if since == BEFORE else since,
            told=announced,
        )
        for spec, scope, since, announced in zip(
            specs, scopes, standing.since.tolist(), standing.announced.tolist(), strict=True
        )
    ]
