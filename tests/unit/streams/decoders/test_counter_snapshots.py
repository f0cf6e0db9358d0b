"""Counters: what a snapshot adds is how far its series rose since the last one, or nothing."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.cells import COUNTS, MEASURE_SCALE, Scope
from detectors.windows.unreadable import unreadable
from streams.decoders.counter_snapshots import MAX_GAP, MAX_SERIES
from streams.decoders.decoder import Decoder, SampleBatch
from streams.decoders.interner import Interner
from streams.grouped_sums import LIMIT
from streams.slices import Slice, Source
from streams.telemetry.sample import KIND_COUNTS
from tests.support.samples import T0, TOPIC, WATCH, Stage, as_json

CART = Scope("production", "cart")


def snapshot(ts: float, requests: int = 0, *, service: str = "cart", **fields: object) -> bytes:
    """A snapshot `ts` seconds after T0; fields that name a counter go there. `errors` are 0, and with None left out."""
    given = {"errors": 0, **fields}
    counters = {name: given[name] for name in NAMES if given.get(name) is not None}
    fields = {name: value for name, value in fields.items() if name not in NAMES}
    record = {"ts": T0 + ts, "service": service, **fields, "counters": {"requests": requests, **counters}}
    return json.dumps(record).encode()


NAMES = ("errors", "timeouts", "unavailable", "cache_hits", "cache_lookups")


def counted(values: list[bytes], scope: Scope = CART) -> dict[int, dict[str, int]]:
    """Counts of a scope by second since T0; nothing may be rejected."""
    stage = Stage("counters")
    stage.take(values)
    assert stage.rejects == {}
    return {s - T0: dict(b.counts) for (at, s), b in stage.close(T0 + 4000.0).items() if at == scope}


def test_the_first_snapshot_only_sets_the_base_and_the_next_counts_its_rise() -> None:
    assert counted([snapshot(0, 900, errors=50), snapshot(5.5, 1000, errors=51)]) == {5: {"requests": 100, "errors": 1}}


def test_every_counter_counts_as_its_own() -> None:
    zero = snapshot(0)
    rise = snapshot(5, 100, errors=9, timeouts=3, unavailable=2, cache_hits=40, cache_lookups=300)
    assert counted([zero, rise]) == {
        5: {
            "requests": 100,
            "errors": 9,
            "timeouts": 3,
            "unavailable": 2,
            # More lookups than requests: a request may look up many keys.
            "cache_hits": 40,
            "cache_lookups": 300,
        }
    }


def test_a_lower_total_is_a_process_that_began_anew_and_all_of_it_counts() -> None:
    # The errors have passed their old total by then; they count from zero all the same.
    values = [snapshot(0, 1000, errors=5), snapshot(5, 1010, errors=5), snapshot(10, 40, errors=30)]
    assert counted(values) == {5: {"requests": 10}, 10: {"requests": 40, "errors": 30}}


def test_a_counter_that_is_left_out_keeps_its_total() -> None:
    values = [snapshot(0, 10, errors=4), snapshot(5, 20, errors=None), snapshot(10, 30, errors=6)]
    assert counted(values) == {5: {"requests": 10}, 10: {"requests": 10, "errors": 2}}


def test_nobody_knows_how_the_requests_of_a_series_without_errors_ended() -> None:
    # Timeouts alone would make all others successes.
    values = [snapshot(0, 10, errors=None), snapshot(5, 30, errors=None, timeouts=3, cache_lookups=7, cache_hits=2)]
    assert counted(values) == {5: {"requests": 20, "no_outcome": 20, "cache_lookups": 7, "cache_hits": 2}}


def test_a_series_tells_how_requests_ended_from_its_first_errors_on() -> None:
    values = [snapshot(0, 10, errors=None), snapshot(5, 30, errors=None), snapshot(6, 31), snapshot(7, 33, errors=None)]
    assert counted(values) == {5: {"requests": 20, "no_outcome": 20}, 6: {"requests": 1}, 7: {"requests": 2}}


def test_more_errors_than_requests_are_as_many_requests() -> None:
    assert counted([snapshot(0, 10), snapshot(5, 12, errors=3)]) == {5: {"requests": 3, "errors": 3}}


def test_the_rise_is_counted_in_the_second_of_the_snapshot() -> None:
    values = [snapshot(s, 100 * s) for s in range(0, 60, 5)]
    assert counted(values) == {s: {"requests": 500} for s in range(5, 60, 5)}


def test_after_a_long_gap_the_base_is_set_anew() -> None:
    values = [snapshot(0, 10), snapshot(MAX_GAP, 20), snapshot(2 * MAX_GAP + 1, 9000), snapshot(2 * MAX_GAP + 2, 9001)]
    assert counted(values) == {int(MAX_GAP): {"requests": 10}, int(2 * MAX_GAP) + 2: {"requests": 1}}


def test_an_older_snapshot_is_rejected_and_the_base_stays() -> None:
    stage = Stage("counters")
    stage.take([snapshot(0, 100), snapshot(5, 200), snapshot(3, 150), snapshot(5, 210), snapshot(6, 230)])
    assert stage.rejects == {2: "past", 3: "past"}
    assert stage.reasons[2].startswith("ts: is older than the last snapshot of its series")
    assert stage.reducer.stats.unread == 0
    assert {s - T0: b.counts["requests"] for (_, s), b in stage.close(T0 + 9.0).items()} == {5: 100, 6: 30}


def test_a_snapshot_that_is_sent_twice_is_nothing_and_no_fault() -> None:
    assert counted([snapshot(0, 1), snapshot(5, 3), snapshot(5, 3), snapshot(6, 4)]) == {
        5: {"requests": 2},
        6: {"requests": 1},
    }


def test_a_clock_that_was_put_back_far_sets_the_base_anew() -> None:
    stage = Stage("counters")
    stage.take([snapshot(MAX_GAP + 10, 100), snapshot(0, 200), snapshot(5, 260)])
    assert stage.rejects == {}
    assert [b.counts for b in stage.close(T0 + 400.0).values()] == [Counter(requests=60)]


def test_series_are_told_apart_by_each_of_their_names() -> None:
    others: list[dict[str, object]] = [
        {},
        {"service": "shop"},
        {"environment": "staging"},
        {"instance": "i-1"},
        {"instance": "i-2"},
        {"flags": {"new": "on"}},
        {"flags": {"new": "off"}},
    ]
    totals = [10 * 2**i for i in range(len(others))]
    stage = Stage("counters")
    stage.take([snapshot(0, total, **o) for total, o in zip(totals, others, strict=True)])  # type: ignore[arg-type]
    stage.take([snapshot(5, total + 2**i, **o) for i, (total, o) in enumerate(zip(totals, others, strict=True))])  # type: ignore[arg-type]
    assert stage.rejects == {}
    found = {str(scope): b.counts["requests"] for (scope, _), b in stage.close(T0 + 9.0).items()}
    assert found == {
        "production/cart": 1 + 8 + 16 + 32 + 64,
        "production/shop": 2,
        "staging/cart": 4,
        "production/cart/new@on": 32,
        "production/cart/new@off": 64,
    }


def test_absent_names_are_their_defaults_and_flags_have_no_order() -> None:
    values = [
        snapshot(0, 1, flags={"new": "on", "dark": "x"}),
        snapshot(5, 3, flags={"dark": "x", "new": "on"}, environment="production", instance=""),
        snapshot(6, 4, flags={"dark": "x", "new": "on"}, environment=None, instance=None),
    ]
    assert counted(values) == {5: {"requests": 2}, 6: {"requests": 1}}


BAD: list[dict[str, object]] = [
    {"instance": "a\nb"},
    {"instance": 5},
    {"flags": {f"f{i}": "x" * 200 for i in range(30)}},
    {"counters": {}},
    {"counters": None},
    {"counters": {"requests": -1}},
    {"counters": {"requests": 1.5}},
    {"counters": {"requests": LIMIT + 1}},
    {"counters": {"requests": "7"}},
    {"counters": {"requests": 7, "error": 7}},
]
NOBODYS: list[dict[str, object]] = [
    {"ts": "now"},
    {"ts": 1.0},
    {"service": ""},
    {"service": "a\u0000b"},
    {"environment": "x\ny"},
]


@pytest.mark.parametrize("fields", BAD + NOBODYS, ids=lambda fields: str(fields)[:60])
def test_a_wrong_value_is_rejected_and_is_no_base(fields: dict[str, object]) -> None:
    stage = Stage("counters")
    bad = json.dumps({"ts": T0 + 3, "service": "cart", "counters": {"requests": 7}} | fields).encode()
    stage.take([snapshot(0, 10), bad, snapshot(5, 12)])
    assert stage.rejects == {1: "invalid"}
    counts = {second - T0: cell.counts for (_, second), cell in stage.close().items()}
    assert counts == {5: Counter(requests=2)} | ({3: Counter(rejected=1)} if fields in BAD else {})
    assert stage.reducer.stats.unread == (fields in NOBODYS)


def test_hits_without_lookups_cost_the_hits() -> None:
    values = [snapshot(0, 10), snapshot(5, 12, cache_hits=7)]
    assert counted(values) == {5: {"requests": 2}}


def test_series_whose_variants_cannot_be_read_are_kept_apart_and_count_for_their_service() -> None:
    stage = Stage("counters")
    values = [snapshot(at, at * n, flags={"new": on}) for at in (0, 5) for n, on in ((10, True), (3, False))]
    stage.take(values)
    assert stage.rejects == {}
    (cell,) = stage.close().values()
    assert cell.counts == Counter(requests=65)
    assert cell.measures == {unreadable("variant", "new"): (65, 65 * MEASURE_SCALE)}


def test_a_sample_is_no_snapshot() -> None:
    stage = Stage("counters")
    stage.take([as_json(status=200)])
    assert stage.rejects == {0: "invalid"}


@pytest.mark.parametrize("header", [b"application/json", b"application/vnd.flipback.counters+json", b"text/plain"])
def test_a_header_that_says_json_does_not_make_a_snapshot_a_sample(header: bytes) -> None:
    decoder = Decoder({TOPIC: "counters"}, Interner(WATCH))
    values: list[bytes | None] = [snapshot(0, 1), snapshot(1, 8)]
    batch = decoder.decode(Slice(Source(TOPIC, 0), values, [0, 1], [-1, -1], {0: header, 1: header}))
    assert (batch.columns.n.tolist(), batch.rejects) == ([7], [])


def test_a_header_makes_a_record_of_another_topic_a_snapshot() -> None:
    decoder = Decoder({TOPIC: "json"}, Interner(WATCH))
    header = b"application/vnd.flipback.counters+json"
    values: list[bytes | None] = [snapshot(0, 1), as_json(), snapshot(1, 8)]
    batch = decoder.decode(Slice(Source(TOPIC, 0), values, [0, 1, 2], [-1] * 3, {0: header, 2: header}))
    assert batch.columns.n.tolist() == [1, 7]


def test_the_table_of_series_is_bounded_and_keeps_those_it_has() -> None:
    stage = Stage("counters", max_scopes=3)
    stage.take([snapshot(0, 1, instance=f"i-{i}") for i in range(MAX_SERIES + 2)])
    assert stage.rejects == {MAX_SERIES: "overflow", MAX_SERIES + 1: "overflow"}
    stage.take([snapshot(5, 2, instance=f"i-{i}") for i in range(MAX_SERIES)])
    assert len(stage.rejects) == 2
    assert sum(b.counts["requests"] for b in stage.close().values()) == MAX_SERIES


def test_a_series_that_fell_silent_gives_its_place() -> None:
    stage = Stage("counters")
    stage.take([snapshot(0, 1, instance=f"i-{i}") for i in range(MAX_SERIES)])
    stage.take([snapshot(MAX_GAP + 1, total, instance="new") for total in (1,)])
    stage.take([snapshot(MAX_GAP + 6, 4, instance="new")])
    assert stage.rejects == {}
    assert [b.counts["requests"] for b in stage.close(T0 + 400.0).values()] == [3]


def test_a_snapshot_ahead_of_its_record_is_taken_to_the_record_and_bars_no_later_one() -> None:
    stage = Stage("counters")
    stage.take([snapshot(0, 1)], timestamp=T0 * 1000)
    stage.take([snapshot(500, 3)], timestamp=(T0 + 5) * 1000)
    stage.take([snapshot(10, 7)], timestamp=(T0 + 10) * 1000)
    assert stage.rejects == {}
    assert {s - T0: b.counts["requests"] for (_, s), b in stage.close(T0 + 20.0).items()} == {5: 2, 10: 4}
    assert stage.reducer.stats.clamped == 1


def test_a_source_partition_that_is_read_anew_has_no_base() -> None:
    stage = Stage("counters")
    stage.take([snapshot(0, 1)])
    stage.decoder.forget(Source(TOPIC, 0))
    stage.take([snapshot(5, 100), snapshot(6, 101)])
    assert [b.counts["requests"] for b in stage.close().values()] == [1]


def test_partitions_have_bases_of_their_own() -> None:
    decoder = Decoder({TOPIC: "counters"}, Interner(WATCH))

    def rises(partition: int, *values: bytes) -> list[int]:
        offsets = list(range(len(values)))
        slice_ = Slice(Source(TOPIC, partition), list(values), offsets, [-1] * len(values), {})
        return decoder.decode(slice_).columns.n.tolist()  # type: ignore[no-any-return]

    assert rises(0, snapshot(0, 1), snapshot(1, 5)) == [4]
    assert rises(1, snapshot(2, 9)) == []
    assert rises(0, snapshot(2, 7)) == [2]


def held(values: list[bytes], watermark: float, now: float = math.inf) -> int | None:
    """The offset needed after the values, which have the offsets 10, 11, ..."""
    decoder = Decoder({TOPIC: "counters"}, Interner(WATCH))
    offsets = list(range(10, 10 + len(values)))
    decoder.decode(Slice(Source(TOPIC, 0), list(values), offsets, [-1] * len(values), {}))
    return decoder.close(Source(TOPIC, 0), T0 + watermark, now)


def test_the_base_of_a_rise_in_an_open_second_and_the_last_of_each_series_are_needed() -> None:
    values = [snapshot(0, 1), snapshot(5, 2), snapshot(6, 1, service="shop"), snapshot(10, 4)]
    assert held(values, 4.0) == 10
    assert held(values, 6.0) == 11
    assert held(values, 11.0) == 12


def test_a_series_that_ended_or_has_a_wrong_clock_holds_no_offset_back() -> None:
    values = [snapshot(0, 1), snapshot(10, 1, service="shop")]
    assert held(values, MAX_GAP + 1.5) == 11
    assert held(values, MAX_GAP + 20) is None
    assert held([snapshot(1e6, 1), snapshot(10, 1, service="shop")], 9.0, now=T0 + 12.0) == 11


@dataclass
class Model:
    """One series, written down as the rules are told."""

    last: tuple[float, dict[str, int]] | None = None

    def rise(self, ts: float, totals: dict[str, int]) -> tuple[bool, dict[str, int]]:
        """Whether the snapshot is taken, and what it adds."""
        if self.last is None or abs(ts - self.last[0]) > MAX_GAP:
            self.last = ts, totals
            return True, {}
        then, before = self.last
        if ts <= then:
            return ts == then and totals == before, {}
        reset = any(totals[name] < before[name] for name in totals)
        self.last = ts, totals
        rise = dict(totals) if reset else {name: totals[name] - before[name] for name in totals}
        # A process that began anew and has passed its old totals since looks as if it had gone on.
        rise["requests"] = max(rise["requests"], rise["errors"])
        rise["cache_lookups"] = max(rise["cache_lookups"], rise["cache_hits"])
        return True, rise


steps = st.lists(
    st.tuples(
        st.sampled_from(["cart", "shop"]),
        st.sampled_from([-200.0, -3.0, 0.0, 0.4, 5.0, 5.0, 5.1, 60.0, 151.0]),
        st.fixed_dictionaries({name: st.integers(0, 6) for name in ("requests", "errors", "cache_hits", "misses")}),
        st.sampled_from([False, False, False, True]),
    ),
    max_size=25,
)


@settings(deadline=None)
@given(steps=steps, cuts=st.lists(st.integers(1, 7), min_size=25, max_size=25))
def test_any_history_counts_as_the_rules_tell_however_it_is_cut(
    steps: list[tuple[str, float, dict[str, int], bool]], cuts: list[int]
) -> None:
    at = dict.fromkeys(("cart", "shop"), 500.0)
    totals = {service: Counter[str](requests=9) for service in at}
    models = {service: Model() for service in at}
    values, taken, expected = [], [], Counter[tuple[str, str]]()
    for service, gap, add, restart in steps:
        at[service] += gap
        if restart:
            totals[service].clear()
        total = totals[service]
        total["errors"] += add["errors"]
        total["requests"] += add["requests"] + add["errors"]
        total["cache_hits"] += add["cache_hits"]
        total["cache_lookups"] += add["cache_hits"] + add["misses"]
        counters = {name: total[name] for name in ("requests", "errors", "cache_hits", "cache_lookups")}
        values.append(snapshot(at[service], counters.pop("requests"), service=service, **counters))
        good, rise = models[service].rise(at[service], dict(counters, requests=total["requests"]))
        taken.append(good)
        expected.update({(service, name): value for name, value in rise.items()})

    # The decoder alone: what is late or closed is the reducer's to say.
    interner = Interner(WATCH)
    decoder = Decoder({TOPIC: "counters"}, interner)
    found, rejected, first = Counter[tuple[str, str]](), set(), 0
    while first < len(values):
        part: list[bytes | None] = [*values[first : first + cuts[first]]]
        offsets = list(range(first, first + len(part)))
        batch = decoder.decode(Slice(Source(TOPIC, 0), part, offsets, [-1] * len(part), {}))
        rejected |= {reject.offset for reject in batch.rejects}
        found.update(totals_of(batch, interner))
        first += len(part)
    assert rejected == {i for i, good in enumerate(taken) if not good}
    assert +found == +expected


def totals_of(batch: SampleBatch, interner: Interner) -> Counter[tuple[str, str]]:
    """Counts by service and name."""
    starts, scopes, _ = batch.table.expansion()
    found = Counter[tuple[str, str]]()
    for profile, kind, n in zip(batch.columns.profile, batch.columns.kind, batch.columns.n, strict=True):
        service = interner.scopes[scopes[starts[profile]]].service
        found.update({(service, name): int(of * n) for name, of in zip(COUNTS, KIND_COUNTS[kind], strict=True)})
    return found


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_a_damaged_snapshot_costs_at_most_its_own_series(data: st.DataObject) -> None:
    damaged = bytearray(snapshot(4, 9, errors=1, instance="i-1", flags={"new": "on"}))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    stage = Stage("counters")
    stage.take([snapshot(0, 1, service="shop"), bytes(damaged), snapshot(5, 8, service="shop")])
    assert set(stage.rejects) <= {1}
    shop = [cell.counts for (scope, _), cell in stage.close(5e9).items() if scope.service == "shop"]
    # What was damaged may still be a snapshot, of a later time: then the last neighbour comes late.
    assert sum(counts["requests"] + counts["late"] for counts in shop) == 7
