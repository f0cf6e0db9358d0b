"""Reading a whole topic: from its beginning to its end, and on as it grows. No consumer group, nothing committed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord

from streams.connection_errors import reason
from streams.errors import TopicError
from streams.slices import Source

_LAST_WITHIN = 2.0
"""Seconds after which a partition whose newest record does not come is taken for empty."""


class Read(NamedTuple):
    """Records in offset order per partition; `at_end` says that all that was there has now been read."""

    records: list[ConsumerRecord[bytes, bytes]]
    at_end: bool


async def read_topic(
    topic: str, connection: dict[str, Any], *, since: float | None = None
) -> AsyncGenerator[Read, None]:
    """Yield all records of a topic and then follow it for ever; to be closed by who leaves the loop (`aclosing`).

    `since` (Unix seconds) skips what is older. TopicError where no broker can be reached at the beginning.

    The end is the high watermark of a fetch answer, which is right on every broker, not ListOffsets, which is not.
    """
    consumer = AIOKafkaConsumer(
        **connection, enable_auto_commit=False, auto_offset_reset="earliest", fetch_max_wait_ms=100
    )
    try:
        await consumer.start()
    except (KafkaError, TimeoutError, OSError) as error:
        await consumer.stop()
        servers = ", ".join(connection["bootstrap_servers"])
        raise TopicError(f"{topic} on {servers} cannot be read: {await reason(error, connection)}") from error
    try:
        known = consumer.partitions_for_topic(topic)
        while not known:
            # The metadata of a topic that was just created comes with the next refresh.
            await consumer._client.force_metadata_update()
            await consumer.topics()
            known = consumer.partitions_for_topic(topic)
            if not known:
                await asyncio.sleep(0.2)
        tps = [TopicPartition(topic, p) for p in sorted(known)]
        consumer.assign(tps)
        if since is None:
            for tp in tps:
                consumer.seek(tp, 0)
        else:
            found = await consumer.offsets_for_times({tp: int(since * 1000) for tp in tps})
            ends = await consumer.end_offsets(tps)
            for tp in tps:
                hit = found.get(tp)
                consumer.seek(tp, ends[tp] if hit is None else hit.offset)
        while True:
            batches = await consumer.getmany(timeout_ms=200)
            records = [record for tp in tps for record in batches.get(tp, [])]
            yield Read(records, all([_at_end(consumer, tp, await consumer.position(tp)) for tp in tps]))
    finally:
        await consumer.stop()


async def read_to_end(
    topic: str, connection: dict[str, Any], *, since: float | None = None
) -> list[ConsumerRecord[bytes, bytes]]:
    """All records that a topic has now; `since` (Unix seconds) skips what is older."""
    found: list[ConsumerRecord[bytes, bytes]] = []
    async with aclosing(read_topic(topic, connection, since=since)) as reads:
        async for read in reads:
            found += read.records
            if read.at_end:
                break
    return found


def _at_end(consumer: AIOKafkaConsumer, tp: TopicPartition, position: int) -> bool:
    highwater = consumer.highwater(tp)
    return highwater is not None and position >= highwater


async def last_records(sources: Iterable[Source], connection: dict[str, Any]) -> dict[Source, bytes | None]:
    """The value of each partition's newest record; None where it is empty. On a broker that states its end too low it
    is an older one."""
    found = await tails(sources, connection, 1)
    return {source: tail.records[-1].value if tail.records else None for source, tail in found.items()}


class Tail(NamedTuple):
    """The newest records of a partition in offset order; `ever` says whether it has ever had any."""

    records: list[ConsumerRecord[bytes, bytes]]
    ever: bool


async def tails(sources: Iterable[Source], connection: dict[str, Any], most: int) -> dict[Source, Tail]:
    """The newest records of each partition, at most `most`; fewer where they do not come in time."""
    consumer = AIOKafkaConsumer(**connection, enable_auto_commit=False, fetch_max_wait_ms=100)
    await consumer.start()
    try:
        tps = [TopicPartition(source.topic, source.partition) for source in sources]
        consumer.assign(tps)
        begins, ends = await asyncio.gather(consumer.beginning_offsets(tps), consumer.end_offsets(tps))
        found = {Source(*tp): Tail([], ends[tp] > 0) for tp in tps}
        unread = {tp for tp in tps if begins[tp] < ends[tp]}
        consumer.pause(*(set(tps) - unread))
        for tp in unread:
            consumer.seek(tp, max(begins[tp], ends[tp] - most))
        deadline = time.monotonic() + _LAST_WITHIN
        while unread and time.monotonic() < deadline:
            for tp, records in (await consumer.getmany(timeout_ms=200)).items():
                found[Source(*tp)].records.extend(records)
                if records and records[-1].offset >= ends[tp] - 1:
                    unread.discard(tp)
                    consumer.pause(tp)
        return {source: Tail(tail.records[-most:], tail.ever) for source, tail in found.items()}
    finally:
        await consumer.stop()
