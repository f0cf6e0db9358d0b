"""A flip is neither effective nor recovered if too many samples after it cannot be read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agent.after_flip.rules import PATIENCE, bake, effect, exposure_after
from detectors.windows.unreadable import unreadable
from streams.monitor.observer import whole
from tests.support.cells import Cell, cells
from tests.unit.agent.after_flip.test_rules import BEFORE, LIMIT, incident, now, since
from tests.unit.streams.monitor.test_observer import SERVICE, made, spec, variant

LATENCY, VARIANT = unreadable("latency"), unreadable("variant", "new")


def test_requests_whose_variant_is_not_known_are_none_of_the_safe_one() -> None:
    seconds = since([0] * 5, [100] * 5)
    assert exposure_after(BEFORE, replace(seconds, lost=5)) is not None
    lost = replace(seconds, lost=6)
    assert exposure_after(BEFORE, lost) is None
    assert effect(BEFORE, lost, elapsed=LIMIT, limit=LIMIT) is None
    said = effect(BEFORE, lost, elapsed=LIMIT + PATIENCE, limit=LIMIT)
    assert said is not None
    assert (said.verdict, said.reason) == (
        "unknown",
        "of 506 samples 6 were rejected, or their variant could not be read",
    )


def test_a_service_of_which_all_is_rejected_is_not_silent() -> None:
    nothing = replace(since([0] * 5, [0] * 5), lost=40)
    said = effect(BEFORE, nothing, elapsed=LIMIT + PATIENCE, limit=LIMIT)
    assert said is not None
    assert said.reason == "of 40 samples 40 were rejected, or their variant could not be read"


def test_a_metric_of_which_too_much_is_missing_has_not_recovered() -> None:
    assert bake(incident(), now(0.0), 30) == "recovered"
    assert bake(incident(), replace(now(0.0), lacking=True), 30) is None


def test_what_was_lost_since_the_flip_is_counted_and_nothing_before() -> None:
    store, observer = made(spec())
    for at in range(20):
        cell = Cell({"requests": 10, "rejected": 2}, measures={VARIANT: (3, 3.0)})
        store.advance(at, cells(at, (SERVICE, cell if at < 15 else Cell({"requests": 10}))))
    assert observer.requests("production", "shop", "new", since=12).lost == 3 * (2 + 3)
    assert observer.requests("production", "shop", "new", since=15).lost == 0


@pytest.mark.parametrize(
    ("when", "counts", "unread", "lacking"),
    [
        ("latency_mean > 1s over 5s", {"latency_count": 99}, {LATENCY: 1}, False),
        ("latency_mean > 1s over 5s", {"latency_count": 98}, {LATENCY: 2}, True),
        ("error_rate > 2% over 5s", {}, {LATENCY: 50}, False),
        ("error_rate > 2% over 5s", {"no_outcome": 2}, {}, True),
        ("error_rate > 2% over 5s", {"rejected": 2}, {}, True),
        ("error_rate@on > 2% over 5s", {}, {VARIANT: 50}, False),
    ],
)
def test_what_lacks_is_what_the_trigger_asks_for(
    when: str, counts: dict[str, int], unread: dict[str, int], lacking: bool
) -> None:
    of = spec(when)
    store, observer = made(of)
    cell = Cell({"requests": 100, **counts}, measures={name: (n, float(n)) for name, n in unread.items()})
    for at in range(5):
        store.advance(at, cells(at, (SERVICE, cell), (variant("on"), Cell({"requests": 40}))))
    assert observer.measure(of, whole(of)).lacking is lacking
    if of.scope != whole(of):
        # An unread variant may have been any variant.
        assert observer.measure(of, of.scope).lacking is (VARIANT in unread)


def test_seconds_are_summed_where_they_lie() -> None:
    store, _ = made(spec("latency_mean > 1s over 5s"))
    for at in range(200):
        cell = Cell({"requests": 100, "latency_count": 90}, measures={LATENCY: (10, 10.0)} if at == 100 else {})
        store.advance(at, cells(at, (SERVICE, cell)))
        (count,) = store.unread.window(5).read(np.array([store.unread.place(SERVICE, LATENCY)])).tolist()
        assert count == (10 if 100 <= at < 105 else 0)
    assert not store.unread.window(60).any()
