"""Measured worker: the ingest role of `flipback run`, from Kafka to acknowledged partials."""

from __future__ import annotations

import asyncio

from streams.bench import workers
from streams.bench.workers import Stopwatch, Task, WorkerResult
from streams.clock import Clock
from streams.decoders.columns import Reject
from streams.ingest.role import IngestRole, IngestSettings
from streams.kafka.connection import Connection
from streams.kafka.outbox import Record
from streams.kafka.reading import Delivery
from streams.kafka.topics import Topics
from streams.slices import Source

_POLL = 0.005
_LOOKBACK = 86_400.0


class Counter:
    """Counts the records that reach the role's reducer."""

    def __init__(self, role: IngestRole) -> None:
        self.records = 0
        self._take = role.ingest.take
        role.ingest.take = self.take  # type: ignore[method-assign]

    def take(self, delivery: Delivery) -> list[Reject]:
        rejects = self._take(delivery)
        self.records += len(delivery.slice.values)
        return rejects


async def work(task: Task) -> WorkerResult:
    """Read the topic to its end. The time ends when all offsets may be committed: all partials are acknowledged."""
    rejected: list[Record] = []
    role = IngestRole(
        Connection((task.kafka,)),
        Topics(task.prefix),
        IngestSettings(
            formats={task.topic: task.format},
            watch=task.shop().watch_list(),
            max_scopes=2000,
            max_lateness=2.0,
            lookback=_LOOKBACK,
        ),
        partitions=task.partitions,
        clock=Clock(),
        publish=rejected.append,
    )
    counter = Counter(role)
    role.app.finalize()
    await role.app.start()
    while counter.records < task.warm_up:  # noqa: ASYNC110  # the measured role has no event for this
        await asyncio.sleep(_POLL)
    clock, before = Stopwatch(counter.records), counter.records
    while any(role.ingest.committable(Source(task.topic, p)) != end for p, end in task.ends.items()):  # noqa: ASYNC110
        await asyncio.sleep(_POLL)
    result = clock.stop(counter.records)
    if before + result.records != sum(task.ends.values()):
        raise RuntimeError(f"{before + result.records} records were taken, {sum(task.ends.values())} are in the topic")
    return result


if __name__ == "__main__":
    workers.pin()
    given = workers.task()
    workers.main(work(given), uvloop=given.uvloop)
