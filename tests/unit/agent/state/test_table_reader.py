"""Tables of compacted topics: complete once all topics were read to their ends, and no record ends the reader."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from agent.state import table_reader
from agent.state.table_reader import TableReader
from streams.kafka.reader import Read


@pytest.fixture
def topics(monkeypatch: pytest.MonkeyPatch) -> dict[str, asyncio.Queue[Read]]:
    """The reads that each topic will return."""
    coming: dict[str, asyncio.Queue[Read]] = {"incidents": asyncio.Queue(), "flags": asyncio.Queue()}

    async def read_topic(topic: str, connection: dict[str, Any]) -> AsyncIterator[Read]:
        while True:
            yield await coming[topic].get()

    monkeypatch.setattr(table_reader, "read_topic", read_topic)
    return coming


def read(*values: bytes, at_end: bool) -> Read:
    return Read([SimpleNamespace(value=value, offset=n) for n, value in enumerate(values)], at_end)


async def test_they_are_read_when_each_is_and_a_record_that_fails_is_left_out(
    topics: dict[str, asyncio.Queue[Read]], caplog: pytest.LogCaptureFixture
) -> None:
    taken: list[bytes | None] = []

    def take(value: bytes | None) -> None:
        if value == b"poison":
            raise ZeroDivisionError
        taken.append(value)

    made = TableReader({"incidents": take, "flags": take}, {})
    following = [asyncio.create_task(made.follow(topic)) for topic in made]
    try:
        topics["incidents"].put_nowait(read(b"a", b"poison", b"b", at_end=True))
        async with asyncio.timeout(60):
            while len(taken) < 2:
                await asyncio.sleep(0)
            assert not made.read.is_set()
            topics["flags"].put_nowait(read(b"c", at_end=False))
            topics["flags"].put_nowait(read(at_end=True))
            await made.read.wait()
        assert taken == [b"a", b"b", b"c"]
        (failed,) = [record for record in caplog.records if record.message == "record.failed"]
        assert failed.levelname == "ERROR"
        assert not any(task.done() for task in following)
    finally:
        for task in following:
            task.cancel()
        await asyncio.wait(following)
