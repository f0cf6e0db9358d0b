"""Reduction of one source partition: which second a sample counts in, what is late, and what may be committed."""

from __future__ import annotations

import math
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.cells import Scope
from detectors.conditions.grammar import parse
from detectors.conditions.spec import TriggerSpec
from streams.decoders.interner import VARIANTS_KEPT
from streams.decoders.watch_list import WatchList
from streams.grouped_sums import LIMIT
from streams.monitor.watch_list import watch_list
from streams.telemetry.sample import Sample
from tests.support.samples import T0, WATCH, CellsByScope, Stage, count, records_of, samples


def merged(parts: list[CellsByScope]) -> CellsByScope:
    result: CellsByScope = {}
    for part in parts:
        for key, cell in part.items():
            assert key not in result, f"{key} was closed twice"
            result[key] = cell
    return result


@given(st.lists(samples, max_size=40), st.lists(st.integers(1, 9), min_size=1, max_size=20), st.randoms())
def test_batches_and_the_moments_of_closing_change_nothing_within_the_lateness(
    given_samples: list[Sample], sizes: list[int], rng: random.Random
) -> None:
    shuffled = sorted(given_samples, key=lambda sample: sample.ts + rng.uniform(0, 1.99))
    records = records_of(shuffled, "json")
    stage = Stage("json")
    parts = []
    while records:
        size = rng.choice(sizes)
        stage.take(records[:size])
        records = records[size:]
        if stage.reducer.reached is not None:
            parts.append(stage.close(stage.reducer.reached - 2.0))
    parts.append(stage.close())
    assert merged(parts) == count(given_samples)


@given(st.lists(samples, min_size=1, max_size=40), st.integers(0, 7), st.data())
def test_a_reader_that_begins_where_it_may_recounts_every_open_second(
    given_samples: list[Sample], closed: int, data: st.DataObject
) -> None:
    ordered = sorted(given_samples, key=lambda sample: sample.ts)
    records = records_of(ordered, "json")
    cut = data.draw(st.integers(1, len(records)))
    first = Stage("json")
    first.take(records[:cut])
    before = first.close(float(T0 + closed))
    start = first.reducer.committable
    assert start is not None
    again = Stage("json")
    again.take(records[start:])
    after = {key: cell for key, cell in again.close().items() if key[1] >= T0 + closed}
    whole = count(ordered)
    assert after == {key: cell for key, cell in whole.items() if key[1] >= T0 + closed}
    if cut == len(records):
        assert merged([before, after]) == whole


def at(ts: float, **fields: object) -> bytes:
    return msgspec.json.encode(Sample(ts=T0 + ts, service="shop", **fields))  # type: ignore[arg-type]


def counted(all_cells: CellsByScope, name: str) -> dict[int, int]:
    return {second - T0: cell.counts[name] for (_, second), cell in all_cells.items() if cell.counts[name]}


def test_a_sample_is_late_once_its_second_ended_as_long_ago_as_allowed() -> None:
    stage = Stage("json")
    # The newest sample less 2 s of lateness is at 1.0: second 0 has ended by then, second 1 has not.
    stage.take([at(3.0), at(0.9), at(1.0)])
    all_cells = stage.close()
    assert counted(all_cells, "requests") == {3: 1, 1: 1}
    assert counted(all_cells, "late") == {1: 1}


def test_lateness_does_not_depend_on_batches() -> None:
    records = [at(0.1), at(3.5), at(0.2), at(6.0), at(2.0), at(4.5)]
    whole = Stage("json")
    whole.take(records)
    one_by_one = Stage("json")
    for record in records:
        one_by_one.take([record])
    assert whole.close() == one_by_one.close()


def test_a_closed_second_is_never_opened_again() -> None:
    stage = Stage("json")
    stage.take([at(0.5)])
    assert counted(stage.close(T0 + 1.0), "requests") == {0: 1}
    stage.take([at(0.6)])
    later = stage.close()
    assert counted(later, "requests") == {}
    assert counted(later, "late") == {1: 1}


def test_a_second_is_closed_only_when_it_has_ended() -> None:
    stage = Stage("json")
    stage.take([at(0.5)])
    assert stage.close(T0 + 0.99) == {}
    assert counted(stage.close(T0 + 1.0), "requests") == {0: 1}


