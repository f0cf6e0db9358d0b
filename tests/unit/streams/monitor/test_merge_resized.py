"""A topic created again with fewer partitions: those that are gone hold up nothing, and a record brings them back."""

from __future__ import annotations

from streams.monitor.merge import Merge
from tests.unit.streams.monitor.test_merge import T, record, requests, taken


def whole() -> Merge:
    """Three partitions; the third has a second that is still open."""
    merge = Merge(["requests"])
    for partition in range(3):
        watermark = T + 5.0 if partition < 2 else T + 1.0
        merge.add(record(partition, watermark, partitions=3), requests("a", T + 1, 1 + partition), 0.0)
    assert merge.watermark == T + 1.0
    return merge


def test_a_partition_that_is_gone_holds_up_nothing_and_what_it_sent_counts() -> None:
    merge = whole()
    assert merge.resized("requests", 2) == 3
    assert merge.resized("requests", 2) is None
    assert merge.watermark == T + 5.0
    assert merge.missing() == []
    assert merge.silent(100.0, 10.0) == ["requests/0", "requests/1"]
    assert merge.lagging(T + 4.0) == []
    assert merge.ahead(T - 100.0).keys() == {"requests/0", "requests/1"}
    merge.add(record(0, T + 6.0, partitions=2), requests("a", T + 5, 0), 0.0)
    assert taken(merge, T + 2) == {("a", T + 1): 6}


def test_more_partitions_than_are_known_say_nothing_and_another_topic_is_not_touched() -> None:
    merge = Merge(["requests", "other"])
    merge.add(record(0, T + 5.0), requests("a", T, 3), 0.0)
    assert merge.resized("requests", 8) is None
    assert merge.resized("other", 1) is None
    assert merge.resized("other", 0) is None
    assert merge.missing() == ["other"]


def test_a_record_that_tells_of_more_partitions_makes_them_needed_again() -> None:
    merge = whole()
    merge.resized("requests", 2)
    merge.add(record(1, T + 6.0, partitions=3), requests("a", T + 5, 0), 0.0)
    assert merge.watermark == T + 1.0
    assert merge.silent(100.0, 10.0) == ["requests/0", "requests/1", "requests/2"]
    merge.add(record(2, T + 7.0, partitions=3), requests("a", T + 6, 0), 0.0)
    assert merge.watermark == T + 5.0
    # And a partition that never sent a record is missing.
    assert merge.resized("requests", 1) == 3
    merge.add(record(0, T + 8.0, partitions=4), requests("a", T + 7, 0), 0.0)
    assert merge.missing() == ["requests/3"]


def test_partitions_of_another_topic_stay_though_one_topic_has_fewer() -> None:
    merge = Merge(["requests", "other"])
    for partition in range(2):
        merge.add(record(partition, T + 5.0, partitions=2), requests("a", T, 3), 0.0)
        merge.add(record(partition, T + 1.0, partitions=2, topic="other"), requests("a", T, 3), 0.0)
    assert merge.resized("requests", 1) == 2
    assert merge.watermark == T + 1.0
    assert merge.silent(100.0, 10.0) == ["other/0", "other/1", "requests/0"]
