"""A field that came and could not be read makes what asks for it unknown, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.cells import Scope
from detectors.conditions.spec import TriggerSpec
from detectors.histogram import midpoints_ms
from detectors.windows.unreadable import unreadable
from tests.support.cells import Cell
from tests.support.verdicts import rows_of
from tests.unit.detectors.triggers.test_evaluator import OFF, ON, SERVICE, Bench, counts, one, spec

LATENCY, CACHE = unreadable("latency"), unreadable("cache")
VARIANT, QUALITY = unreadable("variant", "new"), unreadable("measure", "quality")


def lacking(cell: Cell, **unread: int) -> Cell:
    """The cell, and so many requests of it whose latency, cache, variant or measure could not be read."""
    names = {"latency": LATENCY, "cache": CACHE, "variant": VARIANT, "quality": QUALITY}
    return replace(cell, measures={**cell.measures, **{names[name]: (n, float(n)) for name, n in unread.items()}})


def much(unread: int, read: int, requests: int, late: int) -> bool:
    """More than 1 % of all samples, or of those that have the field, are missing."""
    return 100 * (unread + late) > requests + late or 100 * unread > read + unread


numbers = st.sampled_from([0, 1, 2, 30, 99, 100, 500])


@st.composite
def second(draw: st.DrawFn) -> dict[str, int]:
    """Requests, of which some have a value that was read, and some one that was not; a part of the former is good."""
    read, unread, without = draw(numbers), draw(st.sampled_from([0, 0, 0, 1, 5, 50, 500])), draw(numbers)
    late = draw(st.sampled_from([0, 0, 0, 1, 20]))
    return {
        "requests": read + unread + without,
        "read": read,
        "unread": unread,
        "late": late,
        "good": draw(st.integers(0, read)),
    }


def judged(series: Sequence[Mapping[str, int]], least: int, worst: float | None, plain: float | None) -> str:
    """The rule: `plain` and `worst` say how far beyond the limit the value is, as it is and at its best."""
    read, unread, requests, late = (sum(s[name] for s in series) for name in ("read", "unread", "requests", "late"))
    if much(unread, read, requests, late):
        return "firing" if worst is not None and worst > 0 and read >= least else "unknown"
    return "unknown" if read < least or plain is None else "firing" if plain > 0 else "ok"


S = TypeVar("S")
SERVICES = ("shop", "cart", "search", "login")
"""Each has its own series in an example: an evaluation of all of them costs little more than one of a single one."""


def cases_of(
    seconds: st.SearchStrategy[S], most: int, leasts: Sequence[int]
) -> st.SearchStrategy[list[tuple[list[S], int]]]:
    """Draw for each service a series of seconds, and the least samples of its triggers."""
    case = st.tuples(st.lists(seconds, min_size=1, max_size=most), st.sampled_from(leasts))
    return st.lists(case, min_size=len(SERVICES), max_size=len(SERVICES))


def bench_of(cases: Sequence[tuple[list[S], int]], *rules: Callable[[int], TriggerSpec]) -> Bench:
    """A bench with the triggers of every service; `rules` take the least samples."""
    specs = [
        replace(rule(least), service=service)
        for service, (_, least) in zip(SERVICES, cases, strict=True)
        for rule in rules
    ]
    return Bench(*specs, max_scopes=16)


def judged_at(
    bench: Bench, cases: Sequence[tuple[list[S], int]], rows: Callable[[S], list[tuple[Scope, Cell]]]
) -> Iterator[tuple[list[str], list[S], int]]:
    """Feed the series of all services side by side. Yield for every second of each: the states of its triggers, the
    last three seconds, and the least samples."""
    for i in range(max(len(series) for series, _ in cases)):
        fed = [
            (scope._replace(service=service), cell)
            for service, (series, _) in zip(SERVICES, cases, strict=True)
            if i < len(series)
            for scope, cell in rows(series[i])
        ]
        states = bench.states(fed)
        each = len(states) // len(cases)
        for number, (series, least) in enumerate(cases):
            if i < len(series):
                yield states[number * each : (number + 1) * each], series[max(0, i - 2) : i + 1], least


@settings(deadline=None, max_examples=50)
@given(cases_of(second(), 5, [0, 1, 50]))
def test_unreadable_cache_states_may_all_have_been_hits(cases: list[tuple[list[dict[str, int]], int]]) -> None:
    def rows(own: dict[str, int]) -> list[tuple[Scope, Cell]]:
        cell = Cell({"requests": own["requests"], "late": own["late"]})
        cell = replace(cell, counts={**cell.counts, "cache_lookups": own["read"], "cache_hits": own["good"]})
        return [(SERVICE, lacking(cell, cache=own["unread"]))]

    bench = bench_of(cases, lambda least: spec("cache_hit_rate < 40% over 3s", min_samples=least))
    for (state,), inside, least in judged_at(bench, cases, rows):
        read, unread, good, late = (sum(s[name] for s in inside) for name in ("read", "unread", "good", "late"))
        lost = unread + late
        worst = 0.4 - (good + lost) / (read + lost) if read + lost else None
        assert state == judged(inside, least, worst, 0.4 - good / read if read else None)


@settings(deadline=None, max_examples=50)
@given(cases_of(second(), 5, [0, 1, 50]))
def test_unreadable_latencies_may_all_have_been_of_no_time(cases: list[tuple[list[dict[str, int]], int]]) -> None:
    def rows(own: dict[str, int]) -> list[tuple[Scope, Cell]]:
        # Good ones take 5 ms, others 20 ms; in the histogram they are in bins beneath and above the limit.
        slow = own["read"] - own["good"]
        told = {"latency_count": own["read"], "latency_us": 5_000 * own["good"] + 20_000 * slow}
        cell = Cell(
            {"requests": own["requests"], "late": own["late"], **told},
            {b: n for b, n in ((10, own["good"]), (30, slow)) if n},
        )
        return [(SERVICE, lacking(cell, latency=own["unread"]))]

    mean, high = "latency_mean > 10ms over 3s", f"latency_p90 > {float(midpoints_ms()[20])!r}ms over 3s"
    bench = bench_of(
        cases,
        lambda least: spec(mean, min_samples=least),
        lambda least: spec(high, min_samples=least),
        lambda _: spec("error_rate > 2% over 3s"),
    )
    for states, inside, least in judged_at(bench, cases, rows):
        read, unread, good, late = (sum(s[name] for s in inside) for name in ("read", "unread", "good", "late"))
        lost, slow = unread + late, read - good
        total = 5 * good + 20 * slow
        assert states[0] == judged(
            inside, least, total / (read + lost) - 10 if read + lost else None, total / read - 10 if read else None
        )

        def beyond(others: int, slow: int = slow, good: int = good) -> float | None:
            values = others + good + slow
            return math.floor(slow - (values - math.ceil(0.9 * values))) if values else None

        assert states[1] == judged(inside, least, beyond(lost), beyond(0))
        requests = sum(s["requests"] for s in inside)
        said = "unknown" if 100 * late > requests + late or not requests else "ok"
        assert states[2] == said


@pytest.mark.parametrize(
    ("when", "unread", "reason"),
    [
        (
            "latency_p95 > 1s over 1s",
            {"latency": 12},
            "latency of 12 % of requests could not be read: latency_ms must be milliseconds from 0 to 3,600,000 (an "
            "hour)",
        ),
        (
            "latency_mean > 1s over 1s",
            {"latency": 100},
            "latency of 100 % of requests could not be read: latency_ms must be milliseconds from 0 to 3,600,000 (an "
            "hour)",
        ),
        (
            "cache_hit_rate < 40% over 1s",
            {"cache": 2},
            "cache of 2 % of requests could not be read: cache must be hit, miss or bypass",
        ),
        (
            "measure.quality < 0.8 over 1s",
            {"quality": 5},
            "measure 'quality' of 5 % of requests could not be read: it must be a number",
        ),
    ],
)
def test_the_reason_names_the_field_its_share_and_what_it_must_be(
    when: str, unread: dict[str, int], reason: str
) -> None:
    read = 100 - sum(unread.values())
    cell = Cell(
        {"requests": 100, "latency_count": read, "latency_us": read, "cache_lookups": read, "cache_hits": read},
        {10: read} if read else {},
        measures={"quality": (read, float(read))},
    )
    others = ["error_rate > 2% over 1s", "throughput < 1 over 1s"]
    bench = Bench(spec(when), *map(spec, others))
    rows = list(rows_of(bench.see((SERVICE, lacking(cell, **unread)))))
    assert [row.state for row in rows] == ["unknown", "ok", "ok"]
    assert rows[0].reason == reason


def test_up_to_one_percent_is_overlooked_of_those_that_have_the_field() -> None:
    def said(read: int, unread: int) -> tuple[str, str]:
        cell = Cell({"requests": 10_000, "latency_count": read, "latency_us": read})
        return one(Bench(spec("latency_mean > 1s over 1s")).see((SERVICE, lacking(cell, latency=unread))))

    assert said(9_900, 100) == ("ok", "")
    assert said(9_899, 101)[0] == "unknown"
    state, reason = said(50, 50)
    assert state == "unknown"
    assert reason.startswith("latency of 50 % of the requests that have one could not be read")


def test_what_is_late_and_what_cannot_be_read_add_up() -> None:
    cell = Cell({"requests": 95, "late": 5, "latency_count": 92, "latency_us": 92})
    _, reason = one(Bench(spec("latency_mean > 1s over 1s")).see((SERVICE, lacking(cell, latency=3))))
    assert reason.startswith("late 5 % and latency of 3 % of requests could not be read: 8 % missing > 1 %")


def test_one_bad_latency_does_not_keep_the_instances_that_are_in_time_from_being_judged() -> None:
    pods = {f"pod-{n}": {"requests": 100, "latency_count": 100, "latency_us": 100} for n in range(9)}
    late = {"requests": 0, "late": 100}
    cell = Cell(
        {"requests": 900, "late": 100, "latency_count": 899, "latency_us": 900}, instances={**pods, "slow": late}
    )
    said = one(Bench(spec("latency_mean > 1s over 1s")).see((SERVICE, lacking(cell, latency=1))))
    assert said == ("ok", "left out: instance slow (100 % late)")
    assert one(Bench(spec("latency_mean > 1s over 1s")).see((SERVICE, lacking(cell, latency=50))))[0] == "unknown"


OfVariants = tuple[int, int, int, int]
"""Requests of `on`, of `off` and of an unread variant in a second, and errors."""


@settings(deadline=None, max_examples=50)
@given(
    cases_of(
        st.tuples(
            st.sampled_from([0, 20, 500]),
            st.sampled_from([0, 1, 100, 1000]),
            st.sampled_from([0, 0, 1, 10, 300]),
            st.integers(0, 20),
        ),
        6,
        [0, 1, 30],
    )
)
def test_a_request_of_unread_variant_may_have_been_of_every_variant(cases: list[tuple[list[OfVariants], int]]) -> None:
    def rows(second_: OfVariants) -> list[tuple[Scope, Cell]]:
        on, off, unread, errors = second_
        service = lacking(counts(on + off + unread), variant=unread)
        return [(ON, counts(on, min(errors, on))), (OFF, counts(off)), (SERVICE, service)]

    bench = bench_of(
        cases,
        lambda least: spec("error_rate@on > 2% over 3s", min_samples=least),
        lambda _: spec("error_rate > 99% over 3s"),
    )
    for states, inside, least in judged_at(bench, cases, rows):
        own, others, lost = (sum(s[k] for s in inside) for k in range(3))
        bad = sum(min(s[3], s[0]) for s in inside)
        if 100 * lost > own + others + lost:
            expected = "firing" if own >= least and bad > 0.02 * (own + lost) else "unknown"
        else:
            expected = "unknown" if own < max(least, 1) else "firing" if bad > 0.02 * own else "ok"
        assert states[0] == expected
        assert states[1] == ("ok" if own + others + lost else "unknown")


def test_every_rule_on_a_variant_of_the_flag_lacks_what_could_not_be_told_apart() -> None:
    rules = [
        "error_rate@on > 2% over 10s",
        "error_rate@on > 3x control over 10s",
        "throughput@off < 1/s over 10s",
        "error_rate@on > control",
        "absence@on",
    ]
    bench = Bench(*map(spec, rules))
    for _ in range(60):
        bench.see((ON, counts(50)), (OFF, counts(50)), (SERVICE, counts(100)))
    for _ in range(10):
        found = bench.see((ON, counts(44)), (OFF, counts(44)), (SERVICE, lacking(counts(100), variant=12)))
    assert [row.state for row in rows_of(found)] == ["unknown"] * 5
    for i in range(3):
        assert found.reason(i) == (
            "variant of 'new' of 12 % of requests could not be read: it must be the name of the variant, such as \"on\""
        )
    # Of a minute; an absence looks at ten seconds.
    assert found.reason(3).startswith("variant of 'new' of 2 % of requests could not be read")
    assert found.reason(4).startswith("variant of 'new' of 12 % of requests could not be read")
    other = Bench(replace(spec("error_rate@on > 2% over 1s"), flag="other"))
    rows = [(Scope("production", "shop", "other", "on"), counts(50)), (SERVICE, lacking(counts(100), variant=50))]
    assert other.states(rows) == ["ok"]


def test_a_variant_that_is_misspelt_is_not_absent() -> None:
    bench = Bench(spec("absence@on", grace=30))
    for _ in range(100):
        bench.see((ON, counts(50)), (OFF, counts(50)), (SERVICE, counts(100)))
    said = [one(bench.see((OFF, counts(50)), (SERVICE, lacking(counts(100), variant=50))))[0] for _ in range(60)]
    assert "firing" not in said
    assert set(said[20:]) == {"unknown"}
    assert "firing" in [one(bench.see((OFF, counts(50)), (SERVICE, counts(50))))[0] for _ in range(120)]


def test_evidence_by_the_second_takes_what_could_not_be_read_for_healthy() -> None:
    rule = replace(spec("latency_p95 > 1s over 10s for 60s", min_samples=30), fast=True)
    slow = Cell({"requests": 100, "latency_count": 60, "latency_us": 60}, {700: 60})

    def fired(unread: int) -> bool:
        bench = Bench(rule)
        return any(one(bench.see((SERVICE, lacking(slow, latency=unread))))[0] == "firing" for _ in range(30))

    assert fired(0)
    assert fired(40)
    assert not fired(40_000)


@pytest.mark.parametrize("name", ["latency", "variant"])
def test_a_second_in_which_too_much_could_not_be_read_proves_nothing(name: str) -> None:
    rule = spec("latency_p95@on > control", min_samples=1)
    sent = {"requests": 100, "latency_count": 100}
    arms = [(scope, Cell(sent, {100: 100}, instances={"pod": sent})) for scope in (ON, OFF)]
    sent = {"requests": 100, "latency_count": 90}
    bad = Cell(sent, {100: 30, 400: 60}, instances={"pod": sent})

    def fired(unread: int) -> bool:
        bench = Bench(rule)
        for _ in range(30):
            bench.see(*arms, (SERVICE, counts(200)))
        lost = {name: unread}
        of_arm, of_service = (lost, {}) if name == "latency" else ({}, lost)
        rows = [(ON, lacking(bad, **of_arm)), arms[1], (SERVICE, lacking(counts(200), **of_service))]
        return any(one(bench.see(*rows))[0] == "firing" for _ in range(30))

    assert fired(0)
    assert not fired(10)


def test_a_long_window_remembers_what_the_last_minute_has_forgotten() -> None:
    bench = Bench(spec("error_rate@on > 2% over 300s"))
    for second_ in range(200):
        unread = 20 if 10 <= second_ < 40 else 0
        rows = [(ON, counts(50)), (OFF, counts(50)), (SERVICE, lacking(counts(100 + unread), variant=unread))]
        state = bench.states(rows)[0]
    assert state == "unknown"
    for _ in range(300):
        state = bench.states([(ON, counts(50)), (OFF, counts(50)), (SERVICE, counts(100))])[0]
    assert state == "ok"


def test_up_to_one_percent_of_a_long_window_is_overlooked() -> None:
    def state(unread: int, rate: int, before: int, *rules: str) -> str:
        """After 240 s of `before` requests/s, of which `unread` in all have no variant that was read, and 60 s of
        `rate`."""
        bench = Bench(*map(spec, ["error_rate@on > 2% over 300s", *rules]))
        for second_ in range(300):
            requests, lost = before if second_ < 240 else rate, unread if second_ == 0 else 0
            rows = [(ON, counts(requests // 2)), (OFF, counts(requests // 2))]
            states = bench.states([*rows, (SERVICE, lacking(counts(requests + lost), variant=lost))])
        return states[0]

    assert state(280, 100, 100) == "ok"
    assert state(320, 100, 100) == "unknown"
    # Traffic that came in the last minute was not there before.
    assert state(500, 500, 4, "error_rate > 99% over 300s") == "unknown"


def test_names_of_flags_and_measures_do_not_fill_a_reason() -> None:
    name = "x" * 250
    rule = replace(spec("error_rate@on > 2% over 1s"), flag=name)
    cell = Cell({"requests": 100}, measures={unreadable("variant", name): (50, 50.0)})
    rows = [(Scope("production", "shop", name, "on"), counts(50)), (SERVICE, cell)]
    assert len(Bench(rule).see(*rows).reason(0)) < 250
