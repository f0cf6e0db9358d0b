"""Rejected samples that may belong to a trigger are missing in its window as long as their second is in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.cells import Scope
from detectors.conditions.spec import TriggerSpec
from streams.clock import Now
from streams.monitor.checkpoint import Checkpoint
from streams.monitor.evaluated_second import EvaluatedSecond
from streams.monitor.resume_point import ResumePoint
from streams.monitor.settings import ShardSettings
from streams.monitor.shard import Shard
from streams.partials.decode import decode_all
from streams.partials.packing import pack
from streams.partials.record import VERSION, Partial, encode
from tests.support.cells import Cell, cells
from tests.unit.detectors.triggers.test_evaluator import OFF, ON, SERVICE, Bench, counts, one, spec

T = 1_700_000_000
LENGTHS = (1, 5, 60, 75)


class Arrived(NamedTuple):
    """What arrives in a second: requests of `on` and `off`, rejected samples of unknown variant, and of `off`."""

    on: int
    off: int
    rejected: int
    of_off: int = 0


def rows(arrived: Arrived) -> list[tuple[Scope, Cell]]:
    """Return the rows of that second; `on` and `off` are all variants."""
    lost = arrived.rejected + arrived.of_off
    return [
        (ON, counts(arrived.on)),
        (OFF, counts(arrived.off, rejected=arrived.of_off)),
        (SERVICE, counts(arrived.on + arrived.off, rejected=lost)),
    ]


runs = st.lists(
    st.tuples(
        st.integers(1, 40),
        st.builds(
            Arrived,
            on=st.integers(1, 20),
            off=st.integers(1, 200),
            rejected=st.sampled_from([0, 0, 0, 1, 2, 60]),
            of_off=st.sampled_from([0, 0, 0, 3]),
        ),
    ),
    min_size=1,
    max_size=5,
)


SERVICES = ("shop", "cart", "search", "login", "account")
"""Each has its own series in an example: an evaluation of all costs little more than one of a single one."""


@settings(deadline=None, max_examples=5)
@given(st.lists(runs, min_size=len(SERVICES), max_size=len(SERVICES)))
def test_a_window_lacks_the_rejected_samples_of_its_own_seconds(several: list[list[tuple[int, Arrived]]]) -> None:
    seconds = [[arrived for length, arrived in series for _ in range(length)] for series in several]
    judged = [(service, length) for service in SERVICES for length in LENGTHS]
    bench = Bench(
        *(replace(spec(f"error_rate@on > 2% over {length}s"), service=service) for service, length in judged),
        max_scopes=16,
    )
    for i in range(max(map(len, seconds))):
        fed = [
            (scope._replace(service=service), cell)
            for service, own in zip(SERVICES, seconds, strict=True)
            if i < len(own)
            for scope, cell in rows(own[i])
        ]
        for (service, length), state in zip(judged, bench.states(fed), strict=True):
            of_service = seconds[SERVICES.index(service)]
            if i >= len(of_service):
                continue
            inside = of_service[max(0, i + 1 - length) : i + 1]
            theirs, others = sum(own.rejected for own in inside), sum(own.of_off for own in inside)
            requests = sum(own.on + own.off for own in inside)
            lacks = theirs > 0 and 100 * (theirs + others) > requests + theirs + others
            assert state == ("unknown" if lacks else "ok"), (i, service, length)


def test_a_minute_of_rejects_is_unknown_until_it_has_left_the_five_minutes() -> None:
    bench = Bench(*(spec(f"error_rate@on > 2% over {length}s") for length in (300, 10)))
    judged = [bench.states(rows(Arrived(60, 40, 60 if 20 <= n < 80 else 0))) for n in range(400)]
    long, short = ([n for n, states in enumerate(judged) if states[k] == "unknown"] for k in range(2))
    # The last five seconds of the burst are tolerated: 300 of 30,300.
    assert (long, short) == (list(range(20, 79 + 300 - 5)), list(range(20, 79 + 10)))


def test_a_burst_of_a_moment_is_not_taken_for_the_whole_window() -> None:
    bench = Bench(spec("error_rate@on > 2% over 300s"))
    judged = [bench.states(rows(Arrived(60, 40, 60 if n == 320 else 0)))[0] for n in range(700)]
    # 60 of 30,060 samples of the window.
    assert set(judged) == {"ok"}


def test_what_breaches_whatever_was_rejected_fires_all_the_same() -> None:
    bench = Bench(spec("error_rate@on > 2% over 300s"))
    for n in range(200):
        lost = 20 if n < 20 else 0
        state, reason = one(bench.see((ON, counts(50, 20)), (OFF, counts(50)), (SERVICE, counts(100, rejected=lost))))
    assert state == "firing"
    assert "even if what is missing was well: rejected 3.846 % > 1 %" in reason


def test_a_second_of_which_too_much_was_rejected_proves_nothing() -> None:
    def fired(rejected: int) -> bool:
        bench = Bench(spec("error_rate@on > control", min_samples=1))
        for _ in range(70):
            bench.see(*rows(Arrived(50, 50, 0)))
        bad = [(ON, counts(50, 50)), (OFF, counts(50)), (SERVICE, counts(100, rejected=rejected))]
        # 50 are less than 1 % of the minute.
        return "firing" in [one(bench.see(*bad))[0], *(one(bench.see(*rows(Arrived(50, 50, 0))))[0] for _ in range(5))]

    assert fired(0)
    assert not fired(50)


def test_a_variant_that_may_have_been_rejected_is_neither_absent_nor_there() -> None:
    bench = Bench(spec("absence@on"))
    for _ in range(70):
        bench.see(*rows(Arrived(50, 50, 0)))
    assert one(bench.see(*rows(Arrived(50, 50, 0))))[0] == "ok"
    # Few compared with the requests of the other topic, but more than 1 % of their own.
    bench.evaluator.set_unattributed({60: np.array([5])})
    assert one(bench.see(*rows(Arrived(50, 50, 0))))[0] == "unknown"


class Received(NamedTuple):
    """Samples that a source received in a second, those whose service could not be read, and those of which only the
    service could."""

    received: int
    rejected: int
    of_service: int = 0


def partial(at: int, arrived: Received, partition: int = 0, of: int = 1) -> bytes:
    """Return the partial that the owner of a source partition sends at the end of second `at`."""
    service = counts(20, rejected=arrived.of_service)
    sent = cells(at, (SERVICE, service), (ON, counts(10)), (OFF, counts(10)))
    return encode(
        Partial(
            version=VERSION,
            topic="requests",
            partition=partition,
            partitions=of,
            owner="a",
            sent_at=0.0,
            watermark=at + 1.0,
            caught_up=True,
            overflow=0,
            scopes=[(*scope,) for scope in sent.scopes],
            instances=list(sent.instances),
            measures=list(sent.measures),
            columns=pack(sent),
            received=arrived.received,
            rejected=arrived.rejected,
        )
    )


def shard(specs: Sequence[TriggerSpec]) -> Shard:
    return Shard(
        0,
        specs,
        ["requests"],
        ShardSettings(max_scopes=50, evaluate_every=1, catching_up_after=15.0),
    )


def states(seconds: Sequence[EvaluatedSecond]) -> list[list[str]]:
    """Return the state of each trigger in each second, from the health records."""
    return [[row.state for row in second.health.triggers] for second in seconds if second.health is not None]


def live(target: Shard, series: Sequence[Received], begin: int = T) -> list[list[str]]:
    found: list[EvaluatedSecond] = []
    for at, arrived in enumerate(series, begin):
        found += target.take(partial(at, arrived), at + 3.0)
    return states(found)


RULES = [
    spec(rule.format(length))
    for length in LENGTHS
    for rule in ("error_rate > 2% over {}s", "error_rate@on > 2% over {}s")
]

received = st.lists(
    st.tuples(
        st.integers(1, 40),
        st.builds(Received, st.integers(20, 200), rejected=st.sampled_from([0, 0, 0, 1, 2, 20]), of_service=st.just(0)),
    ),
    min_size=1,
    max_size=4,
)


@settings(deadline=None, max_examples=12)
@given(received)
def test_a_window_lacks_what_its_topic_rejected_in_its_seconds(series: list[tuple[int, Received]]) -> None:
    seconds = [arrived for length, arrived in series for _ in range(length)]
    for i, judged in enumerate(live(shard(RULES), seconds)):
        expected = []
        for length in LENGTHS:
            inside = seconds[max(0, i + 1 - length) : i + 1]
            lost, all_ = sum(own.rejected for own in inside), sum(own.received for own in inside)
            expected += ["unknown" if 100 * lost > all_ else "ok"] * 2
        assert judged == expected, i


BURST = [Received(100, 60 if 20 <= n < 80 else 0) for n in range(420)]
OF_SERVICE = [Received(100, 0, 60 if 20 <= n < 80 else 0) for n in range(420)]


LONG, LONG_ON, SHORT_ON = (
    spec("error_rate > 2% over 300s"),
    spec("error_rate@on > 2% over 300s"),
    spec("error_rate@on > 2% over 10s"),
)


class Lived(NamedTuple):
    """A series that was read second by second: what each trigger said, and what was known after 200 of them."""

    series: list[Received]
    records: list[bytes]
    states: dict[TriggerSpec, list[str]]
    reasons: dict[TriggerSpec, str]
    checkpoint: Checkpoint


def lived(series: list[Received]) -> Lived:
    specs = [LONG, LONG_ON, SHORT_ON]
    target = shard(specs)
    judged = live(target, series[:200])
    assert target.verdicts is not None
    reasons = {one_: target.verdicts.reason(number) for number, one_ in enumerate(specs)}
    found = target.checkpoint("them")
    assert found is not None
    judged += live(target, series[200:], T + 200)
    by_spec = {one_: [row[number] for row in judged] for number, one_ in enumerate(specs)}
    records = [partial(at, arrived) for at, arrived in enumerate(series, T)]
    return Lived(series, records, by_spec, reasons, found)


@pytest.fixture(scope="module")
def burst() -> Lived:
    return lived(BURST)


@pytest.fixture(scope="module")
def of_service() -> Lived:
    return lived(OF_SERVICE)


@pytest.fixture(params=["burst", "of_service"])
def either(request: pytest.FixtureRequest) -> Lived:
    found: Lived = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize(
    ("rule", "percent"), [(LONG, "47.37"), (LONG_ON, "64.29")], ids=["error_rate", "error_rate@on"]
)
def test_what_a_topic_rejected_is_missing_for_as_long_as_the_five_minutes_hold_it(
    burst: Lived, rule: TriggerSpec, percent: str
) -> None:
    assert burst.reasons[rule] == f"rejected {percent} % > 1 % (18 % of topic requests, of any service)"
    # The last five seconds of the burst are tolerated: 300 of 30,000.
    assert [n for n, own in enumerate(burst.states[rule]) if own == "unknown"] == list(range(20, 79 + 300 - 5))


def test_a_log_that_is_read_at_once_leads_to_the_same_verdicts(either: Lived) -> None:
    specs = [LONG, SHORT_ON]
    batch, errors = decode_all(either.records)
    assert errors == []
    target = shard(specs)
    clock = Now(time=T + len(either.series) + 2.0, latest=T + len(either.series) + 2.0, monotonic=0.0)
    at_once = states(list(target.take_all(batch, lambda: clock)))
    assert at_once == [[*row] for row in zip(*(either.states[one_] for one_ in specs), strict=True)]


def test_who_takes_over_knows_what_was_rejected_before_the_checkpoint(either: Lived) -> None:
    second = Shard(
        0,
        [*either.states],
        ["requests"],
        ShardSettings(max_scopes=50, evaluate_every=1, catching_up_after=15.0),
        ResumePoint(checkpoint=either.checkpoint),
    )
    again = [
        one_
        for at, record in enumerate(either.records, T)
        for one_ in second.take(record, at + 3.0)
        if one_.time > T + 200
    ]
    expected = [[*row] for row in zip(*either.states.values(), strict=True)][200:]
    assert states(again) == expected
    assert {own for _, own, _ in expected} == {"unknown", "ok"}


def test_a_source_that_is_ahead_makes_no_earlier_second_unknown() -> None:
    specs = [spec("error_rate > 2% over 10s")]
    target = shard(specs)
    found: list[EvaluatedSecond] = []
    for at in range(T, T + 30):
        # The first source reports rejected samples; the other is 10 s behind.
        found += target.take(partial(at, Received(100, 60 * (at >= T + 15)), of=2), at + 3.0)
        if at >= T + 10:
            found += target.take(partial(at - 10, Received(100, 0), partition=1, of=2), at + 3.0)
    assert [own for (own,) in states(found)] == ["ok"] * 15 + ["unknown"] * 5


def test_a_rejected_sample_of_another_flags_service_is_nobodys_here() -> None:
    bench = Bench(replace(spec("error_rate@on > 2% over 70s"), service="cart"))
    own = [(Scope("production", "cart", "new", "on"), counts(10)), (Scope("production", "cart"), counts(10))]
    assert bench.states([*own, (SERVICE, counts(10, rejected=10))]) == ["ok"]
