"""From where a monitor reads partials: by the newest health record, and also if that record is of no use."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from aiokafka.errors import UnknownTopicOrPartitionError

import streams.monitor.recall
from streams.kafka.connection import Connection
from streams.kafka.topics import Topics
from streams.monitor.checkpoint_records import CheckpointRecords
from streams.monitor.recall import Recall
from streams.monitor.resume_point import ResumePoint
from streams.slices import Source
from tests.unit.streams.monitor.test_role import NOW, SOURCE, monitor_settings


def recall() -> Recall:
    settings = monitor_settings(partitions=1)
    connection = Connection(("127.0.0.1:1",), session_timeout=6.0)
    return Recall(connection, Topics(), settings, CheckpointRecords(settings))


def since(made: Recall, monkeypatch: pytest.MonkeyPatch, health: bytes | None) -> Any:
    async def last(sources: list[Source], client: object) -> dict[Source, bytes | None]:
        return {source: health if source.topic.endswith("health") else None for source in sources}

    monkeypatch.setattr(streams.monitor.recall, "last_records", last)
    monkeypatch.setattr(time, "time", lambda: NOW)
    return asyncio.run(made.since([SOURCE]))[SOURCE]


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (b'{"version":9,"moment":1}', "it cannot be read: "),
        (b"\xff", "it cannot be read: "),
        (b'{"time":1700000600}', "its time is 595 s ahead of this machine's clock"),
    ],
)
def test_a_health_record_that_is_of_no_use_keeps_no_monitor_from_starting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, record: bytes, words: str
) -> None:
    made = recall()
    assert since(made, monkeypatch, record) == NOW - 70
    assert made.points == {0: ResumePoint(published=None)}
    (logged,) = caplog.records
    assert logged.getMessage() == "health.unreadable"
    assert words in logged.__dict__["fields"]["error"]


def test_of_a_health_record_of_another_version_its_time_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    made = recall()
    assert since(made, monkeypatch, b'{"version":2,"time":1699999990,"shapes":{}}') == 1_699_999_990 - 70
    assert made.points == {0: ResumePoint(published=1_699_999_990)}


def test_where_nothing_was_ever_published_the_whole_log_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert since(recall(), monkeypatch, None) is None


def test_topics_that_cannot_be_read_keep_no_monitor_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(sources: list[Source], client: object) -> dict[Source, bytes | None]:
        raise UnknownTopicOrPartitionError

    made = recall()
    monkeypatch.setattr(streams.monitor.recall, "last_records", gone)
    monkeypatch.setattr(time, "time", lambda: NOW)
    assert asyncio.run(made.since([SOURCE])) == {SOURCE: NOW - 70}