def test_a_clock_far_ahead_is_rejected_and_does_not_close_the_seconds_of_others() -> None:
    stage = Stage("json")
    stage.take([at(0.5), at(70.0), at(0.6)], now=T0 + 1.0)
    assert stage.rejects == {1: "future"}
    assert counted(stage.close(), "requests") == {0: 2}


def test_before_the_first_record_nothing_may_be_committed() -> None:
    stage = Stage("json")
    assert stage.reducer.committable is None
    stage.take([at(0.5), at(1.5)])
    committable = [stage.reducer.committable]
    for boundary in (T0 + 1.0, T0 + 2.0):
        stage.close(boundary)
        committable.append(stage.reducer.committable)
    assert committable == [0, 1, 2]


def test_rejected_records_do_not_hold_back_the_commit() -> None:
    stage = Stage("json")
    stage.take([b"{", b"{"])
    assert stage.reducer.committable == 2


def test_flags_that_are_not_watched_make_no_scope() -> None:
    stage = Stage("json")
    stage.take([at(0.5, flags={"new": "on"})])
    assert [scope for scope, _ in stage.close()] == [Scope("production", "shop")]


def test_what_finds_no_room_is_counted_and_what_triggers_need_is_kept() -> None:
    stage = Stage("json", max_scopes=len(WATCH.scopes) + 5)
    flood = [msgspec.json.encode(Sample(ts=T0 + 0.5, service=f"s{i}")) for i in range(3000)]
    stage.take(flood)
    stage.take([msgspec.json.encode(Sample(ts=T0 + 0.5, service="cart", flags={"new": "on"}))])
    scopes = {scope for scope, _ in stage.close()}
    assert {Scope("production", "cart"), Scope("production", "cart", "new", "on")} <= scopes
    assert len(scopes) <= len(WATCH.scopes) + 5
    # Two of the five free places are kept for more variants of watched flags.
    assert stage.reducer.take_unreported().overflow == 3000 - 3
    assert stage.reducer.take_unreported().overflow == 0


def test_services_that_nobody_watches_leave_room_for_variants_of_watched_flags() -> None:
    trigger = TriggerSpec(
        name="errors",
        flag="new",
        environment="production",
        service="shop",
        condition=parse("error_rate > 2% over 10s"),
        safe_variant="off",
        min_samples=30,
    )
    stage = Stage("json", watch=watch_list([trigger]), max_scopes=100)
    stage.take([msgspec.json.encode(Sample(ts=T0 + 0.5, service=f"s{i}", status=200)) for i in range(3000)])
    # The safe variant always has a place: triggers of the whole service are compared with it before a rollback.
    variants = ["off", *(f"v{i}" for i in range(VARIANTS_KEPT))]
    stage.take([at(0.5, flags={"new": variant}) for variant in variants])
    assert {scope.variant for scope, _ in stage.close() if scope.service == "shop"} == {"", *variants}


def test_names_invented_without_end_do_not_fill_the_memory() -> None:
    stage = Stage("json", watch=WatchList.of([Scope("production", "cart", "new", "on")]), max_scopes=50)
    for batch in range(40):
        stage.take(
            [
                msgspec.json.encode(
                    Sample(ts=T0 + 0.5, service="cart", instance=f"i{batch}-{i}", flags={f"f{batch}-{i}": "on"})
                )
                for i in range(2000)
            ]
        )
    (cell,) = (cell for (scope, _), cell in stage.close().items() if not scope.flag)
    assert cell.counts["requests"] == 80_000
    assert sum(counts["requests"] for counts in cell.instances.values()) == 80_000
    assert len(cell.instances) <= 257
    assert len(stage.interner.table().json) < 40_000


@pytest.mark.parametrize("sign", [1, -1])
def test_a_measure_is_summed_exactly_up_to_the_limit_and_stops_there(sign: int) -> None:
    stage = Stage("json")
    stage.take([at(0.5, measures={"m": sign * 1e9}, n=9), at(1.5, measures={"m": sign * 1e9}, n=1000)])
    exact, stopped = (cell.measures["m"] for cell in stage.close().values())
    assert exact == (9, sign * 9 * 10**15)
    assert stopped == (1000, sign * LIMIT)


def test_newest_never_passes_the_clock() -> None:
    stage = Stage("json")
    stage.take([at(30.0)], now=T0 + 5.0)
    assert stage.reducer.reached == T0 + 5.0
    assert math.isinf(Stage("json").reducer.reached or math.inf)
