"""The monitor role as an app: what fails in it ends the process, so that the log rebuilds what was lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import UnknownTopicOrPartitionError

import streams.monitor.role
from streams.clock import Clock, Now
from streams.kafka.connection import Connection
from streams.kafka.outbox import Outbox, OutboxError, Record
from streams.kafka.reading import Delivery, Position
from streams.kafka.topics import Topics
from streams.monitor import checkpoint
from streams.monitor.checkpoint import Checkpoint
from streams.monitor.health import health
from streams.monitor.role import Handlers, MonitorRole
from streams.monitor.settings import MonitorSettings, ShardSettings
from streams.slices import Slice, Source

SOURCE = Source("flipback.partials", 0)


async def nothing(*_: Any) -> None:
    return None


def published(*_: Any) -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


class Shard:
    """A shard that gives seconds, or fails."""

    partition = 0

    def __init__(self, fails: bool) -> None:
        self.fails = fails
        self.taken = 0

    def take_all(self, batch: object, clock: object) -> Iterator[object]:
        self.taken += 1
        if self.fails:
            raise RuntimeError("no second can be made of it")
        return iter(())


def role(*shards: Shard) -> MonitorRole:
    made = MonitorRole(
        Connection(("127.0.0.1:1",), session_timeout=6.0),
        Topics(),
        MonitorSettings(
            specs=[],
            drift_targets=[],
            telemetry=["requests"],
            partials_partitions=len(shards),
            lookback=60,
            window_lookback=60,
            shard=ShardSettings(max_scopes=10, evaluate_every=1, catching_up_after=15.0),
        ),
        handlers=Handlers(
            firing=nothing,
            transition=published,
            inability=published,
            drift=published,
            judged=nothing,
            standing=published,
        ),
        outbox=Outbox(nothing),
        clock=Clock(),
        ready=asyncio.Event(),
    )
    made.shards = dict(enumerate(shards))  # type: ignore[arg-type]
    for partition in range(len(shards)):
        made._reading.positions[SOURCE._replace(partition=partition)] = Position(epoch=1)
    return made


def delivery(partition: int) -> SimpleNamespace:
    source = SOURCE._replace(partition=partition)
    return SimpleNamespace(value=Delivery(Slice(source, [], [], [], {}), 0, 1, 1))


class Stream:
    """What Faust gives an agent."""

    def __init__(self, *partitions: int) -> None:
        self._partitions = partitions

    async def events(self) -> Any:
        for partition in self._partitions:
            yield delivery(partition)
            await asyncio.sleep(0)


async def test_what_fails_in_a_shard_ends_the_app_and_not_only_its_agent() -> None:
    sound, failing = Shard(False), Shard(True)
    made = role(sound, failing)
    with pytest.raises(ExceptionGroup, match="unhandled errors"):
        await made._take(Stream(0, 1))
    assert made.app.crashed
    assert isinstance(made.app.crash_reason, RuntimeError)


async def test_slices_of_every_shard_are_judged() -> None:
    shards = [Shard(False), Shard(False)]
    made = role(*shards)
    await made._take(Stream(0, 1, 0, 0, 1))
    assert [shard.taken for shard in shards] == [3, 2]
    assert not made.app.crashed


def since(
    made: MonitorRole, monkeypatch: pytest.MonkeyPatch, health: bytes | None, checkpoint: bytes | None = None
) -> Any:
    async def last(sources: list[Source], client: object) -> dict[Source, bytes | None]:
        return {source: health if source.topic.endswith("health") else None for source in sources}

    monkeypatch.setattr(streams.monitor.role, "last_records", last)
    monkeypatch.setattr(time, "time", lambda: NOW)
    return asyncio.run(made._since([SOURCE]))[SOURCE]


NOW = 1_700_000_000.0


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
    made = role(Shard(False))
    assert since(made, monkeypatch, record) == NOW - 70
    assert made._published == {0: None}
    (logged,) = caplog.records
    assert logged.getMessage() == "health.unreadable"
    assert words in logged.__dict__["fields"]["error"]


def test_of_a_health_record_of_another_version_its_time_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    made = role(Shard(False))
    assert since(made, monkeypatch, b'{"version":2,"time":1699999990,"shapes":{}}') == 1_699_999_990 - 70
    assert made._published == {0: 1_699_999_990}


def test_where_nothing_was_ever_published_the_whole_log_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert since(role(Shard(False)), monkeypatch, None) is None


def test_topics_that_cannot_be_read_keep_no_monitor_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(sources: list[Source], client: object) -> dict[Source, bytes | None]:
        raise UnknownTopicOrPartitionError

    made = role(Shard(False))
    monkeypatch.setattr(streams.monitor.role, "last_records", gone)
    monkeypatch.setattr(time, "time", lambda: NOW)
    assert asyncio.run(made._since([SOURCE])) == {SOURCE: NOW - 70}


async def test_seconds_that_were_judged_by_a_clock_ahead_end_the_process_when_it_stays_so() -> None:
    made = role(Shard(False))
    made.shards[0] = SimpleNamespace(time=NOW + 600)  # type: ignore[assignment]
    now = Now(NOW, NOW, 100.0)
    await made._end_if_ahead(now)
    await made._end_if_ahead(now._replace(monotonic=114.0))
    # For a moment the clock is right again.
    await made._end_if_ahead(Now(NOW + 600, NOW + 600, 114.5))
    await made._end_if_ahead(now._replace(monotonic=116.0))
    await made._end_if_ahead(now._replace(monotonic=130.0))
    before = made.app.crashed
    await made._end_if_ahead(now._replace(monotonic=131.0))
    assert (before, made.app.crashed) == (False, True)
    assert "600 s ahead of this machine's clock" in str(made.app.crash_reason)


async def test_events_are_written_before_the_health_of_their_second_and_that_before_its_checkpoint() -> None:
    written: list[str] = []

    async def write(record: Record) -> None:
        # The sooner a topic is in line here, the longer its broker takes.
        for _ in range({"events": 30, "flipback.health": 20}.get(record.topic, 0)):
            await asyncio.sleep(0)
        written.append(record.topic)

    made = role(Shard(False))
    made._outbox = Outbox(write)
    made._handlers = replace(made._handlers, transition=lambda *_: made._outbox.put(Record("events", b"")))
    second = SimpleNamespace(
        ill=frozenset(),
        transitions=[(None, None)],
        judged_at=None,
        drifts=[],
        standing=[],
        firing=[],
        health=FRAME,
        muted=False,
        time=checkpoint.EVERY,
    )
    shard = SimpleNamespace(partition=0, checkpoint=lambda of: CHECKPOINT, learnt=list)
    await made._publish(shard, second)  # type: ignore[arg-type]
    await made._outbox.flush(10)
    assert written == ["events", "flipback.health", "flipback.checkpoints"]


FRAME = health(10, 0, None, [], at=12.0, status="live")
CHECKPOINT = Checkpoint(of="these", time=10, stale=(), memory={})


async def test_a_shard_hears_that_an_unknown_was_announced_when_that_is_written() -> None:
    events: list[asyncio.Future[None]] = []
    heard: list[object] = []
    made = role()

    def standing(_: object) -> asyncio.Future[None]:
        events.append(published())
        return events[-1]

    made._handlers = replace(made._handlers, standing=standing)
    shard = SimpleNamespace(partition=0, announced=heard.append, learnt=list)
    changes = ["first", "second"]
    second = SimpleNamespace(
        time=1, muted=True, ill=(), firing=(), transitions=(), drifts=(), health=None, standing=changes
    )
    await made._publish(shard, second)  # type: ignore[arg-type]
    assert heard == []
    events[0].set_exception(OutboxError("dropped"))
    events[1].set_result(None)
    await asyncio.sleep(0)
    assert heard == ["second"]
