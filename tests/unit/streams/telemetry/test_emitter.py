"""The emitter drops samples rather than delay a request, and counts those that it dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self

import msgspec
import pytest
from aiokafka.errors import KafkaConnectionError, KafkaTimeoutError

import streams.telemetry.emitter
from streams.telemetry.emitter import Emitter
from streams.telemetry.sample import Sample


class Broker:
    """A fake producer: `up` lets it start, `room` lets it send, `acknowledge` settles the future of a sent record."""

    def __init__(self) -> None:
        self.up = asyncio.Event()
        self.up.set()
        self.room = asyncio.Event()
        self.room.set()
        self.acknowledge: Callable[[asyncio.Future[None]], None] = lambda future: future.set_result(None)
        self.records: list[tuple[str, bytes, Any]] = []
        self.connects = 0
        self.open = 0

    def __call__(self, **settings: Any) -> Self:
        assert settings["bootstrap_servers"] == ["broker:9092"]
        return self

    async def start(self) -> None:
        self.connects += 1
        self.open += 1
        if not self.up.is_set():
            raise KafkaConnectionError("no broker")

    async def send(self, topic: str, value: bytes, key: bytes | None = None) -> asyncio.Future[None]:
        await self.room.wait()
        self.records.append((topic, value, key))
        future = asyncio.get_running_loop().create_future()
        self.acknowledge(future)
        return future

    async def stop(self) -> None:
        self.open -= 1


@pytest.fixture
async def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    broker = Broker()
    monkeypatch.setattr(streams.telemetry.emitter, "AIOKafkaProducer", broker)
    monkeypatch.setattr(streams.telemetry.emitter, "_RETRY_AFTER", 0.001)
    monkeypatch.setattr(streams.telemetry.emitter, "_FLUSH", 0.05)
    return broker


def emitter(capacity: int = 100) -> Emitter:
    return Emitter("requests", {"bootstrap_servers": ["broker:9092"]}, capacity=capacity)


def sample(number: int) -> Sample:
    return Sample(ts=1_700_000_000.0 + number, service="shop", status=200, flags={"new": "on"})


def numbers(broker: Broker) -> list[int]:
    return [int(msgspec.json.decode(value, type=Sample).ts) - 1_700_000_000 for _, value, _ in broker.records]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


async def test_every_sample_is_a_json_record_of_its_own_without_a_key(broker: Broker) -> None:
    async with emitter() as emitting:
        for number in range(5):
            emitting.emit(sample(number))
    assert numbers(broker) == [0, 1, 2, 3, 4]
    assert {(topic, key) for topic, _, key in broker.records} == {("requests", None)}
    assert msgspec.json.decode(broker.records[3][1]) == {
        "ts": 1_700_000_003.0, "service": "shop", "status": 200, "flags": {"new": "on"},
    }  # fmt: skip
    assert (emitting.sent, emitting.dropped) == (5, 0)


async def test_start_and_end_of_a_request_are_keyed_by_its_id(broker: Broker) -> None:
    async with emitter() as emitting:
        emitting.started(Sample(ts=1_700_000_000.0, service="shop", id="r-1", flags={"new": "on"}))
        emitting.emit(Sample(ts=1_700_000_001.0, service="shop", id="r-1", latency_ms=1000.0))
    assert {key for _, _, key in broker.records} == {b"r-1"}
    start, end = (msgspec.json.decode(value, type=Sample) for _, value, _ in broker.records)
    assert (start.kind, start.id, start.flags) == ("started", "r-1", {"new": "on"})
    assert (end.kind, end.id) == ("completed", "r-1")


async def test_a_start_without_an_id_is_refused(broker: Broker) -> None:
    async with emitter() as emitting:
        with pytest.raises(ValueError, match="needs an id"):
            emitting.started(sample(0))
    assert broker.records == []


async def test_a_full_queue_drops_its_oldest_and_counts_them(broker: Broker) -> None:
    broker.room.clear()
    async with emitter(capacity=3) as emitting:
        emitting.emit(sample(0))
        await until(lambda: not emitting._queue)  # the first one waits in the producer's `send`
        for number in range(1, 8):
            emitting.emit(sample(number))
        assert emitting.dropped == 4
        broker.room.set()
    assert numbers(broker) == [0, 5, 6, 7]
    assert (emitting.sent, emitting.dropped) == (4, 4)


async def test_what_no_broker_acknowledges_counts_as_dropped(broker: Broker) -> None:
    broker.acknowledge = lambda future: future.set_exception(KafkaTimeoutError())
    async with emitter() as emitting:
        emitting.emit(sample(0))
        await until(lambda: emitting.dropped == 1)
        broker.acknowledge = lambda future: future.set_result(None)
        emitting.emit(sample(1))
    assert (emitting.sent, emitting.dropped) == (1, 1)


async def test_brokers_may_come_later_than_the_service(broker: Broker) -> None:
    broker.up.clear()
    async with emitter() as emitting:
        emitting.emit(sample(0))
        await until(lambda: broker.connects > 1)
        broker.up.set()
        await until(lambda: emitting.sent == 1)
    assert broker.open == 0


@pytest.mark.parametrize("where", ["start", "send"])
async def test_an_error_that_no_client_should_raise_is_logged_and_what_follows_is_sent(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    async def fails(*_: object) -> None:
        raise AssertionError("of a client")

    with monkeypatch.context() as patch:
        patch.setattr(broker, where, fails)
        async with emitter() as emitting:
            emitting.emit(sample(0))
            await until(lambda: bool(caplog.messages))
            patch.undo()
            emitting.emit(sample(1))
            await until(lambda: emitting.sent + emitting.dropped == 2)
    assert emitting.sent == (2 if where == "start" else 1)
    assert set(caplog.messages) == {"emitter.unconnected" if where == "start" else "emitter.lost"}


async def test_leaving_does_not_wait_for_a_broker_that_is_gone(broker: Broker) -> None:
    broker.up.clear()
    async with emitter() as emitting:
        for number in range(3):
            emitting.emit(sample(number))
    assert (emitting.sent, emitting.dropped) == (0, 3)
    assert broker.open == 0
