"""The monitor role as an app: an error in it ends the process, so that the next one rebuilds its state from the log."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from streams.clock import Clock, Now
from streams.kafka.connection import Connection
from streams.kafka.outbox import Outbox
from streams.kafka.reading import Delivery, Position
from streams.kafka.topics import Topics
from streams.monitor.handlers import Handlers
from streams.monitor.role import MonitorRole
from streams.monitor.settings import MonitorSettings, ShardSettings
from streams.slices import Slice, Source

NOW = 1_700_000_000.0
SOURCE = Source("flipback.partials", 0)


async def nothing(*_: Any) -> None:
    return None


def published(*_: Any) -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


HANDLERS = Handlers(
    firing=nothing,
    transition=published,
    inability=published,
    drift=published,
    judged=nothing,
    standing=published,
)


def monitor_settings(*, partitions: int) -> MonitorSettings:
    return MonitorSettings(
        specs=[],
        drift_targets=[],
        telemetry=["requests"],
        partials_partitions=partitions,
        lookback=60,
        window_lookback=60,
        shard=ShardSettings(max_scopes=10, evaluate_every=1, catching_up_after=15.0),
    )


class Shard:
    """A shard that completes no second, or fails."""

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
        monitor_settings(partitions=len(shards)),
        handlers=HANDLERS,
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
    """The stream that Faust passes to an agent."""

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


async def test_seconds_that_were_judged_by_a_clock_ahead_end_the_process_when_it_stays_so() -> None:
    made = role(Shard(False))
    made.shards[0] = SimpleNamespace(time=NOW + 600)  # type: ignore[assignment]
    now = Now(NOW, NOW, 100.0)
    await made._end_if_ahead(now)
    await made._end_if_ahead(now._replace(monotonic=114.0))
    # For a moment the clock agrees with the judged time.
    await made._end_if_ahead(Now(NOW + 600, NOW + 600, 114.5))
    await made._end_if_ahead(now._replace(monotonic=116.0))
    await made._end_if_ahead(now._replace(monotonic=130.0))
    before = made.app.crashed
    await made._end_if_ahead(now._replace(monotonic=131.0))
    assert (before, made.app.crashed) == (False, True)
    assert "600 s ahead of this machine's clock" in str(made.app.crash_reason)
