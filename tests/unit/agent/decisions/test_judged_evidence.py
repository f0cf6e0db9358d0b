"""Evidence rests on the judged part of a window: a late instance is no source, and missing requests count as good."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from detectors.cells import Scope
from streams.monitor.evaluated_second import EvaluatedSecond
from streams.monitor.evidence import FiringEvidence
from streams.monitor.shard import Shard
from tests.support.cells import Cell, cells
from tests.unit.streams.monitor.test_shard import SERVICE, T, said, shard, spec

RULE = spec("error_rate > 2% over 10s for 5s")
Counts = Mapping[str, Mapping[str, int]]


def cell(instances: Counts) -> Cell:
    names = {name for own in instances.values() for name in own}
    return Cell({name: sum(own.get(name, 0) for own in instances.values()) for name in names}, instances=instances)


def feed(target: Shard, seconds: int, *rows: tuple[Scope, Counts], begin: int = T) -> Iterator[EvaluatedSecond]:
    for at in range(begin, begin + seconds):
        block = cells(at, *((scope, cell(instances)) for scope, instances in rows))
        yield from target.take(said(at + 1.0, block), at + 3.0)


def last(seconds: Iterator[EvaluatedSecond]) -> FiringEvidence:
    return [evidence for second in seconds for evidence in second.firing][-1]


def pods(number: int, errors: int) -> dict[str, dict[str, int]]:
    return {f"i-{n}": {"requests": 10, "errors": errors} for n in range(number)}


def test_who_is_left_out_is_neither_counted_nor_a_source() -> None:
    late = {"requests": 2, "errors": 0, "late": 8}
    evidence = last(feed(shard(RULE), 20, (SERVICE, {**pods(4, 3), "slow": late})))
    assert evidence.obstacle is None
    assert evidence.value == 0.3
    assert evidence.samples == evidence.counts["requests"] == 400
    assert evidence.counts["late"] == 0
    assert (evidence.sources, sorted(evidence.instances)) == (4, ["i-0", "i-1", "i-2", "i-3"])


def test_an_instance_alone_in_the_judged_part_is_alone_whoever_is_late() -> None:
    sick = {"requests": 10, "errors": 10}
    evidence = last(feed(shard(RULE), 20, (SERVICE, {**pods(4, 0), "sick": sick, "slow": {"errors": 0, "late": 10}})))
    assert evidence.obstacle == "only instance 'sick' breaches: error_rate of the others is 0 %, limit 2 %"


def test_who_is_left_out_of_two_is_asked_whether_the_other_one_is_alone() -> None:
    sick = {"requests": 60, "errors": 30}
    for errors, obstacle in (
        (0, "only instance 'sick' breaches: error_rate of the others is 0 %, limit 2 %"),
        (9, None),
    ):
        slow = {"requests": 40, "errors": errors, "late": 3}
        evidence = last(feed(shard(RULE), 20, (SERVICE, {"sick": sick, "slow": slow})))
        assert (evidence.sources, evidence.obstacle) == (1, obstacle)


def test_in_the_worst_case_the_others_must_breach_too_with_all_that_is_missing_well() -> None:
    # A tenth of each instance's requests is late: 2 of 100 of each other instance failed, which is not above 2 %.
    mixed = {f"i-{n}": {"requests": 90, "errors": 2 + 30 * (n == 0), "late": 10} for n in range(3)}
    evidence = last(feed(shard(RULE), 20, (SERVICE, mixed)))
    assert evidence.obstacle is not None
    assert evidence.obstacle.startswith("only instance 'i-0' breaches: error_rate of the others is 1.905 %")
    assert evidence.value == 36 / 300


def test_late_samples_alone_are_nothing_fresh() -> None:
    rule = spec("throughput < 100/s over 60s for 5s")
    target = shard(rule)
    list(feed(target, 70, (SERVICE, pods(4, 0))))
    silent = last(feed(target, 30, (SERVICE, {"i-0": {"late": 1}}), begin=T + 70))
    assert silent.obstacle is not None
    assert silent.obstacle.startswith("the newest sample is")


def test_the_control_is_judged_without_the_same_instances() -> None:
    safe = Scope("production", "shop", "new", "off")
    treated = Scope("production", "shop", "new", "on")
    rows = (
        (SERVICE, {**pods(4, 3), "slow": {"requests": 10, "errors": 10, "late": 30}}),
        (treated, pods(4, 3)),
        (safe, {**{f"i-{n}": {"requests": 30, "errors": 0} for n in range(4)}, "slow": {"requests": 9, "errors": 9}}),
    )
    evidence = last(feed(shard(RULE), 20, *rows))
    assert evidence.obstacle is None
