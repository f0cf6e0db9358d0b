"""Publishing: no topic that takes no records delays anything, and a person hears of it (docs/promises.md, P3 and
P6)."""

from __future__ import annotations

import asyncio
import logging
import time

import msgspec
import pytest
from aiokafka.errors import UnknownTopicOrPartitionError

import streams.kafka.outbox
from agent.events.cloudevents import FLAG_EFFECTIVE, FLAG_VERIFIED, INABILITY, Event, from_kafka, trigger_type
from agent.events.severity import importance
from agent.runtime.publisher import STALLED_AFTER, Publisher
from agent.state.incidents import AfterFlip
from streams.kafka.outbox import Record
from streams.kafka.topics import Topics

EVENT = Event(type=FLAG_EFFECTIVE, subject="production/new", data={"reason": "gone"}, id="e", time=1_700_000_000.0)
SAID = AfterFlip(incident="i", service="shop", effect="effective")


class Broker:
    def __init__(self) -> None:
        self.away = False
        self.taken: list[Record] = []

    async def send(self, record: Record) -> None:
        if self.away:
            raise UnknownTopicOrPartitionError
        self.taken.append(record)

    def events(self) -> list[Event]:
        return [from_kafka(r.value, r.headers) for r in self.taken if r.topic == "flipback.events"]


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    monkeypatch.setattr(streams.kafka.outbox, "_RETRY_FIRST", 0.0)
    monkeypatch.setattr(streams.kafka.outbox, "_RETRY_MOST", 0.0)
    return Broker()


def publisher(broker: Broker) -> tuple[Publisher, list[float]]:
    made, now = Publisher(Topics("flipback"), broker.send), [0.0]
    made.outbox._monotonic = lambda: now[0]
    return made, now


async def turns() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def test_an_event_says_when_it_was_made_however_long_it_waits_for_the_topic(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = publisher(broker)
    broker.away = True
    monkeypatch.setattr(time, "time", lambda: 1_700_000_102.5)
    made.event(EVENT)
    await turns()
    monkeypatch.setattr(time, "time", lambda: 1_700_000_200.0)
    broker.away = False
    await turns()
    (event,) = broker.events()
    assert (event.time, event.recorded) == (EVENT.time, 1_700_000_102.5)
    made.event(msgspec.structs.replace(EVENT, id="judged", recorded=1_700_000_101.0))
    await turns()
    assert broker.events()[-1].recorded == 1_700_000_101.0


async def test_an_audit_topic_that_takes_nothing_is_an_inability_in_the_log_and_in_readyz_and_told_once(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    made, now = publisher(broker)
    broker.away = True
    made.event(EVENT)
    await turns()
    made.check()
    assert made.problems() == []
    now[0] += STALLED_AFTER
    made.check()
    made.check()
    (problem,) = made.problems()
    assert problem.startswith("flipback.events takes no records: none was acknowledged for 10 s (Unknown")
    assert "max.message.bytes" in problem
    logged = [r for r in caplog.records if r.getMessage() == INABILITY]
    assert [(r.levelname, r.__dict__["fields"]["state"]) for r in logged] == [("ERROR", "begun")]
    broker.away = False
    await turns()
    made.check()
    await turns()
    assert made.problems() == []
    said = [event for event in broker.events() if event.type == INABILITY]
    assert [(event.subject, event.data["state"]) for event in said] == [
        ("flipback.events", "begun"),
        ("flipback.events", "ended"),
    ]
    assert said[1].data["reason"] == "flipback.events takes records again"


async def test_what_was_dropped_meanwhile_is_counted_when_the_topic_takes_records_again(broker: Broker) -> None:
    made, now = publisher(broker)
    made.outbox._most_bytes = 2000
    broker.away = True
    made.event(EVENT)
    await turns()
    now[0] += STALLED_AFTER
    made.check()
    for number in range(20):
        made.event(Event(type=trigger_type("ok"), subject="production/new", data={}, id=f"{number}", time=EVENT.time))
    broker.away = False
    await turns()
    made.check()
    await turns()
    dropped = made.outbox.dropped("flipback.events")
    assert dropped > 10
    assert f"{dropped} records were dropped meanwhile" in broker.events()[-1].data["reason"]


async def test_that_a_flip_was_told_of_is_noted_only_when_the_event_is_written(broker: Broker) -> None:
    made, _ = publisher(broker)
    broker.away = True
    made.after_flip(EVENT, SAID)
    await turns()
    broker.away = False
    await turns()
    assert [record.topic for record in broker.taken] == ["flipback.events", "flipback.incidents"]
    assert broker.taken[1].key == b"i/shop"


async def test_an_event_that_was_dropped_is_not_noted_as_told(broker: Broker) -> None:
    made, _ = publisher(broker)
    made.outbox._most_bytes = 10
    made.after_flip(EVENT, SAID)
    await turns()
    assert broker.taken == []


def test_verdicts_are_given_up_before_flips_and_those_before_inabilities() -> None:
    def rank(kind: str, **data: str) -> int:
        return importance(Event(type=kind, subject="s", data=data, id="i", time=0.0))

    assert [rank(trigger_type(state)) for state in ("ok", "pending", "unknown")] == [0, 0, 0]
    assert rank(trigger_type("firing")) == rank(FLAG_VERIFIED) == 1
    assert rank(INABILITY, state="begun") == 2
    assert rank("flipback.drift.worse") == 0


async def test_a_command_that_no_broker_takes_is_an_inability_of_its_own_and_its_end_too(broker: Broker) -> None:
    made, _ = publisher(broker)
    now = [0.0]
    made.commands._monotonic = lambda: now[0]
    with made.commands.command():
        now[0] += 1
        with made.commands.command():
            made.commands.failed(UnknownTopicOrPartitionError())
        now[0] += STALLED_AFTER - 1.1
        assert made.problems() == []
        now[0] += 0.1
        made.check()
        (problem,) = made.problems()
        assert problem.startswith("flipback.commands takes no records: none was acknowledged for 10 s (Unknown")
        assert "no flip can be ordered until it does, turn flags off by hand" in problem
    assert made.problems() == []
    made.check()
    await turns()
    assert [(event.subject, event.data["state"]) for event in broker.events()] == [
        ("flipback.commands", "begun"),
        ("flipback.commands", "ended"),
    ]
