"""The reducer compared with a model that takes samples one by one, for any times, clocks and moments of closing."""

from __future__ import annotations

import gc
import math
import random
import weakref
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.cells import LATE, REJECTED, REQUESTS, Scope
from streams.decoders import profiles
from streams.decoders.columns import RejectKind
from streams.ingest import open_sums
from streams.ingest import reducer as reduce
from streams.telemetry.sample import Sample
from tests.support.samples import T0, CellsByScope, Stage, cells_by_scope, count, records_of, samples

MAX_LATENESS = 2.0


@dataclass
class Model:
    """The rules of docs/state-and-delivery.md, applied sample by sample.

    Cells are (requests, late, last offset, rejected) by service and second.
    """

    newest: float = -math.inf
    closed: float = -math.inf
    offset: int = 0
    open: dict[tuple[str, int], list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0, 0, 0]))
    first: dict[int, int] = field(default_factory=dict)
    rejected: Counter[RejectKind] = field(default_factory=Counter)

    def take(self, sample: Sample, now: float) -> None:
        offset, self.offset = self.offset, self.offset + 1
        bound = max(self.newest - MAX_LATENESS, self.closed)
        rejected, ts = sample.ts > now + 60, sample.ts
        if rejected:
            self.rejected["future"] += 1
            ts = now if self.newest == -math.inf else self.newest
        else:
            self.newest = max(self.newest, min(ts, now))
        second = math.floor(ts)
        late = second + 1 <= bound
        if late:
            second = math.floor(bound)
        else:
            self.first.setdefault(second, offset)
        cell = self.open[sample.service, second]
        cell[3 if rejected else 1 if late else 0] += sample.n or 1
        cell[2] = offset

    def close(self, watermark: float) -> dict[tuple[str, int], list[int]]:
        self.closed = max(self.closed, math.floor(watermark))
        done = {key: cell for key, cell in self.open.items() if key[1] < self.closed}
        for key in done:
            del self.open[key]
        self.first = {second: offset for second, offset in self.first.items() if second >= self.closed}
        return done

    @property
    def committable(self) -> int:
        return min(self.first.values(), default=self.offset)


times = st.floats(0, 12) | st.floats(-40, 90) | st.sampled_from([0.0, 1.0, 2.0, 3.0, 4.0])
anything = st.builds(
    lambda ts, service, n: Sample(ts=T0 + ts, service=service, n=n),
    times,
    st.sampled_from(["cart", "shop"]),
    st.sampled_from([1, 1, 5]),
)
steps = st.lists(
    st.tuples(st.lists(anything, max_size=12), st.none() | times, st.none() | st.integers(-10, 20)), max_size=8
)


