"""Samples with an unreadable field, in every format, through the partials to the verdicts of a shard."""

from __future__ import annotations

from typing import Any

import pytest

from agent.decisions.standing import standing_event
from agent.events.wording import sentence
from detectors.conditions.spec import TriggerSpec
from streams.decoders.watch_list import WatchList
from streams.monitor.evaluated_second import EvaluatedSecond
from streams.monitor.health import Health
from streams.monitor.standing import Standing
from streams.settings import Format
from tests.support.samples import T0, Stage
from tests.unit.streams.decoders.test_fields import FORMATS, record
from tests.unit.streams.monitor.test_shard import said, shard, spec

RULES = {
    "errors": "error_rate > 2% over 5s",
    "errors-on": "error_rate@on > 2% over 5s",
    "slow": "latency_p50 > 1s over 5s",
    "mean": "latency_mean > 1s over 5s",
    "slow-on": "latency_p50@on > 1s over 5s",
    "cache": "cache_hit_rate < 40% over 5s",
    "score": "measure.score < 0.2 over 5s",
}
GOOD: dict[str, Any] = {
    "service": "shop",
    "instance": "i-1",
    "status": 200,
    "latency_ms": 7.0,
    "cache": "hit",
    "flags": {"new": "on"},
    "measures": {"score": 0.5},
}
BAD: dict[str, dict[str, Any]] = {
    "latency": {"latency_ms": -1},
    "cache": {"cache": "warm"},
    "variant": {"flags": {"new": True}},
    "measure": {"measures": {"score": 1e10}},
}
BLIND = {
    "latency": {"slow", "mean", "slow-on"},
    "cache": {"cache"},
    "variant": {"errors-on", "slow-on"},
    "measure": {"score"},
}


def specs() -> list[TriggerSpec]:
    return [spec(when, name=name) for name, when in RULES.items()]


def watched(form: Format, bad: dict[str, Any], *, of: int, seconds: int = 50) -> list[EvaluatedSecond]:
    """The seconds of a shard for a service of which one in `of` samples is bad, all from one source partition."""
    rules = specs()
    stage = Stage(form, watch=WatchList.of([s.scope for s in rules], measures=["score"]))
    target = shard(*rules)
    target.flag_changed("production", "new", None, None, safe=False)
    found: list[EvaluatedSecond] = []
    for second in range(T0, T0 + seconds):
        samples = [{**GOOD, "ts": second + 0.5, **(bad if i % of == 0 else {})} for i in range(40)]
        stage.take([record(form, sample) for sample in samples])
        block = stage.reducer.close(second + 1.0)
        found += target.take(said(second + 1.0, block), second + 3.0)
    assert stage.rejects == {}
    return found


def states(health: Health | None) -> dict[str, str]:
    assert health is not None
    return {one.trigger: one.state for one in health.triggers}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("field", list(BAD))
def test_a_field_that_cannot_be_read_in_five_percent_costs_its_own_triggers_alone(form: Format, field: str) -> None:
    seconds = watched(form, BAD[field], of=20, seconds=12)
    found = states(seconds[-1].health)
    assert {name for name, state in found.items() if state == "unknown"} == BLIND[field]
    assert {state for name, state in found.items() if name not in BLIND[field]} == {"ok"}
    health = seconds[-1].health
    assert health is not None
    reasons = {one.reason for one in health.triggers if one.state == "unknown"}
    assert all("of 5 % of requests could not be read" in reason for reason in reasons)


def test_it_is_told_as_a_standing_unknown_with_the_reason_and_what_to_do() -> None:
    changes: list[Standing] = [one for second in watched("json", BAD["latency"], of=20) for one in second.standing]
    (begun,) = changes
    assert (begun.begun, begun.kind, set(begun.triggers)) == (True, "missing", BLIND["latency"])
    event = standing_event(begun)
    assert "latency of 5 % of requests could not be read" in event.data["reason"]
    assert "flipback.rejected" in event.data["check"]
    assert "latency of 5 % of requests could not be read" in sentence(event)
