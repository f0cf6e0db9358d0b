"""The outbox: no writer waits, the order is kept, and if records are dropped, the least important ones, and counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from aiokafka.errors import MessageSizeTooLargeError, TopicAuthorizationFailedError, UnknownTopicOrPartitionError
from faust.exceptions import ProducerSendError
from hypothesis import given
from hypothesis import strategies as st

import streams.kafka.outbox
from streams.kafka.outbox import Outbox, OutboxError, Record


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams.kafka.outbox, "_RETRY_FIRST", 0.0)
    monkeypatch.setattr(streams.kafka.outbox, "_RETRY_MOST", 0.0)


class Broker:
    """Accepts records once it is open; `refuse` returns the error with which it rejects a record, or None."""

    def __init__(self) -> None:
        self.taken: list[Record] = []
        self.asked = 0
        self.now = 0.0
        self.open = asyncio.Event()
        self.open.set()
        self.refuse: Callable[[Record], BaseException | None] = lambda record: None

    async def send(self, record: Record) -> None:
        self.asked += 1
        await self.open.wait()
        error = self.refuse(record)
        if error is not None:
            raise error
        self.taken.append(record)

    def values(self, topic: str = "events") -> list[bytes]:
        return [record.value for record in self.taken if record.topic == topic]


@pytest.fixture
def broker() -> Broker:
    return Broker()


def outbox(broker: Broker, **settings: int) -> Outbox:
    return Outbox(broker.send, {"table"}, monotonic=lambda: broker.now, **settings)


def event(value: bytes, topic: str = "events") -> Record:
    return Record(topic, value)


async def turns(n: int = 20) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


async def test_records_are_written_in_order_and_each_future_is_done_when_its_own_is() -> None:
    broker = Broker()
    box = outbox(broker)
    done = [box.put(event(b"%d" % n)) for n in range(200)]
    await asyncio.gather(*done)
    assert broker.values() == [b"%d" % n for n in range(200)]


async def test_a_topic_that_answers_nothing_holds_up_no_other_and_nobody_who_puts(broker: Broker) -> None:
    broker.open.clear()
    box = Outbox(lambda record: broker.send(record) if record.topic == "events" else asyncio.sleep(0))
    waiting = box.put(event(b"a"))
    await box.put(event(b"frame", "health"))
    assert not waiting.done()


@pytest.mark.parametrize("error", [UnknownTopicOrPartitionError(), TopicAuthorizationFailedError()])
async def test_what_a_topic_does_not_take_is_written_in_order_when_it_does_again(
    broker: Broker, error: Exception
) -> None:
    broker.refuse = lambda record: error
    box = outbox(broker)
    done = [box.put(event(b"%d" % n)) for n in range(5)]
    await turns(200)
    assert not any(future.done() for future in done)
    broker.refuse = lambda record: None
    await asyncio.gather(*done)
    assert sorted(broker.values()) == [b"%d" % n for n in range(5)]
    if error.retriable:  # type: ignore[attr-defined]
        assert broker.values() == [b"%d" % n for n in range(5)]


async def test_what_a_client_cancelled_when_it_ended_is_written_by_the_next(broker: Broker) -> None:
    broker.refuse = lambda record: asyncio.CancelledError()
    box = outbox(broker)
    done = box.put(event(b"a"))
    await turns()
    assert not done.done()
    broker.refuse = lambda record: None
    await done
    assert broker.values() == [b"a"]


async def test_a_topic_that_takes_nothing_is_tried_with_one_record_at_a_time(broker: Broker) -> None:
    broker.refuse = lambda record: UnknownTopicOrPartitionError()
    box = outbox(broker)
    for n in range(5):
        box.put(event(b"%d" % n))
    await turns(4)
    asked = broker.asked
    await turns(30)
    # At first all five records are sent, then one at a time, each of which takes a turn of the loop or two.
    assert asked <= 7
    assert 5 < broker.asked < 40


async def test_one_record_that_is_never_taken_is_dropped_and_holds_up_no_other(broker: Broker) -> None:
    error = ProducerSendError("Error while sending")
    error.__cause__ = MessageSizeTooLargeError()
    broker.refuse = lambda record: error if record.value == b"large" else None
    box = outbox(broker)
    large, *small = (box.put(event(value)) for value in (b"large", b"a", b"b"))
    await asyncio.gather(*small)
    for n in range(5):
        await box.put(event(b"%d" % n))
        await turns()
    with pytest.raises(OutboxError, match="a record of events was dropped: ProducerSendError"):
        await large
    assert box.dropped("events") == 1


async def test_where_there_is_no_room_the_oldest_of_the_least_important_goes_first(broker: Broker) -> None:
    broker.open.clear()
    box = outbox(broker, most_bytes=3 * (streams.kafka.outbox._OVERHEAD + 2))
    under_way = box.put(event(b"00"), 2)
    await turns()
    done = {name: box.put(event(name.encode()), rank) for name, rank in [("i1", 2), ("v1", 0), ("c1", 1), ("v2", 0)]}
    assert done["v1"].done()
    last = box.put(event(b"i2"), 2)
    assert done["v2"].done()
    broker.open.set()
    await asyncio.gather(under_way, last)
    assert broker.values() == [b"00", b"i1", b"c1", b"i2"]
    assert box.dropped("events") == 2
    for name in ("v1", "v2"):
        with pytest.raises(OutboxError, match="too many records wait"):
            await done[name]


async def test_of_a_compacted_topic_only_the_newest_record_of_a_key_waits(broker: Broker) -> None:
    broker.open.clear()
    box = outbox(broker)
    first = box.put(Record("table", b"0", b"k"))
    await turns()
    done = [box.put(Record("table", b"%d" % n, b"k")) for n in range(1, 100)]
    other = box.put(Record("table", b"x", b"other"))
    broker.open.set()
    await asyncio.gather(first, other, *done)
    assert broker.values("table") == [b"0", b"99", b"x"]


async def test_a_record_that_failed_does_not_overwrite_the_newer_one_of_its_key(broker: Broker) -> None:
    broker.open.clear()
    broker.refuse = lambda record: UnknownTopicOrPartitionError() if record.value == b"old" else None
    box = outbox(broker)
    old = box.put(Record("table", b"old", b"k"))
    await turns()
    new = box.put(Record("table", b"new", b"k"))
    broker.open.set()
    await asyncio.gather(old, new)
    assert broker.values("table") == [b"new"]


async def test_a_record_waits_for_what_it_comes_after_but_not_for_ever(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = outbox(broker)
    told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    frame = box.put(event(b"frame", "health"), after=[told])
    await turns()
    assert not frame.done()
    told.set_result(None)
    await frame
    monkeypatch.setattr(streams.kafka.outbox, "_AFTER_WITHIN", 0.0)
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    await box.put(event(b"next", "health"), after=[never])


async def test_a_topic_is_stalled_while_records_wait_and_none_is_acknowledged(broker: Broker) -> None:
    box = outbox(broker)
    await box.put(event(b"a"))
    broker.now += 100
    assert box.stalls(10) == {}
    broker.refuse = lambda record: UnknownTopicOrPartitionError()
    done = box.put(event(b"b"))
    await turns()
    broker.now += 9
    assert box.stalls(10) == {}
    broker.now += 1
    stall = box.stalls(10)["events"]
    assert (stall.seconds, stall.waiting) == (10, 1)
    assert "UnknownTopicOrPartitionError" in stall.error
    broker.refuse = lambda record: None
    await done
    assert box.stalls(10) == {}


async def test_a_backlog_waits_for_room_while_records_are_written_and_not_where_none_is(broker: Broker) -> None:
    box = outbox(broker, most_bytes=4 * (streams.kafka.outbox._OVERHEAD + 1))
    broker.open.clear()
    box.put(event(b"under way"))
    await turns()
    for n in range(4):
        box.put(event(b"%d" % n))
    waiting = asyncio.create_task(box.room("events"))
    await turns()
    assert not waiting.done()
    broker.open.set()
    await waiting
    broker.open.clear()
    box.put(event(b"under way"))
    await turns()
    for n in range(4):
        box.put(event(b"%d" % n))
    broker.now += 10
    await box.room("events")
    assert box.stalls(10)


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=40))
def test_every_record_is_written_once_or_counted_as_dropped(puts: list[tuple[int, bool]]) -> None:
    async def run() -> None:
        broker = Broker()
        box = outbox(broker, most_bytes=5 * (streams.kafka.outbox._OVERHEAD + 2))
        done = []
        for n, (importance, open_) in enumerate(puts):
            broker.refuse = (lambda record: None) if open_ else (lambda record: UnknownTopicOrPartitionError())
            done.append(box.put(event(b"%02d" % n), importance))
            await asyncio.sleep(0)
        broker.refuse = lambda record: None
        results = await asyncio.gather(*done, return_exceptions=True)
        written = [b"%02d" % n for n, result in enumerate(results) if result is None]
        assert sorted(broker.values()) == written
        assert len(written) + box.dropped("events") == len(puts)

    asyncio.run(run())