@settings(max_examples=300)
@given(steps, st.randoms())
def test_any_order_of_samples_clocks_and_closings_is_as_the_rules_say(
    given_steps: list[tuple[list[Sample], float | None, int | None]], rng: random.Random
) -> None:
    model, stage = Model(), Stage("json")
    for given_samples, clock, boundary in given_steps:
        now = math.inf if clock is None else T0 + clock
        for sample in given_samples:
            model.take(sample, now)
        records = records_of(given_samples, "json")
        while records:
            size = rng.randint(1, len(records))
            stage.take(records[:size], now=now)
            records = records[size:]
        assert stage.reducer.reached == (None if model.newest == -math.inf else model.newest)
        if boundary is not None:
            cells = stage.reducer.close(T0 + boundary + 0.5)
            got = {
                (cells.scopes[cells.scope[i]].service, int(cells.second[i])): [
                    int(cells.counts[i, REQUESTS]),
                    int(cells.counts[i, LATE]),
                    int(cells.offset[i]),
                    int(cells.counts[i, REJECTED]),
                ]
                for i in range(len(cells))
            }
            assert got == model.close(T0 + boundary + 0.5)
        if model.offset:
            assert stage.reducer.committable == model.committable
    assert stage.reducer.stats.rejected == model.rejected


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower the sizes at which the reducer folds and cleans up, so that a few samples reach them."""
    monkeypatch.setattr(profiles, "TABLE_ENTRIES", 3)
    monkeypatch.setattr(reduce, "_FOLD_AT", 4)
    monkeypatch.setattr(open_sums, "_MOST_BLOCKS", 1)
    monkeypatch.setattr(open_sums, "_FEW_NAMES", 0)


@pytest.mark.usefixtures("_small")
@given(st.lists(samples, max_size=40), st.lists(st.integers(1, 6), min_size=1))
def test_full_tables_and_early_sums_change_no_count(given_samples: list[Sample], sizes: list[int]) -> None:
    given_samples.sort(key=lambda sample: sample.ts)
    records = records_of(given_samples, "json")
    stage = Stage("json")
    blocks = []
    while records:
        for size in sizes:
            stage.take(records[:size])
            records = records[size:]
        if stage.reducer.reached is not None:
            blocks.append(stage.reducer.close(stage.reducer.reached - MAX_LATENESS))
    blocks.append(stage.reducer.close(T0 + 10.0))
    assert cells_by_scope(blocks) == count(given_samples)


def by_instance(names: list[str], a_batch: int) -> CellsByScope:
    stage = Stage("json")
    records = [msgspec.json.encode(Sample(ts=T0 + 0.5, service="shop", instance=name)) for name in names]
    for start in range(0, len(records), a_batch):
        stage.take(records[start : start + a_batch])
    return stage.close()


def test_which_instances_are_kept_apart_does_not_depend_on_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reduce, "_FOLD_AT", 100)
    names = [f"i-{i:04}" for i in range(600)] * 2
    ordered = by_instance(names, 1000)
    shuffled = random.Random(7).sample(names, len(names))
    assert by_instance(shuffled, 37) == ordered
    (cell,) = ordered.values()
    assert sorted(cell.instances) == ["", *sorted(set(names))[: open_sums.MAX_INSTANCES]]
    assert cell.instances[""]["requests"] == 2 * (600 - open_sums.MAX_INSTANCES)
    assert {counts["requests"] for name, counts in cell.instances.items() if name} == {2}


def test_what_one_slice_adds_past_all_bounds_is_counted_without_being_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(profiles, "TABLE_ENTRIES", 10)
    stage = Stage("json")
    given_samples = [Sample(ts=T0 + 0.5, service="cart", flags={"f": f"v{i}"}, instance=f"i{i}") for i in range(500)]
    stage.take(records_of(given_samples, "json"))
    (cell,) = stage.close().values()
    assert cell.counts["requests"] == 500
    assert sum(counts["requests"] for counts in cell.instances.values()) == 500
    assert len(cell.instances) <= 41
    assert len(stage.interner.table().json) == 0


def test_a_full_table_is_freed_when_the_next_one_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "TABLE_ENTRIES", 10)
    stage = Stage("json")
    gc.disable()
    try:
        first = weakref.ref(stage.interner.table())
        for second in range(2):
            given_samples = [Sample(ts=T0 + second, service=f"s{second}-{i}", instance=f"i{i}") for i in range(20)]
            stage.take(records_of(given_samples, "json"))
        stage.close()
        assert first() is None
    finally:
        gc.enable()


def test_seconds_years_apart_are_kept_apart() -> None:
    given_samples = [Sample(ts=T0 + i * 3e6 + 0.5, service="shop", latency_ms=5.0) for i in range(100)]
    stage = Stage("json")
    stage.take(records_of(given_samples, "json"))
    assert stage.close(4e9) == count(given_samples)


def test_latencies_are_summed_exactly_up_to_the_limit_and_stop_there() -> None:
    hour = 3_600_000.0
    stage = Stage("json")
    rows = [Sample(ts=T0 + 0.5, service="shop", latency_ms=hour, n=1_000_000)] * 5
    stage.take(
        records_of([*rows[:2], *(Sample(ts=T0 + 1.5, service="shop", latency_ms=hour, n=1_000_000),) * 5], "json")
    )
    sums = {second - T0: cell.counts["latency_us"] for (_, second), cell in stage.close().items()}
    assert sums == {0: 2 * 3_600_000_000 * 1_000_000, 1: 1 << 53}


def test_scopes_beyond_the_limit_hide_no_scope_that_has_a_place() -> None:
    stage = Stage("json", max_scopes=5)
    given_samples = [Sample(ts=T0 + 0.5, service="cart", flags={"new": f"v{i}", "dark": "on"}) for i in range(50)]
    stage.take(records_of(given_samples, "json"))
    all_cells = stage.close()
    assert all_cells[Scope("production", "cart"), T0].counts["requests"] == 50
    assert len(all_cells) == 4
    assert stage.reducer.take_unreported().overflow == 48
    assert stage.reducer.take_unreported().overflow == 0
