"""The vote finds every slot in which one instance sends more than half, and few others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.arrays import Int
from detectors.cells import COUNTS, REQUESTS
from detectors.missing.majority import Majority
from detectors.triggers.dominated import LOOK_EVERY
from detectors.windows.second import Second

Votes = Mapping[tuple[int, int], int]
"""Requests by slot and instance."""


@pytest.fixture(params=[1, LOOK_EVERY], scope="module")
def at_once(request: pytest.FixtureRequest) -> int:
    """How many seconds are counted in one vote."""
    return int(request.param)


def second(number: int, votes: Votes) -> Second:
    entries = sorted(votes)
    nothing = np.zeros(0, dtype=np.int64)
    requests, zeros = (
        np.array([votes[entry] for entry in entries], dtype=np.int64),
        np.zeros(len(entries), dtype=np.int64),
    )
    return Second(
        second=number,
        rows=nothing,
        columns=(nothing,) * len(COUNTS),
        lengths=nothing,
        bins=nothing,
        bin_counts=nothing,
        instance_rows=np.array([slot for slot, _ in entries], dtype=np.uint16),
        instance_ids=np.array([instance for _, instance in entries], dtype=np.uint16),
        instance_columns=tuple(requests if column == REQUESTS else zeros for column in range(len(COUNTS))),
    )


def led(of: Majority, seconds: Sequence[Votes], window: int, slots: int, share: float = 0.5) -> list[bool]:
    requests: Int = np.zeros(slots, dtype=np.int64)
    for votes in seconds[-window:]:
        for (slot, _), count in votes.items():
            requests[slot] += count
    all_of = np.arange(slots)
    since = np.full(slots, len(seconds) - window)
    return [bool(one) for one in of.led(all_of, since, requests, np.full(slots, window), np.full(slots, share))]


def voted(seconds: Sequence[Votes], slots: int, at_once: int) -> Majority:
    majority = Majority(slots)
    counted = [second(number, votes) for number, votes in enumerate(seconds)]
    for end in range(len(counted), 0, -at_once)[::-1]:
        majority.update(counted[max(end - at_once, 0) : end])
    return majority


@given(
    st.lists(st.dictionaries(st.integers(0, 5), st.integers(1, 1000), min_size=1), min_size=20, max_size=80),
    st.floats(0.56, 1),
    st.integers(0, 5),
)
def test_who_sends_more_than_half_in_every_second_leads(
    at_once: int, others: list[dict[int, int]], share: float, leader: int
) -> None:
    seconds = []
    for second_of_others in others:
        rest = {(0, instance): count for instance, count in second_of_others.items() if instance != leader}
        own = max(1, round(sum(rest.values()) * share / (1 - share + 1e-3)))
        seconds.append({**rest, (0, leader): own})
    assert led(voted(seconds, 1, at_once), seconds, len(seconds), 1, share) == [True]


@pytest.mark.parametrize("after", [1, 20, 500])
def test_one_second_that_outweighs_a_whole_window_is_remembered_as_long_as_the_window(at_once: int, after: int) -> None:
    even: Votes = {(0, instance): 10 for instance in range(5)}
    burst: Votes = {**even, (0, 3): 1_000_000}
    seconds = [even] * 100 + [burst] + [even] * after
    assert led(voted(seconds, 1, at_once), seconds, 600, 1) == [True]


def test_a_burst_of_long_ago_is_no_majority(at_once: int) -> None:
    even: Votes = {(0, instance): 10 for instance in range(5)}
    seconds = [even] * 100 + [{**even, (0, 3): 1_000_000}] + [even] * 1_500
    assert led(voted(seconds, 1, at_once), seconds, 600, 1) == [False]


def test_a_leader_is_found_after_another_one_led_for_long(at_once: int) -> None:
    def busiest(leader: int) -> Votes:
        return {(0, instance): 100 if instance == leader else 10 for instance in range(5)}

    seconds = [busiest(1)] * 500 + [busiest(4)] * 20
    assert led(voted(seconds, 1, at_once), seconds, 10, 1) == [True]


def test_chance_alone_gives_few_slots_a_leader(at_once: int) -> None:
    numbers, slots = np.random.default_rng(7), 500
    seconds = []
    for _ in range(200):
        instance = numbers.integers(0, 3, (slots, 10))
        count = (instance[:, :, np.newaxis] == np.arange(3)).sum(axis=1)
        seconds.append(
            {(slot, i): n for slot, of_slot in enumerate(count.tolist()) for i, n in enumerate(of_slot) if n}
        )
    assert sum(led(voted(seconds, slots, at_once), seconds, 60, slots)) <= slots // 100


def test_slots_do_not_touch_each_other_and_seconds_may_be_missing() -> None:
    majority = Majority(3)
    for number in range(0, 100, 7):
        majority.update([second(number, {(0, 1): 50, (0, 2): 1, (2, 1): 10, (2, 2): 10, (2, 3): 10})])
        majority.update([second(number + 1, {})])
    windows = np.full(3, 60)
    found = majority.led(np.arange(3), np.full(3, 40), np.array([500, 0, 300]), windows, np.full(3, 0.5))
    assert found.tolist() == [True, False, False]


def test_bursts_of_another_do_not_hide_who_sends_three_of_five_requests(at_once: int) -> None:
    steady: Votes = {(0, 1): 50}
    seconds = [steady if number % 4 else {(0, 2): 100} for number in range(400)]
    assert led(voted(seconds, 1, at_once), seconds, 60, 1) == [True]


@pytest.mark.parametrize("window", [10, 60])
def test_who_leads_after_a_burst_that_nobody_led_is_found_as_soon_as_that_has_left_the_window(
    at_once: int, window: int
) -> None:
    steady: Votes = {(0, 0): 90, (0, 1): 5, (0, 2): 5}
    burst: Votes = {(0, 1): 1_000_000, (0, 2): 1_000_000}
    seconds = [steady] * 100 + [burst] + [steady] * window
    assert led(voted(seconds, 1, at_once), seconds, window, 1) == [True]
