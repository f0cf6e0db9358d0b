"""Verdicts on a flip from numbers alone: at the boundaries, and never well if nothing is known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.after_flip.rules import ENOUGH, LAST_SECONDS, PATIENCE, After, bake, effect, exposure_after
from agent.state.incidents import Incident
from streams.monitor.observer import Exposure, Measurement, Requests

LIMIT = 60.0
BEFORE = Exposure(others=50.0, variants=100.0, requests=100.0)


def since(others: list[int], requests: list[int], late: list[int] | None = None) -> Requests:
    """Make the requests of the seconds after a flip; those not in `others` have the safe variant."""
    column = [np.array(values, dtype=np.int64) for values in (others, requests, late or [0] * len(others))]
    return Requests(column[0], column[1] - column[0], column[1], column[2])


def incident(was: float = 0.5, threshold: float = 0.02, op: str = ">") -> Incident:
    return Incident(
        id="i",
        environment="production",
        flag="new",
        service="shop",
        trigger="errors",
        flag_version="g1-a",
        outcome="commanded",
        command="c",
        fired_at=0.0,
        commanded_at=1.0,
        expires_at=61.0,
        metric="error_rate",
        scope="production/shop",
        op=">" if op == ">" else "<",
        value=was,
        threshold=threshold,
        before=BEFORE,
    )


@pytest.mark.parametrize(("others", "fallen"), [(0, True), (12, True), (13, False), (250, False)])
def test_a_twentieth_of_what_was_before_is_the_most_that_counts_as_fallen(others: int, fallen: bool) -> None:
    # Expected are 250 requests in 5 s (50 requests/s of other variants); 12.5 may be left.
    after = exposure_after(BEFORE, since([others, 0, 0, 0, 0], [100] * 5))
    assert after == After(fallen, others / 5, 50.0, 5)


def test_exactly_a_twentieth_counts_as_fallen() -> None:
    assert exposure_after(Exposure(20.0, 20.0, 40.0), since([5, 0, 0, 0, 0], [40] * 5)) == After(True, 1.0, 20.0, 5)


def test_fewer_than_the_last_seconds_say_nothing() -> None:
    assert exposure_after(BEFORE, since([0] * (LAST_SECONDS - 1), [100] * (LAST_SECONDS - 1))) is None
    assert exposure_after(BEFORE, since([], [])) is None


def test_only_the_newest_seconds_count_where_they_tell_enough() -> None:
    after = exposure_after(BEFORE, since([50] * 30 + [0] * 5, [100] * 35))
    assert after == After(True, 0.0, 50.0, 5)
    after = exposure_after(BEFORE, since([0] * 30 + [50] * 5, [100] * 35))
    assert after == After(False, 50.0, 50.0, 5)


def test_little_traffic_is_looked_at_for_longer_until_enough_of_it_would_have_come() -> None:
    one = Exposure(1.0, 1.0, 2.0)
    assert exposure_after(one, since([0] * (ENOUGH - 1), [2] * (ENOUGH - 1))) is None
    assert exposure_after(one, since([0] * ENOUGH, [2] * ENOUGH)) == After(True, 0.0, 1.0, ENOUGH)


def test_a_service_that_went_quiet_is_measured_by_the_share_that_the_variant_had() -> None:
    # 4 of 50 requests/s are left, but half of the remaining traffic has another variant, as before.
    assert exposure_after(BEFORE, since([4] * 10, [8] * 10)) == After(False, 4.0, 4.0, 5)
    assert exposure_after(BEFORE, since([0] * 10, [8] * 10)) == After(True, 0.0, 4.0, 5)


def test_late_samples_may_be_what_is_missed_so_nothing_is_said() -> None:
    assert exposure_after(BEFORE, since([0] * 5, [99] * 5, [1] * 5)) is not None
    assert exposure_after(BEFORE, since([0] * 5, [98] * 5, [1] * 5)) is None


def test_effective_is_said_as_soon_as_it_is_seen_and_ineffective_at_the_limit() -> None:
    obeyed, ignored = since([0] * 5, [100] * 5), since([50] * 5, [100] * 5)
    found = effect(BEFORE, obeyed, elapsed=5.0, limit=LIMIT)
    assert found is not None
    assert found.verdict == "effective"
    assert effect(BEFORE, ignored, elapsed=LIMIT - 0.001, limit=LIMIT) is None
    found = effect(BEFORE, ignored, elapsed=LIMIT, limit=LIMIT)
    assert found is not None
    assert (found.verdict, found.after) == ("ineffective", After(False, 50.0, 50.0, 5))
    for number in ("50 requests/s", "2.5 at most", "50 before"):
        assert number in found.reason


def test_a_variant_that_nobody_had_before_and_many_have_after_is_ineffective() -> None:
    found = effect(Exposure(0.0, 10.0, 10.0), since([10] * 60, [10] * 60), elapsed=LIMIT, limit=LIMIT)
    assert found is not None
    assert found.verdict == "ineffective"


@pytest.mark.parametrize(
    ("before", "now", "reason"),
    [
        (None, since([0] * 60, [100] * 60), "not known"),
        (
            Exposure(0.0, 0.0, 100.0),
            replace(since([0] * 60, [100] * 60), variants=np.zeros(60, np.int64)),
            "no variant",
        ),
        (Exposure(0.0, 50.0, 100.0), since([0] * 60, [100] * 60), "either"),
    ],
)
def test_what_no_sample_can_ever_tell_is_unknown_at_the_limit(
    before: Exposure | None, now: Requests, reason: str
) -> None:
    assert effect(before, now, elapsed=LIMIT - 1, limit=LIMIT) is None
    found = effect(before, now, elapsed=LIMIT, limit=LIMIT)
    assert found is not None
    assert (found.verdict, found.after) == ("unknown", None)
    assert reason in found.reason


@pytest.mark.parametrize(
    ("before", "now", "reason"),
    [
        (BEFORE, since([0] * 60, [0] * 60), "silent"),
        (BEFORE, since([], []), "silent"),
        (BEFORE, since([0] * 60, [10] * 60, [10] * 60), "late"),
        (Exposure(0.1, 0.1, 0.2), since([0] * 60, [1] * 60), "too little traffic"),
    ],
)
def test_what_later_samples_may_tell_is_waited_for_and_then_unknown(
    before: Exposure, now: Requests, reason: str
) -> None:
    assert effect(before, now, elapsed=LIMIT + PATIENCE - 1, limit=LIMIT) is None
    found = effect(before, now, elapsed=LIMIT + PATIENCE, limit=LIMIT)
    assert found is not None
    assert found.verdict == "unknown"
    assert reason in found.reason


counts = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200), st.integers(0, 3)), max_size=60)


@given(
    counts,
    st.tuples(st.integers(0, 300), st.integers(0, 300), st.integers(0, 300)),
    st.integers(0, 300),
)
def test_effective_always_rests_on_requests_that_were_missed(
    seconds: list[tuple[int, int, int]], rates: tuple[int, int, int], elapsed: int
) -> None:
    others, safe, none = rates
    before = Exposure(float(others), float(others + safe), float(others + safe + none))
    now = since([o for o, _, _ in seconds], [o + r for o, r, _ in seconds], [late for _, _, late in seconds])
    found = effect(before, now, elapsed=float(elapsed), limit=LIMIT)
    if found is None:
        assert elapsed < LIMIT + PATIENCE
        return
    if found.verdict == "unknown":
        assert elapsed >= LIMIT
        return
    assert found.after is not None
    newest = seconds[len(seconds) - found.after.seconds :]
    seen, total = sum(o for o, _, _ in newest), sum(o + r for o, r, _ in newest)
    assert found.after.rps * found.after.seconds == pytest.approx(seen)
    if found.verdict == "effective":
        assert seen <= 0.05 * others * len(newest)
        assert seen / total <= 0.0501 * others / (others + safe + none)
        assert min(others * len(newest), total * others / (others + safe + none)) >= ENOUGH - 1e-6
    else:
        assert elapsed >= LIMIT
        assert seen > 0


def now(value: float, samples: int = 100, late: int = 0, requests: int = 100) -> Measurement:
    return Measurement(value, samples, requests, late)


@pytest.mark.parametrize(
    ("op", "was", "threshold", "value", "verdict"),
    [
        (">", 0.5, 0.02, 0.02, "recovered"),
        (">", 0.5, 0.02, 0.020001, "no-better"),
        (">", 0.5, 0.02, 0.5, "no-better"),
        (">", 0.5, 0.02, 0.500001, "worse"),
        ("<", 0.1, 0.4, 0.4, "recovered"),
        ("<", 0.1, 0.4, 0.399999, "no-better"),
        ("<", 0.1, 0.4, 0.1, "no-better"),
        ("<", 0.1, 0.4, 0.099999, "worse"),
    ],
)
def test_what_no_longer_breaches_has_recovered_and_what_does_is_no_better_or_worse(
    op: str, was: float, threshold: float, value: float, verdict: str
) -> None:
    assert bake(incident(was, threshold, op), now(value), 30) == verdict


@pytest.mark.parametrize(
    "measured",
    [
        now(0.0, samples=29),
        now(math.nan),
        now(0.0, late=2, requests=100),
    ],
    ids=["few", "no value", "late"],
)
def test_a_window_that_says_nothing_is_no_recovery(measured: Measurement) -> None:
    assert bake(incident(), measured, 30) is None


def test_silence_is_no_recovery_and_still_a_breach_where_too_little_fired() -> None:
    silent = now(0.0, samples=0, requests=0)
    assert bake(incident(was=900.0, threshold=500.0, op=">"), silent, 0) is None
    assert bake(incident(was=2.0, threshold=5.0, op="<"), silent, 0) == "worse"
    assert bake(incident(was=0.0, threshold=5.0, op="<"), silent, 0) == "no-better"


def test_an_incident_that_does_not_say_what_fired_is_not_compared_with() -> None:
    old = Incident(
        **{name: getattr(incident(), name) for name in Incident.__struct_fields__[:11]}  # as written before
    )
    assert old.value is None
    assert bake(old, now(0.0), 30) is None
