"""What source partitions could not read, as the monitor of a partials partition hears it."""

from __future__ import annotations

from streams.merge import Merge
from streams.partials import VERSION, Partial, empty
from streams.slices import Source
from streams.unread import KEPT, Unread, UnreadLog

FIRST, SECOND = Source("requests", 0), Source("requests", 1)


def test_samples_count_in_the_second_to_which_they_moved_the_watermark() -> None:
    log = UnreadLog()
    log.add(FIRST, 100, 50, 5)
    log.add(FIRST, 101, 50, 0)
    log.add(FIRST, 102, 50, 1)
    log.add(SECOND, 102, 70, 0)
    assert log.since(99) == {FIRST: Unread(150, 6), SECOND: Unread(70, 0)}
    assert log.since(100) == {FIRST: Unread(100, 1), SECOND: Unread(70, 0)}
    assert log.since(102) == {}


def test_what_is_heard_while_the_watermark_stands_counts_in_its_second() -> None:
    log = UnreadLog()
    for _ in range(3):
        log.add(FIRST, 100, 10, 1)
    assert log.since(99) == {FIRST: Unread(30, 3)}
    assert log.since(100) == {}


def test_a_source_keeps_a_bounded_time() -> None:
    log = UnreadLog()
    log.add(FIRST, 100, 10, 10)
    log.add(FIRST, 101 + KEPT, 10, 1)
    assert log.since(0) == {FIRST: Unread(10, 1)}


def test_the_merge_passes_on_what_partials_say() -> None:
    merge = Merge(["requests"])
    for watermark in (100.5, 101.5):
        merge.add(_said(watermark, received=20, rejected=2), empty(), 0.0)
    assert merge.unread.since(100) == {FIRST: Unread(20, 2)}


def _said(watermark: float, *, received: int, rejected: int) -> Partial:
    return Partial(VERSION, "requests", 0, 1, "a", 0.0, watermark, True, 0, [], [], [], [], received, rejected)
