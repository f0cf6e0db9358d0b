"""Health records: the sums of all sources, and quantiles within the error of the histogram."""

from __future__ import annotations

import json
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.cell_operations import join
from detectors.cells import COUNTS, LATENCY_COUNT, REQUESTS, Cells, Scope
from detectors.histogram import bins
from streams.monitor.health import QUANTILES, TriggerHealth, decoder, encoder, health
from tests.support.cells import Cell, cells

T = 1_700_000_000
SHOP, CART = Scope("production", "shop"), Scope("production", "cart", "new", "on")
WORST = 0.011
"""Relative error of a bin's midpoint at scale 5."""


def timed(latencies_ms: list[float], **counts: int) -> Cell:
    found, numbers = np.unique(bins(np.array(latencies_ms, dtype=np.float64)), return_counts=True)
    n = len(latencies_ms)
    return Cell({"requests": n, "latency_count": n, **counts}, dict(zip(found.tolist(), numbers.tolist(), strict=True)))


def of(*blocks: Cells) -> Cells:
    return join(list(blocks))


def test_a_scope_that_several_sources_have_stands_once_with_their_sum() -> None:
    frame = health(
        T + 1,
        3,
        of(
            cells(T, (SHOP, Cell({"requests": 3, "errors": 1})), (CART, Cell({"requests": 1}))),
            cells(T, (SHOP, Cell({"requests": 4, "late": 2}))),
        ),
        [],
        at=T + 3.0,
        status="live",
    )
    assert frame.scopes == [(*SHOP,), (*CART,)]
    assert (frame.counts["requests"], frame.counts["errors"], frame.counts["late"]) == ([7, 1], [1, 0], [2, 0])
    assert set(frame.counts) == set(COUNTS)
    assert (frame.time, frame.partition, frame.at, frame.status) == (T + 1, 3, T + 3.0, "live")


def test_an_instance_that_two_sources_have_seen_is_one() -> None:
    one = {"requests": 1}
    frame = health(
        T + 1,
        0,
        of(
            cells(T, (SHOP, Cell(one, instances={"a": one, "b": one})), (CART, Cell(one, instances={"a": one}))),
            cells(T, (SHOP, Cell(one, instances={"b": one, "c": one}))),
        ),
        [],
        at=T + 3.0,
        status="live",
    )
    assert dict(zip(frame.scopes, frame.sources, strict=True)) == {(*SHOP,): 3, (*CART,): 1}


@settings(deadline=None)
@given(
    st.lists(st.lists(st.floats(0.1, 100_000), min_size=1, max_size=30), min_size=1, max_size=4),
    st.lists(st.floats(0.1, 100_000), max_size=20),
)
def test_quantiles_of_all_sources_are_within_the_error_of_a_bin(shop: list[list[float]], cart: list[float]) -> None:
    blocks = [cells(T, (SHOP, timed(part))) for part in shop]
    frame = health(T + 1, 0, of(*blocks, cells(T, (CART, timed(cart)))), [], at=T + 3.0, status="live")
    row = frame.scopes.index((*SHOP,))
    values = sorted(value for part in shop for value in part)
    for name, q in QUANTILES.items():
        exact = values[max(0, math.ceil(q * len(values)) - 1)]
        found = frame.latency[name][row]
        assert found is not None
        # Values are rounded to a microsecond, which is more than the bin's error below a tenth of a millisecond.
        assert abs(found - exact) <= WORST * exact + 0.0005
    other = frame.scopes.index((*CART,))
    assert (frame.latency["latency_p50"][other] is None) == (not cart)


def test_a_second_without_traffic_has_no_scopes_and_still_its_verdicts() -> None:
    verdict = TriggerHealth("new", "errors", str(SHOP), "unknown", None, 0.02, 0, "samples 0 < min_samples 30")
    for none in (None, cells(T)):
        frame = health(T + 1, 0, none, [verdict], at=T + 3.0, status="live")
        assert (frame.scopes, frame.sources, frame.triggers) == ([], [], [verdict])
        assert all(column == [] for column in (*frame.counts.values(), *frame.latency.values()))


def test_a_record_is_plain_json_and_reads_back_as_it_was() -> None:
    block = cells(T, (SHOP, timed([5.0, 7.0], errors=1)), (CART, Cell({"requests": 2})))
    verdict = TriggerHealth("new", "errors", str(SHOP), "firing", 0.5, 0.02, 2, "0.5 > 0.02")
    frame = health(T + 1, 2, block, [verdict], at=T + 3.0, status="catching_up", detail="the evidence is 20 s old")
    raw = encoder.encode(frame)
    assert decoder.decode(raw) == frame
    plain = json.loads(raw)
    assert plain["latency"]["latency_p95"][1] is None
    assert plain["counts"]["requests"] == [2, 2]
    assert block.counts[0][REQUESTS] == block.counts[0][LATENCY_COUNT] == 2
