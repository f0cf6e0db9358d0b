"""The contract of every detector. Detectors are discovered by their class, so that one without a case here fails."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import detectors
from detectors.errors import StateError
from detectors.sequential.absence import Absence, AbsenceConfig
from detectors.sequential.canary_proof import CanaryProof, CanaryProofConfig
from detectors.sequential.fast_tier import FastTier, FastTierConfig
from detectors.sequential.healthy_rate import HealthyRate, HealthyRateConfig
from detectors.sequential.sample_ratio import SampleRatio, SampleRatioConfig
from detectors.state import Arrays, Detector

Counts = NDArray[np.int64]
"""(4, n): requests and bad requests of the canary, requests and bad requests of the control, in one second."""
Said = list[NDArray[Any]]


@dataclass(frozen=True)
class Case:
    """How to make a detector, update it with a second and get its results, as arrays (n,).

    `alarm` returns whether any row reports a problem; `scale` multiplies time, for a detector that works by the minute.
    """

    make: Callable[[int], Detector]
    tell: Callable[[Any, int, Counts], Said]
    alarm: Callable[[Any, Said], bool]
    scale: int = 1


def _fast(detector: FastTier, second: int, counts: Counts) -> Said:
    r0 = 0.01 + 0.01 * np.minimum(counts.shape[1], 1)
    return [detector.update(second, counts[1] + counts[3], counts[0] + counts[2], r0), detector.evidence]


def _healthy(detector: HealthyRate, second: int, counts: Counts) -> Said:
    every = np.ones(counts.shape[1], dtype=np.bool_)
    bad, requests = counts[1] + counts[3], counts[0] + counts[2]
    detector.update(second, bad, requests, every & (second % 250 < 7), every & (second % 900 < 7))
    return [detector.rate(0.02), detector.mean, detector.deviation]


def _proof(detector: CanaryProof, second: int, counts: Counts) -> Said:
    return [detector.update(second, counts[1], counts[3], 0.25), detector.evidence]


def _ratio(detector: SampleRatio, second: int, counts: Counts) -> Said:
    share = np.repeat(np.array([[0.3], [0.7]]), counts.shape[1], axis=1)
    return [detector.update(second, counts[[0, 2]], share), detector.evidence]


def _absence(detector: Absence, second: int, counts: Counts) -> Said:
    return [detector.update(second, counts[0], counts[2], 0.25), detector.evidence]


CASES = {
    FastTier: Case(lambda n: FastTier(n, FastTierConfig(gamma=1e4)), _fast, lambda _, said: bool(said[0].any())),
    # It has no alarm: what it reports is a rate below the cap, and it must not do so before it has learnt anything.
    HealthyRate: Case(
        lambda n: HealthyRate(n, HealthyRateConfig(least=5)),
        _healthy,
        lambda detector, said: bool((said[0] < detector.config.cap).any()),
        scale=7,
    ),
    CanaryProof: Case(lambda n: CanaryProof(n, CanaryProofConfig()), _proof, lambda _, said: bool(said[0].any())),
    SampleRatio: Case(lambda n: SampleRatio(n, 2, SampleRatioConfig()), _ratio, lambda _, said: bool(said[0].any())),
    Absence: Case(lambda n: Absence(n, AbsenceConfig(gamma=1e4)), _absence, lambda _, said: bool(said[0].any())),
}
each = pytest.mark.parametrize("case", CASES.values(), ids=[kind.__name__ for kind in CASES])

ROWS, SECONDS = 6, 240


def traffic(seconds: int, rows: int = ROWS) -> NDArray[np.int64]:
    """(seconds, 4, rows): healthy and sick rows, with silences of one arm and of both."""
    rng = np.random.default_rng(7)
    rate = np.array([8.0, 25.0])[:, np.newaxis] * np.linspace(0.3, 2, rows)
    requests = rng.poisson(rate, (seconds, 2, rows))
    requests[rng.random((seconds, 2, rows)) < 0.1] = 0
    requests[seconds // 2 : seconds // 2 + 9, 0, rows // 2] = 0
    sick = np.linspace(0.002, 0.3, rows) * np.array([[1.0], [0.1]])
    bad = rng.binomial(requests, sick)
    return np.stack([requests[:, 0], bad[:, 0], requests[:, 1], bad[:, 1]], axis=1)


def run(case: Case, seconds: NDArray[np.int64], detector: Any = None, start: int = 0) -> tuple[Detector, list[Said]]:
    detector = case.make(seconds.shape[2]) if detector is None else detector
    return detector, [case.tell(detector, case.scale * (start + i), counts) for i, counts in enumerate(seconds)]


def assert_same(some: list[Said], others: list[Said]) -> None:
    assert len(some) == len(others)
    for said, other in zip(some, others, strict=True):
        for array, expected in zip(said, other, strict=True):
            np.testing.assert_array_equal(array, expected)


def assert_close(state: Arrays, other: Arrays) -> None:
    assert state.keys() == other.keys()
    for name in state:
        np.testing.assert_allclose(state[name], other[name], rtol=1e-9, atol=1e-9, err_msg=name)


def test_every_detector_of_the_package_has_a_case() -> None:
    found = {
        value
        for module in pkgutil.walk_packages(detectors.__path__, "detectors.")
        if not module.name.startswith("detectors.triggers.")  # these feed detectors from windows
        for value in vars(importlib.import_module(module.name)).values()
        if inspect.isclass(value)
        and value is not Detector
        and all(hasattr(value, method) for method in ("update", "state", "restore"))
    }
    assert found == CASES.keys()


@each
def test_the_cases_make_it_speak(case: Case) -> None:
    said = run(case, traffic(SECONDS))[1]
    first = np.array([second[0] for second in said])
    assert (first[0] != first).any(), "what is said never changes: the other rules would hold of nothing"


@each
def test_the_same_seconds_give_the_same_verdicts(case: Case) -> None:
    assert_same(run(case, traffic(SECONDS))[1], run(case, traffic(SECONDS))[1])


@each
def test_what_was_said_is_not_changed_afterwards(case: Case) -> None:
    detector = case.make(ROWS)
    seconds = traffic(SECONDS)
    kept, copies = [], []
    for i, counts in enumerate(seconds):
        said = case.tell(detector, case.scale * i, counts)
        kept.append(said)
        copies.append([array.copy() for array in said])
    assert_same(kept, copies)


@each
def test_state_does_not_grow_in_10_000_updates(case: Case) -> None:
    detector = case.make(2)
    before = {name: array.nbytes for name, array in detector.state().items()}
    seconds = traffic(100, rows=2)
    for i in range(10_000):
        case.tell(detector, case.scale * i, seconds[i % 100])
    assert {name: array.nbytes for name, array in detector.state().items()} == before
    assert vars(detector).keys() == vars(case.make(2)).keys()


@each
def test_no_data_is_no_verdict(case: Case) -> None:
    detector = case.make(ROWS)
    nothing = np.zeros((4, ROWS), dtype=np.int64)
    # More seconds than gamma: a statistic that counted empty seconds would alarm.
    assert not any(case.alarm(detector, case.tell(detector, case.scale * i, nothing)) for i in range(12_000))


@each
def test_silence_does_not_change_a_verdict_that_was_given(case: Case) -> None:
    detector, said = run(case, traffic(30)[:20])
    nothing = np.zeros((4, ROWS), dtype=np.int64)
    for i in range(20, 24):
        later = case.tell(detector, case.scale * i, nothing)
        np.testing.assert_array_equal(later[0], said[-1][0])


@each
def test_a_state_goes_on_in_another_detector_as_if_nothing_had_been(case: Case) -> None:
    seconds = traffic(SECONDS)
    whole = run(case, seconds)[1]
    for cut in (0, 1, 97, SECONDS - 1):
        detector, _ = run(case, seconds[:cut])
        other = case.make(ROWS)
        other.restore({name: np.array(array.tolist(), dtype=array.dtype) for name, array in detector.state().items()})
        assert_same(run(case, seconds[cut:], other, start=cut)[1], whole[cut:])


@each
def test_a_state_is_a_copy(case: Case) -> None:
    seconds = traffic(SECONDS)
    detector, _ = run(case, seconds[:50])
    state = detector.state()
    before = {name: array.copy() for name, array in state.items()}
    run(case, seconds[50:], detector, start=50)
    assert_close(state, before)
    other = case.make(ROWS)
    other.restore(state)
    run(case, seconds[50:], other, start=50)
    assert_close(state, before)


@each
def test_a_state_of_other_rows_or_names_is_refused_and_changes_nothing(case: Case) -> None:
    detector, _ = run(case, traffic(SECONDS)[:50])
    before = detector.state()
    with pytest.raises(StateError, match="is wanted"):
        detector.restore(case.make(ROWS + 1).state())
    for name in before:
        with pytest.raises(StateError):
            detector.restore({key: value for key, value in before.items() if key != name})
        with pytest.raises(StateError):
            detector.restore({**before, name: before[name].astype(np.complex128)})
    with pytest.raises(StateError):
        detector.restore({**before, "other": np.zeros(ROWS)})
    assert_close(detector.state(), before)


@each
def test_a_second_told_in_two_parts_is_the_second_told_at_once(case: Case) -> None:
    rng = np.random.default_rng(8)
    once, parts = case.make(ROWS), case.make(ROWS)
    for i, counts in enumerate(traffic(SECONDS)):
        said = case.tell(once, case.scale * i, counts)
        first = rng.binomial(counts, 0.5)
        # In both halves, the bad requests are at most the requests.
        first[[1, 3]] = np.maximum(np.minimum(first[[1, 3]], first[[0, 2]]), counts[[1, 3]] - (counts - first)[[0, 2]])
        case.tell(parts, case.scale * i, first)
        after = case.tell(parts, case.scale * i, counts - first)
        for array, expected in zip(after, said, strict=True):
            np.testing.assert_allclose(array, expected, rtol=1e-9, atol=1e-9)
    assert_close(parts.state(), once.state())


@each
def test_rows_do_not_touch_each_other(case: Case) -> None:
    seconds = traffic(SECONDS)
    whole = run(case, seconds)[1]
    order = np.random.default_rng(9).permutation(ROWS)
    moved = run(case, seconds[:, :, order])[1]
    assert_same(moved, [[array[order] for array in said] for said in whole])
    alone = run(case, seconds[:, :, 2:3])[1]
    assert_same(alone, [[array[2:3] for array in said] for said in whole])


@each
def test_time_does_not_go_back(case: Case) -> None:
    detector = case.make(ROWS)
    counts = traffic(1)[0]
    case.tell(detector, 1000, counts)
    with pytest.raises(ValueError, match="earlier than the last"):
        case.tell(detector, 999, counts)


@each
def test_a_reset_row_is_a_new_one_and_the_others_go_on(case: Case) -> None:
    seconds = traffic(SECONDS)
    whole = run(case, seconds)[1]
    detector: Any
    detector, _ = run(case, seconds[:120])
    detector.reset(np.array([1, 4]))
    after = run(case, seconds[120:], detector, start=120)[1]
    fresh = run(case, seconds[120:], start=120)[1]
    kept = np.array([0, 2, 3, 5])
    assert_same([[a[kept] for a in said] for said in after], [[a[kept] for a in said] for said in whole[120:]])
    assert_same([[a[[1, 4]] for a in said] for said in after], [[a[[1, 4]] for a in said] for said in fresh])


@each
def test_counts_that_are_none_are_refused(case: Case) -> None:
    detector = case.make(ROWS)
    wrong = traffic(1)[0]
    wrong[:, 3] = -1
    with pytest.raises(ValueError, match=r"not a part|negative"):
        case.tell(detector, 1, wrong)
    with pytest.raises(ValueError, match=r"wanted"):
        case.tell(detector, 1, traffic(1, rows=ROWS + 1)[0])
