"""A request that hangs counts against a latency limit when it crosses it, once for each limit."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.cells import Scope
from detectors.conditions.grammar import parse
from detectors.conditions.spec import TriggerSpec
from detectors.histogram import midpoints_ms
from detectors.windows.overdue import measure_of
from streams.decoders.watch_list import WatchList
from streams.ingest import in_flight
from streams.replay import Replay, ReplaySettings
from streams.telemetry.sample import Sample
from tests.support.recordings import expected_firing
from tests.support.samples import T0, CellsByScope, Stage, records_of

LIMITS = (1000.0, 3000.0)
SHOP, ON = Scope("production", "shop"), Scope("production", "shop", "new", "on")
WATCH = WatchList.of([ON], limits=[("production", "shop", limit) for limit in LIMITS])
MIDPOINTS = midpoints_ms()


@dataclass(frozen=True)
class Request:
    """A request that began at `began` and took `took` seconds; None if it never ends."""

    id: str
    began: float
    took: float | None
    on: bool
    timed: bool = True

    def samples(self) -> list[Sample]:
        flags = {"new": "on"} if self.on else {}
        start = Sample(ts=self.began, service="shop", kind="started", id=self.id, flags=flags)
        if self.took is None:
            return [start]
        latency = 1000 * self.took if self.timed else None
        return [start, Sample(ts=self.began + self.took, service="shop", id=self.id, latency_ms=latency, flags=flags)]


requests = st.builds(
    Request,
    id=st.uuids().map(str),
    began=st.floats(T0, T0 + 5),
    took=st.none() | st.floats(0, 6) | st.sampled_from([0.5, 1.0, 1.01, 3.0, 3.02]),
    on=st.booleans(),
)


def in_order(given_requests: Iterable[Request], rng: random.Random) -> list[Sample]:
    """All samples in an order that a partition may have: none 2 s after a newer one, an end after its start."""
    ends = {sample.id: sample.ts for request in given_requests for sample in request.samples()}
    samples = [sample for request in given_requests for sample in request.samples()]

    def place(sample: Sample) -> float:
        return sample.ts if sample.kind == "started" else ends[sample.id] + rng.uniform(0, 1.99)

    return sorted(samples, key=lambda sample: (place(sample), sample.kind == "completed"))


def closed_as_read(samples: Sequence[Sample], sizes: Sequence[int], rng: random.Random, end: float) -> CellsByScope:
    stage, result = Stage("json", watch=WATCH), CellsByScope()
    records = records_of(samples, "json")
    while records:
        size = rng.choice(sizes)
        stage.take(records[:size])
        records = records[size:]
        assert stage.reducer.reached is not None
        result |= stage.close(stage.reducer.reached - 2.0)
    assert stage.rejects == {}
    return result | stage.close(end)


def counted(all_cells: CellsByScope, scope: Scope, limit: float) -> tuple[Counter[int], Counter[int]]:
    """By second, the requests that a trigger with the limit counts, and those above it."""
    every, above = Counter[int](), Counter[int]()
    for (of, second), cell in all_cells.items():
        if of == scope:
            overdue = cell.measures.get(measure_of(limit), (0, 0))[1]
            every[second] += cell.counts["latency_count"] + overdue
            above[second] += sum(n for b, n in cell.hist.items() if MIDPOINTS[b] > limit) + overdue
    return +every, +above


@given(st.lists(requests, max_size=20), st.lists(st.integers(1, 9), min_size=1, max_size=5), st.randoms())
def test_for_each_limit_every_request_is_counted_once_at_its_end_or_when_it_crosses(
    given_requests: list[Request], sizes: list[int], rng: random.Random
) -> None:
    end = T0 + 20
    all_cells = closed_as_read(in_order(given_requests, rng), sizes, rng, end)
    for scope in (SHOP, ON):
        for limit in LIMITS:
            every, above = Counter[int](), Counter[int]()
            for request in given_requests:
                if scope == ON and not request.on:
                    continue
                crosses = request.began + limit / 1000
                ended = math.inf if request.took is None else request.began + request.took
                every[math.floor(min(ended, crosses))] += 1
                if ended > crosses:
                    above[math.floor(crosses)] += 1
            assert counted(all_cells, scope, limit) == (every, above)
    ends = sum(request.took is not None for request in given_requests)
    assert sum(cell.counts["requests"] for (scope, _), cell in all_cells.items() if scope == SHOP) == ends


anything = st.builds(
    lambda ts, kind, id, latency, on: Sample(
        ts=T0 + ts, service="shop", kind=kind, id=id, latency_ms=latency, flags={"new": on}
    ),
    st.floats(0, 9) | st.floats(-40, 90) | st.sampled_from([0.0, 1.0, 3.0]),
    st.sampled_from(["started", "started", "completed"]),
    st.sampled_from(["a", "b", "c", "d"]),
    st.none() | st.floats(0, 9000),
    st.sampled_from(["on", "off"]),
)


@given(st.lists(st.tuples(st.lists(anything, max_size=12), st.integers(-10, 30)), max_size=6), st.randoms())
def test_ids_in_any_order_used_again_or_never_ended_do_not_depend_on_batches(
    steps: list[tuple[list[Sample], int]], rng: random.Random
) -> None:
    one_by_one, in_batches = Stage("json", watch=WATCH), Stage("columnar", watch=WATCH)
    for given_samples, boundary in steps:
        one_by_one.take(records_of(given_samples, "json"))
        rest = list(given_samples)
        while rest:
            size = rng.randint(1, len(rest))
            # There are as many records as samples, so the offsets are the same.
            in_batches.take(records_of(rest[:size], "columnar"))
            rest = rest[size:]
        assert one_by_one.close(T0 + boundary) == in_batches.close(T0 + boundary)
    assert one_by_one.close(5e9) == in_batches.close(5e9)


def sums(all_cells: CellsByScope, limit: float, scope: Scope = SHOP) -> dict[int, int]:
    """The sum of a limit by second, without those that are 0."""
    found = {s - T0: b.measures.get(measure_of(limit), (0, 0))[1] for (of, s), b in all_cells.items() if of == scope}
    return {second: total for second, total in found.items() if total}


def take(stage: Stage, *given_samples: Sample) -> None:
    stage.take(records_of(given_samples, "json"))


def start(ts: float, id: str = "a", **fields: object) -> Sample:
    return Sample(ts=T0 + ts, service="shop", kind="started", id=id, **fields)  # type: ignore[arg-type]


def end(ts: float, id: str = "a", **fields: object) -> Sample:
    return Sample(ts=T0 + ts, service="shop", id=id, **fields)  # type: ignore[arg-type]


def test_a_start_is_no_request_and_a_limit_is_crossed_when_its_second_closes_not_before() -> None:
    stage = Stage("json", watch=WATCH)
    take(stage, start(0.5))
    assert stage.close(T0 + 1.0) == {}
    (cell,) = stage.close(T0 + 2.0).values()
    assert +cell.counts == {}
    assert cell.measures == {measure_of(1000.0): (1, 1)}
    assert sums(stage.close(T0 + 9.0), 3000.0) == {3: 1}


def test_the_end_of_an_overdue_request_counts_its_outcome_and_takes_its_latency_back() -> None:
    stage = Stage("json", watch=WATCH)
    take(stage, start(0.5))
    assert sums(stage.close(T0 + 5.0), 1000.0) == {1: 1}
    take(stage, end(7.0, latency_ms=6500.0, status=503, cache="miss"))
    all_cells = stage.close()
    assert all_cells[SHOP, T0 + 7].counts == {
        "requests": 1, "errors": 1, "unavailable": 1, "cache_lookups": 1, "latency_count": 1, "latency_us": 6_500_000,
    }  # fmt: skip
    assert (sums(all_cells, 1000.0), sums(all_cells, 3000.0)) == ({7: -1}, {7: -1})


def test_what_crossed_a_limit_stays_above_it_when_its_own_clock_says_less() -> None:
    stage = Stage("json", watch=WATCH)
    take(stage, start(0.5), end(1.75, latency_ms=900.0))
    every, above = counted(stage.close(), SHOP, 1000.0)
    assert (every, above) == ({T0 + 1: 1}, {T0 + 1: 1})


def test_an_end_without_a_latency_takes_nothing_back() -> None:
    stage = Stage("json", watch=WATCH)
    take(stage, start(0.5), end(2.5))
    assert sums(stage.close(), 1000.0) == {1: 1}


def test_an_end_that_comes_too_late_is_late_and_takes_nothing_back() -> None:
    stage = Stage("json", watch=WATCH)
    take(stage, start(0.5))
    stage.close(T0 + 3.0)
    take(stage, end(2.5, latency_ms=2000.0))
    all_cells = stage.close()
    assert all_cells[SHOP, T0 + 3].counts["late"] == 1
    assert sums(all_cells, 1000.0) == {}


def test_an_end_counts_as_usual_where_its_start_was_not_read() -> None:
    stage = Stage("json", watch=WATCH)
    take(stage, end(7.0, latency_ms=6500.0))
    (cell,) = stage.close().values()
    assert (cell.counts["latency_count"], cell.measures) == (1, {})


def test_a_start_that_is_read_late_counts_in_the_oldest_open_second() -> None:
    stage = Stage("json", watch=WATCH)
    stage.close(T0 + 5.0)
    take(stage, start(0.5))
    assert sums(stage.close(), 1000.0) == {5: 1}


def test_an_id_that_is_used_again_follows_the_later_request() -> None:
    stage = Stage("json", watch=WATCH)
    take(stage, start(0.5), start(5.0), start(4.0), end(5.5, latency_ms=500.0))
    assert sums(stage.close(), 1000.0) == {}


def test_of_a_variant_only_what_was_counted_there_is_taken_back() -> None:
    stage = Stage("json", watch=WATCH)
    take(stage, start(0.5), end(7.0, latency_ms=6500.0, flags={"new": "on"}))
    all_cells = stage.close()
    assert sums(all_cells, 1000.0) == {1: 1, 7: -1}
    assert sums(all_cells, 1000.0, ON) == {}


def test_a_service_without_limits_is_not_followed() -> None:
    stage = Stage("json", watch=WATCH)
    take(stage, msgspec.structs.replace(start(0.5), service="cart"))
    assert stage.close() == {}
    assert len(stage.reducer._in_flight) == 0


def test_ids_that_never_end_are_given_up_after_an_hour() -> None:
    stage = Stage("json", watch=WATCH)
    take(stage, *(start(i / 100, f"id-{i}") for i in range(500)))
    stage.close(T0 + 3600.0)
    assert len(stage.reducer._in_flight) == 500
    stage.close(T0 + 3610.0)
    assert (len(stage.reducer._in_flight), stage.reducer.stats.forgotten) == (0, 500)
    assert stage.reducer._in_flight._due == {}


def test_of_too_many_requests_the_oldest_are_given_up_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_flight, "MOST", 10)
    stage = Stage("json", watch=WATCH)
    take(stage, *(start(0.5, f"id-{i}") for i in range(15)))
    assert sums(stage.close(), 1000.0) == {1: 10}
    assert (len(stage.reducer._in_flight), stage.reducer.stats.forgotten) == (10, 5)


def test_ended_requests_leave_nothing_behind() -> None:
    stage = Stage("json", watch=WATCH)
    for i in range(100):
        take(stage, start(i / 20, f"id-{i}"), end(i / 20 + 0.1, f"id-{i}", latency_ms=100.0))
    assert len(stage.reducer._in_flight) == 0
    assert stage.reducer._in_flight._due == {}


def test_no_sample_can_name_the_measure_of_a_limit() -> None:
    stage = Stage("json", watch=WATCH)
    forged = {"ts": T0 + 0.5, "service": "shop", "measures": {measure_of(1000.0): 1.0}}
    stage.take([json.dumps(forged).encode()])
    assert stage.rejects == {}
    assert [cell.measures for cell in stage.close().values()] == [{}]


def spec(condition: str, min_samples: int = 30) -> TriggerSpec:
    return TriggerSpec(
        name=condition,
        flag="new",
        environment="production",
        service="shop",
        condition=parse(condition),
        safe_variant="off",
        min_samples=min_samples,
    )


def traffic(
    seconds: int, per_second: int, hangs: Sequence[int], took: float | None, variants: Sequence[str] = ("on",)
) -> list[Sample]:
    """`seconds` of samples of 20 ms; from second 100 on, the requests `hangs` of every second take `took` seconds."""
    samples = []
    for k in range(seconds * per_second):
        began, bad = T0 + k / per_second, k >= 100 * per_second and k % per_second in hangs
        lasts = took if bad else 0.02
        common = {"service": "shop", "id": f"r-{k}", "flags": {"new": variants[k % len(variants)]}}
        common["instance"] = f"i-{k % 3}"
        samples.append(Sample(ts=began, kind="started", **common))  # type: ignore[arg-type]
        if lasts is not None:
            samples.append(Sample(ts=began + lasts, latency_ms=1000 * lasts, **common))  # type: ignore[arg-type]
    return sorted((sample for sample in samples if sample.ts < T0 + seconds), key=lambda sample: sample.ts)


def replay(samples: Sequence[Sample], *specs: TriggerSpec) -> Replay:
    rules = ReplaySettings(format="json", max_scopes=100, max_lateness=2.0, evaluate_every=1)
    return Replay([records_of(samples, "json")], specs, rules)


def changes(samples: Sequence[Sample], *specs: TriggerSpec) -> list[tuple[str, int, str]]:
    """Trigger, time and state of every change to pending or firing."""
    run = replay(samples, *specs)
    found = [
        (spec.name, change.t - T0, change.to.name)
        for second in run.seconds()
        for spec, change in second.transitions
        if change.to.name in ("PENDING", "FIRING")
    ]
    assert run.tally.rejected == {}
    return found


@pytest.mark.parametrize("took", [60.0, None], ids=["60 s", "for ever"])
@pytest.mark.parametrize("condition", ["latency_p95 > 45s over 10s for 5s", "latency_p95@on > 45s over 10s for 5s"])
def test_requests_that_hang_fire_when_they_cross_the_limit_not_when_they_end(
    condition: str, took: float | None
) -> None:
    samples = traffic(seconds=170, per_second=10, hangs=[3], took=took)
    # Computed by hand: the time at which each request is known to be good or bad for the limit.
    ends = {sample.id: sample.ts for sample in samples if sample.kind == "completed"}
    known: list[dict[str, object]] = [
        {"ts": min(crosses, ends.get(sample.id, math.inf)), "bad": ends.get(sample.id, math.inf) > crosses}
        for sample in samples
        for crosses in [sample.ts + 45.0]
        if sample.kind == "started" and (crosses < T0 + 170 or sample.id in ends)
    ]
    expected = expected_firing(
        known,
        counts=lambda sample: (int(bool(sample["bad"])), 1),
        breach=lambda bad, of: of - bad < math.ceil(0.95 * of),
        over=10,
        hold=5,
        min_samples=30,
    )
    assert expected is not None
    # A request of every second hangs from 100.3 s on: 1 of 10 is more than 5 % once 5 of the 90 to 95 are known.
    assert 145 < expected - T0 < 160
    fired = [t for _, t, state in changes(samples, spec(condition)) if state == "FIRING"]
    assert fired[:1] == [expected - T0]


def test_a_low_limit_takes_nothing_from_a_high_one_and_counts_no_request_twice() -> None:
    # If 4 % hang, neither trigger on p95 may fire, although each of these requests crosses both limits.
    low, high = spec("latency_p95 > 1s over 60s", 100), spec("latency_p95 > 45s over 60s", 100)
    samples = traffic(seconds=220, per_second=25, hangs=[3], took=60.0)
    assert changes(samples, low, high) == []
    # If 8 % hang, each trigger fires in its time, as it does without the other.
    samples = traffic(seconds=220, per_second=25, hangs=[3, 15], took=60.0)
    both = changes(samples, low, high)
    assert both == sorted(changes(samples, low) + changes(samples, high), key=lambda change: change[1])
    first = {name: t for name, t, state in reversed(both) if state == "FIRING"}
    assert 101 < first[low.name] < 145 < first[high.name]


@pytest.mark.parametrize(
    ("hangs", "obstacle"),
    [(range(10), "the control breaches too: latency_p95@off is 4"), (range(0, 10, 2), None)],
    ids=["both variants hang", "the treated hang"],
)
def test_hanging_requests_are_evidence_to_act_on_unless_the_control_hangs_too(
    hangs: Sequence[int], obstacle: str | None
) -> None:
    samples = traffic(seconds=155, per_second=10, hangs=hangs, took=None, variants=("on", "off"))
    # If all requests hang, none ends any more; only starts come.
    firing = [
        evidence
        for second in replay(samples, spec("latency_p95 > 45s over 10s")).seconds()
        for evidence in second.firing
    ]
    assert [evidence.t - T0 for evidence in firing][:1] == [148 if obstacle else 146]
    for evidence in firing:
        assert evidence.fresh
        assert evidence.obstacle is None if obstacle is None else str(evidence.obstacle).startswith(obstacle)
