"""The task that publishes heartbeats: news at once, the rest in its time, and a failure is no end."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from agent.heartbeats import sender as heart
from agent.heartbeats.heartbeat import Heartbeat, decode
from agent.heartbeats.sender import Heart
from streams.errors import TopicError
from tests.unit.agent.heartbeats.test_heartbeat import beat


class Topic:
    """Takes records, or refuses them while `away`."""

    def __init__(self) -> None:
        self.records: list[tuple[bytes, bytes | None]] = []
        self.away = False
        self.tried = 0

    async def send(self, key: bytes, value: bytes | None, within: float) -> None:
        self.tried += 1
        if self.away:
            raise TopicError("no broker")
        self.records.append((key, value))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heart, "LOOK_EVERY", 0.0)


async def until(found: Any) -> None:
    async with asyncio.timeout(60):
        while not found():
            await asyncio.sleep(0)


async def test_news_are_published_at_once_and_nothing_else_before_its_time() -> None:
    topic, said = Topic(), [beat()]
    asked = 0

    def about() -> Heartbeat:
        nonlocal asked
        asked += 1
        return said[-1]

    task = asyncio.create_task(Heart(about, topic.send).run())
    await until(lambda: asked > 5)
    assert len(topic.records) == 1
    said.append(msgspec.structs.replace(beat(), halted="by root"))
    await until(lambda: len(topic.records) == 2)
    value = topic.records[1][1]
    assert value is not None
    assert decode(value) == said[-1]
    task.cancel()


async def test_what_was_not_written_is_tried_again_and_the_task_goes_on() -> None:
    topic = Topic()
    topic.away = True
    task = asyncio.create_task(Heart(beat, topic.send).run())
    await until(lambda: topic.tried > 3)
    topic.away = False
    await until(lambda: topic.records)
    assert not task.done()
    task.cancel()


async def test_what_cannot_say_how_it_is_goes_on_all_the_same() -> None:
    topic, asked = Topic(), 0

    def about() -> Heartbeat:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise RuntimeError("no monitor")
        return beat()

    task = asyncio.create_task(Heart(about, topic.send).run())
    await until(lambda: topic.records)
    assert not task.done()
    task.cancel()


async def test_the_leave_is_a_record_without_a_value_and_only_of_who_was_there() -> None:
    topic = Topic()
    heart = Heart(beat, topic.send)
    await heart.leave()
    assert topic.records == []
    task = asyncio.create_task(heart.run())
    await until(lambda: topic.records)
    task.cancel()
    await heart.leave()
    assert topic.records[-1] == (b"a", None)
    topic.away = True
    await heart.leave()
