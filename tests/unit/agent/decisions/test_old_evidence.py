"""Nothing is commanded on evidence whose newest sample is more than 15 s old, from the windows to the command
(docs/promises.md#p2-evidence-before-a-flip)."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from agent.events.cloudevents import INABILITY
from detectors.conditions.spec import TriggerSpec
from streams.monitor.evaluated_second import EvaluatedSecond
from tests.support.cells import Cell, cells
from tests.unit.agent.decisions.test_commander import Bench, status
from tests.unit.streams.monitor.test_evidence import BAD, GOOD, Counts, seen
from tests.unit.streams.monitor.test_shard import SERVICE, T, said, shard, spec

SILENT: Counts = {}
DELAY = 2.0
"""Seconds from the end of a second to its evaluation in these tests."""


async def judged(
    rule: TriggerSpec, seconds: list[Counts], *, delay: float = DELAY
) -> tuple[Bench, list[EvaluatedSecond]]:
    """Feed seconds of traffic through windows, triggers, evidence and the commander."""
    bench = Bench()
    bench.see(status())
    found = []
    target = shard(rule)
    for at, counts in enumerate(seconds, T):
        if counts:
            batch = list(seen(target, [counts], begin=at))
        else:
            batch = list(target.take(said(at + 1.0), at + 1.0 + delay))
        for second in batch:
            bench.now = second.time + delay
            await bench.commander.firing(second.time, second.firing, second.ill)
            found.append(second)
    return bench, found


@pytest.mark.parametrize(("hold", "age"), [(10, 3), (21, 14), (22, 15), (23, 16), (40, 33)])
async def test_a_breach_whose_samples_ended_is_commanded_while_the_newest_is_at_most_15_s_old(
    hold: int, age: int
) -> None:
    # The breach begins with the first second. The tenth is the last with traffic, and stays in the window for 60 s.
    rule = spec(f"error_rate > 20% over 60s for {hold}s")
    bench, found = await judged(rule, [BAD] * 10 + [SILENT] * 40)
    first = next(second for second in found if second.firing)
    assert first.time - T == hold + 1
    assert first.firing[0].age == age
    if age <= 15:
        assert [command.flag for command in bench.of("command")] == ["new"]
        return
    assert bench.of("command") == []
    (event,) = bench.of("event")
    assert event.type == INABILITY
    assert event.data["reason"].startswith(f"the newest sample is {age} s old")


async def test_the_age_is_that_of_the_triggers_own_scope_and_not_of_other_services() -> None:
    rule = replace(spec("throughput < 3/s over 20s"), min_samples=0)
    target = shard(rule)
    list(seen(target, [GOOD] * 30))
    other = SERVICE._replace(service="search")
    ages = []
    for at in range(T + 30, T + 60):
        block = cells(at, (other, Cell({"requests": 50, "errors": 0})))
        for second in target.take(said(at + 1.0, block), at + 1.0 + DELAY):
            ages += [(evidence.age, evidence.obstacle) for evidence in second.firing]
    assert ages, "the service is silent, and the trigger fires"
    assert all(obstacle is not None and "old" in obstacle for age, obstacle in ages if age > 15)
    assert all(obstacle is None for age, obstacle in ages if age <= 15)
    assert max(age for age, _ in ages) > 15


async def test_a_scope_that_never_had_a_sample_is_not_acted_upon() -> None:
    rule = replace(spec("throughput < 3/s over 5s"), min_samples=0)
    bench, found = await judged(rule, [SILENT] * 30)
    ages = [evidence.age for second in found for evidence in second.firing]
    assert all(math.isinf(age) for age in ages)
    assert bench.of("command") == []
