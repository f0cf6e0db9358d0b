"""The monitor role as an app: what fails in it ends the process, so that the log rebuilds what was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from streams.connection import Connection
from streams.monitor_app import Handlers, MonitorRole
from streams.outbox import Outbox
from streams.reading import Delivery, Position
from streams.slices import Slice, Source
from streams.topics import Topics

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

    def take_all(self, batch: object, now: float) -> Iterator[object]:
        self.taken += 1
        if self.fails:
            raise RuntimeError("no second can be made of it")
        return iter(())


def role(*shards: Shard) -> MonitorRole:
    made = MonitorRole(
        Connection(("127.0.0.1:1",), session_timeout=6.0),
        Topics(),
        specs=[],
        habits=[],
        telemetry=["requests"],
        partials_partitions=len(shards),
        lookback=60,
        window_lookback=60,
        max_scopes=10,
        evaluate_every=1,
        catching_up_after=15.0,
        handlers=Handlers(firing=nothing, transition=published, inability=published, drift=published, judged=nothing),
        outbox=Outbox(nothing),
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
