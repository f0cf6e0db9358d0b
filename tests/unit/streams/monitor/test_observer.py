"""The observer's readings of windows after a flip, compared with sums made by hand."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.cells import Scope
from detectors.conditions.grammar import parse
from detectors.conditions.spec import TriggerSpec
from detectors.triggers.wants import measures, wants
from detectors.windows.store import WindowStore
from streams.monitor.observer import Exposure, Observer, flip_wants, whole
from tests.support.cells import Cell, cells

DISPLAY = 60
SERVICE = Scope("production", "shop")


def variant(name: str, flag: str = "new", service: str = "shop") -> Scope:
    return Scope("production", service, flag, name)


def spec(when: str = "error_rate@on > 20% over 10s") -> TriggerSpec:
    return TriggerSpec(
        name="errors",
        flag="new",
        environment="production",
        service="shop",
        condition=parse(when),
        safe_variant="off",
        min_samples=5,
    )


def made(of: TriggerSpec, max_scopes: int = 50) -> tuple[WindowStore, Observer]:
    store = WindowStore([*wants([of]), *flip_wants([of])], max_scopes=max_scopes, measures=measures([of]))
    return store, Observer([of], store)


Second = dict[Scope, dict[str, int]]


def fill(store: WindowStore, seconds: list[Second], begin: int = 0) -> None:
    for at, rows in enumerate(seconds, begin):
        blocks = [cells(at, *((scope, Cell(counts)) for scope, counts in rows.items()))] if rows else []
        store.advance(at, *blocks)


scopes = st.sampled_from(
    [
        SERVICE,
        variant("on"),
        variant("half"),
        variant("off"),
        variant("on", flag="other"),
        variant("on", service="cart"),
    ]
)
columns = st.fixed_dictionaries({"requests": st.integers(0, 300), "late": st.integers(0, 3)})


@settings(deadline=None, max_examples=60)
@given(st.lists(st.dictionaries(scopes, columns, max_size=6), max_size=75), st.integers(0, 80))
def test_requests_of_each_second_are_those_that_came(seconds: list[Second], since: int) -> None:
    store, observer = made(spec())
    fill(store, seconds)
    found = observer.requests("production", "shop", "new", since=since)
    wanted = seconds[max(since, len(seconds) - DISPLAY) :]

    def column(of: list[Scope], name: str = "requests") -> list[int]:
        return [sum(second.get(scope, {name: 0})[name] for scope in of) for second in wanted]

    others = [variant("on"), variant("half")]
    assert found.others.tolist() == column(others)
    assert found.variants.tolist() == column([*others, variant("off")])
    assert found.requests.tolist() == column([SERVICE])
    assert found.late.tolist() == column([SERVICE], "late")


def both(on: int, all_: int) -> Second:
    return {SERVICE: {"requests": all_}, variant("on"): {"requests": on}, variant("off"): {"requests": all_ - on}}


def test_exposure_is_that_of_the_last_minute() -> None:
    store, observer = made(spec())
    fill(store, [both(100, 100)] * 30 + [both(4, 10)] * DISPLAY)
    assert observer.exposure("production", "shop", "new") == Exposure(4.0, 10.0, 10.0)


def test_a_store_that_has_just_begun_divides_by_what_it_has_seen() -> None:
    store, observer = made(spec())
    assert observer.exposure("production", "shop", "new") == Exposure(0.0, 0.0, 0.0)
    fill(store, [both(4, 10)] * 6)
    assert observer.exposure("production", "shop", "new") == Exposure(4.0, 10.0, 10.0)


@pytest.mark.parametrize(("on", "seconds", "rate"), [(2, 10, 2.0), (1, 19, 19 / 60)])
def test_a_variant_that_has_just_come_up_counts_from_then_where_it_is_enough(
    on: int, seconds: int, rate: float
) -> None:
    store, observer = made(spec())
    fill(store, [both(0, 10)] * DISPLAY + [both(on, 10)] * seconds)
    assert observer.exposure("production", "shop", "new").others == pytest.approx(rate)


def test_a_variant_seen_for_the_first_time_is_counted_from_its_first_second() -> None:
    store, observer = made(spec())
    fill(store, [both(0, 10)])
    assert observer.exposure("production", "shop", "new").others == 0
    fill(store, [{SERVICE: {"requests": 7}, variant("new-one"): {"requests": 7}}], begin=1)
    assert observer.requests("production", "shop", "new", since=1).others.tolist() == [7]


def test_the_metric_is_measured_in_the_variant_and_in_the_whole_service() -> None:
    of = spec()
    store, observer = made(of)
    fill(store, [{SERVICE: {"requests": 10, "errors": 3, "late": 1}, variant("on"): {"requests": 4, "errors": 2}}] * 12)
    own, all_ = observer.measure(of, of.scope), observer.measure(of, whole(of))
    assert (own.value, own.samples, own.late) == (0.5, 40, 0)
    assert (all_.value, all_.samples, all_.requests, all_.late) == (0.3, 100, 100, 10)


def test_latency_is_measured_in_the_whole_service_too() -> None:
    of = spec("latency_p95@on > 1s over 10s")
    store, observer = made(of)
    store.advance(0, cells(0, (SERVICE, Cell({"requests": 3, "latency_count": 3}, bins={400: 3}))))
    assert observer.measure(of, whole(of)).samples == 3
    assert not math.isnan(observer.measure(of, whole(of)).value)


def test_who_still_gives_another_variant_is_named_the_busiest_first() -> None:
    store, observer = made(spec())

    def second(at: int, on: Counter[str]) -> None:
        given = {name: {"requests": n} for name, n in on.items()}
        store.advance(
            at,
            cells(
                at,
                (variant("on"), Cell({"requests": on.total()}, instances=given)),
                (variant("off"), Cell({"requests": 9}, instances={"well": {"requests": 9}})),
            ),
        )

    second(0, Counter(early=50))
    second(1, Counter(b=1, a=1, c=5))
    second(2, Counter(b=1))
    assert observer.serving("production", "shop", "new", since=1) == ["c", "b", "a"]
