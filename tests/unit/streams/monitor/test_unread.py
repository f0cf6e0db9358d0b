"""Samples whose service could not be read, as partials report them to a monitor."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.cell_operations import empty
from streams.monitor.merge import Merge
from streams.monitor.unread import KEPT, UnreadLog, UnreadSamples
from streams.partials.record import VERSION, Partial

T = 1_700_000_000


def test_samples_count_in_the_second_to_which_they_moved_the_watermark() -> None:
    log = UnreadLog()
    log.add("requests", 100, 50, 5)
    log.add("requests", 101, 50, 0)
    log.add("requests", 102, 50, 1)
    log.add("requests", 102, 70, 0)
    assert log.over(102, 3) == {"requests": UnreadSamples(220, 6)}
    assert log.over(102, 2) == {"requests": UnreadSamples(170, 1)}
    assert log.over(104, 2) == {}


def test_what_is_heard_of_later_seconds_changes_no_earlier_window() -> None:
    log = UnreadLog()
    log.add("requests", 100, 50, 5)
    log.add("requests", 101, 50, 50)
    assert log.over(100, 60) == {"requests": UnreadSamples(50, 5)}
    assert log.over(99, 60) == {}


def test_what_is_heard_while_the_watermark_stands_counts_in_its_second() -> None:
    log = UnreadLog()
    for _ in range(3):
        log.add("requests", 100, 10, 1)
    assert log.over(100, 1) == {"requests": UnreadSamples(30, 3)}


def test_a_topic_keeps_a_bounded_time() -> None:
    log = UnreadLog()
    log.add("requests", T, 10, 10)
    log.add("requests", T + KEPT, 10, 1)
    log.add("requests", T, 10, 10)
    assert log.over(T + KEPT, KEPT) == {"requests": UnreadSamples(10, 1)}
    assert log.over(T, KEPT) == {}


reports = st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 40), st.integers(0, 9), st.sampled_from([0, 0, 1, 9]))


@settings(deadline=None, max_examples=200)
@given(st.lists(reports, max_size=30), st.integers(1, 45), st.integers(1, 45))
def test_a_window_holds_what_was_told_in_its_seconds(said: list[tuple[str, int, int, int]], end: int, of: int) -> None:
    log = UnreadLog()
    for topic, second, received, rejected in said:
        log.add(topic, T + second, received, rejected)
    expected = {}
    for topic in ("a", "b"):
        inside = [one[2:] for one in said if one[0] == topic and end - of < one[1] <= end]
        received, rejected = sum(one[0] for one in inside), sum(one[1] for one in inside)
        if rejected:
            expected[topic] = UnreadSamples(received, rejected)
    assert log.over(T + end, of) == expected


def test_the_merge_passes_on_what_partials_say() -> None:
    merge = Merge(["requests"])
    for watermark in (100.5, 101.5):
        merge.add(_said(watermark, received=20, rejected=2), empty(), 0.0)
    assert merge.unread.over(101, 1) == {"requests": UnreadSamples(20, 2)}


def _said(watermark: float, *, received: int, rejected: int) -> Partial:
    return Partial(VERSION, "requests", 0, 1, "a", 0.0, watermark, True, 0, [], [], [], [], received, rejected)
