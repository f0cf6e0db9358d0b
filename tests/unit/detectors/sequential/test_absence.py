"""Detection of an absent canary."""

from __future__ import annotations

from math import exp

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from detectors.sequential.absence import Absence, AbsenceConfig

CONFIG = AbsenceConfig()


def array(*values: int) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0, 0.5)), min_size=1, max_size=20))
def test_the_evidence_is_the_chance_that_none_of_the_requests_was_the_canarys(silence: list[tuple[int, float]]) -> None:
    detector = Absence(1, CONFIG)
    chance = 1.0
    for second, (control, share) in enumerate(silence):
        detector.update(second, array(0), array(control), share)
        chance *= (1 - share) ** control
    assert exp(-detector.evidence[0]) == pytest.approx(chance, rel=1e-9, abs=1e-300)


def test_it_fires_at_the_chance_of_one_in_gamma_seconds() -> None:
    # 0.9^140 is 1 / 2.55 million, 30 days have 2.59 million seconds: 141 requests without the canary are needed.
    detector = Absence(1, CONFIG)
    assert [bool(detector.update(s, array(0), array(1), 0.1)[0]) for s in range(142)].index(True) == 140


def test_it_is_absent_until_it_is_seen_again() -> None:
    detector = Absence(1, CONFIG)
    for second in range(5):
        absent = detector.update(second, array(0), array(90), 0.1)
    assert absent[0]
    assert not detector.update(5, array(1), array(90), 0.1)[0]
    assert detector.evidence[0] == 0


def test_silence_of_both_is_no_absence() -> None:
    detector = Absence(1, CONFIG)
    detector.update(0, array(0), array(100), 0.1)
    before = detector.evidence[0]
    for second in range(1, 1000):
        detector.update(second, array(0), array(0), 0.1)
    assert detector.evidence[0] == before


def test_a_canary_of_no_share_is_not_missed() -> None:
    detector = Absence(1, CONFIG)
    for second in range(1000):
        absent = detector.update(second, array(0), array(500), 0.0)
    assert not absent[0]


def test_a_few_stray_requests_of_the_control_at_full_share_are_no_absence() -> None:
    detector = Absence(1, CONFIG)
    assert not detector.update(0, array(0), array(21), 1.0)[0]
    assert detector.update(1, array(0), array(1), 1.0)[0]


def test_false_alarms_are_rarer_than_one_in_gamma_seconds() -> None:
    rng, rows, seconds, gamma = np.random.default_rng(8), 2000, 500, 1000.0
    detector, alarms = Absence(rows, AbsenceConfig(gamma=gamma)), 0
    for second in range(seconds):
        absent = detector.update(second, rng.poisson(1.0, rows), rng.poisson(9.0, rows), 0.1)
        alarms += int(np.count_nonzero(absent))
    assert 0 < alarms <= rows * seconds / gamma


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 second"):
        Absence(1, AbsenceConfig(gamma=0.1))
    with pytest.raises(ValueError, match="not between 0 and 1"):
        Absence(1, CONFIG).update(0, array(0), array(0), 1.5)
