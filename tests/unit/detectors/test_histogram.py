"""The latency histogram."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors import histogram
from detectors.histogram import BINS, BINS_PER_OCTAVE, LOW_EXPONENT, OCTAVES, bins, midpoints_ms, quantile

latencies = st.floats(min_value=0.0, max_value=1e9)


def bin_of(value: float) -> int:
    return int(bins(np.array([value]))[0])


def exact_bin(value: float) -> int:
    """Return the bin by its definition, in exact arithmetic: the smallest i with value <= 2**(-4 + (i + 1) / 32)."""
    power = Fraction(value) ** BINS_PER_OCTAVE
    guess = 0 if value == 0 else math.ceil(math.log2(value) * BINS_PER_OCTAVE) + 2
    guess = min(max(guess - LOW_EXPONENT * BINS_PER_OCTAVE, 0), BINS - 1)
    while guess > 0 and power <= Fraction(2) ** (LOW_EXPONENT * BINS_PER_OCTAVE + guess):
        guess -= 1
    return guess


@given(latencies)
def test_a_value_falls_in_the_bin_of_the_definition(value: float) -> None:
    assert bin_of(value) == exact_bin(value)


def test_upper_bounds_belong_to_their_bin_and_the_next_double_to_the_next() -> None:
    uppers = histogram.upper_bounds_ms()
    assert bins(uppers).tolist() == list(range(BINS))
    assert bins(np.nextafter(uppers, np.inf)).tolist() == [*range(1, BINS), BINS - 1]


@pytest.mark.parametrize("exponent", range(-3, 23))
def test_powers_of_two_are_upper_bounds(exponent: int) -> None:
    assert bin_of(2.0**exponent) == (exponent - LOW_EXPONENT) * BINS_PER_OCTAVE - 1


def test_what_lies_outside_goes_into_the_end_bins() -> None:
    outside = np.array([0.0, 5e-324, 1e-9, 2.0**-4, 2.0**22, 2.0**22 + 1, 1e300, math.inf])
    assert bins(outside).tolist() == [0, 0, 0, 0, *[BINS - 1] * 4]


def test_shape_and_type_are_kept_for_strided_and_empty_input() -> None:
    values = np.arange(24.0).reshape(4, 6)[:, ::2]
    assert bins(values).shape == (4, 3)
    assert bins(values).tolist() == [[bin_of(v) for v in row] for row in values]
    assert bins(np.array([])).dtype == np.int64


def test_a_bin_is_off_by_1_09_percent_at_most() -> None:
    uppers = histogram.upper_bounds_ms()
    lowers = np.concatenate(([2.0**LOW_EXPONENT], uppers[:-1]))
    worst = max((midpoints_ms() / lowers - 1).max(), (1 - midpoints_ms() / uppers).max())
    assert worst == pytest.approx((2 ** (1 / 32) - 1) / (2 ** (1 / 32) + 1), rel=1e-9)
    assert worst < 0.0109


@given(st.lists(st.floats(min_value=0.0625, max_value=4e6), min_size=1), st.integers(0, 1000))
def test_a_quantile_is_the_nearest_rank_within_the_error_of_a_bin(values: list[float], per_mille: int) -> None:
    wanted = sorted(values)[max(-(-len(values) * per_mille // 1000), 1) - 1]
    row = np.bincount(bins(np.array(values)), minlength=BINS)
    assert quantile(row[np.newaxis], per_mille / 1000)[0] == pytest.approx(wanted, rel=0.0109)


@given(
    st.lists(st.dictionaries(st.integers(0, BINS - 1), st.integers(1, 2**32 - 1), max_size=8), max_size=5),
    st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.999, 1.0]),
)
def test_rows_do_not_touch_each_other(rows: list[dict[int, int]], q: float) -> None:
    counts = np.zeros((len(rows), BINS), dtype=np.uint32)
    for row, entries in enumerate(rows):
        counts[row, list(entries)] = list(entries.values())
    got = quantile(counts, q)
    for row, entries in enumerate(rows):
        if not entries:
            assert math.isnan(got[row])
            continue
        wanted = max(math.ceil(Fraction(str(q)) * sum(entries.values())), 1)
        cumulative = np.cumsum(counts[row], dtype=object)
        assert got[row] == midpoints_ms()[next(i for i in range(BINS) if cumulative[i] >= wanted)]


def test_chosen_rows_come_in_the_order_asked_for() -> None:
    counts = np.zeros((3, BINS), dtype=np.uint32)
    counts[[0, 1, 2], [10, 400, 831]] = 7
    octaves = counts.reshape(3, OCTAVES, BINS_PER_OCTAVE).sum(axis=2)
    got = histogram.quantile_by_octave(counts, octaves, np.array([2, 0, 2]), 0.5)
    assert got.tolist() == midpoints_ms()[[831, 10, 831]].tolist()


def test_more_rows_than_are_taken_at_once_are_all_answered() -> None:
    counts = np.zeros((2, BINS), dtype=np.uint32)
    counts[[0, 1], [10, 400]] = 1
    octaves = counts.reshape(2, OCTAVES, BINS_PER_OCTAVE).sum(axis=2)
    rows = np.arange(10_000) % 2
    got = histogram.quantile_by_octave(counts, octaves, rows, 0.5)
    assert got.tolist() == midpoints_ms()[np.where(rows, 400, 10)].tolist()


def test_every_row_may_have_a_quantile_of_its_own() -> None:
    counts = np.zeros((1, BINS), dtype=np.uint32)
    counts[0, [10, 400, 831]] = 7
    octaves = counts.reshape(1, OCTAVES, BINS_PER_OCTAVE).sum(axis=2)
    got = histogram.quantile_by_octave(counts, octaves, np.array([0, 0, 0]), np.array([0.99, 0.1, 0.5]))
    assert got.tolist() == midpoints_ms()[[831, 10, 400]].tolist()


def test_rank_counts_in_millionths_so_that_a_whole_product_is_not_rounded_up() -> None:
    assert histogram.rank(0.07, np.array([100])).tolist() == [7]
    assert histogram.rank(0.999, np.array([0, 1, 1000, 1001])).tolist() == [1, 1, 999, 1000]


@pytest.mark.parametrize("q", [-0.01, 1.01])
def test_a_quantile_outside_0_to_1_is_refused(q: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        quantile(np.zeros((1, BINS), dtype=np.int64), q)
