"""Reads a whole topic, from its beginning to its end and on as it grows, without a consumer group or commits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from typing import Any, Final, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord

from streams.errors import TopicError
from streams.kafka.connection_errors import reason
from streams.slices import Source

_LAST_WITHIN = 2.0
"""Seconds to wait for the newest records of a partition; a partition whose records do not come counts as empty."""
_NOTHING_FOR = 20.0
"""Seconds without a record after which reading to the end is given up."""

NOT_READ: Final = (KafkaError, TimeoutError)
"""The exceptions that `last_records` and `tails` raise if no broker answers."""


class Read(NamedTuple):
    """Records in offset order per partition; `at_end` is True once every partition has been read to its end."""

    records: list[ConsumerRecord[bytes, bytes]]
    at_end: bool


async def read_topic(
    topic: str, connection: dict[str, Any], *, since: float | None = None
) -> AsyncGenerator[Read, None]:
    """Yield all records of a topic and then follow it for ever. A caller that leaves the loop must close it
    (`aclosing`).

    Records older than `since` (Unix seconds) are skipped. Raises TopicError if no broker can be reached at the start.
    """
    async with aclosing(_read({topic: since}, connection)) as reads:
        async for read in reads:
            yield read


async def read_to_end(
    topic: str, connection: dict[str, Any], *, since: float | None = None
) -> list[ConsumerRecord[bytes, bytes]]:
    """All records that a topic has now; those older than `since` (Unix seconds) are skipped."""
    return (await read_all_to_end({topic: since}, connection))[topic]


async def read_all_to_end(
    topics: Mapping[str, float | None], connection: dict[str, Any]
) -> dict[str, list[ConsumerRecord[bytes, bytes]]]:
    """All records that each of the topics has now, read by one consumer.

    `topics` gives for each topic the Unix time before which records are skipped, or None. Raises TopicError if no
    broker can be reached at the start, or if no record comes for 20 s before the end is reached.
    """
    found: dict[str, list[ConsumerRecord[bytes, bytes]]] = {topic: [] for topic in topics}
    came = time.monotonic()
    async with aclosing(_read(topics, connection)) as reads:
        async for read in reads:
            for record in read.records:
                found[record.topic].append(record)
            if read.at_end:
                break
            if read.records:
                came = time.monotonic()
            elif time.monotonic() - came > _NOTHING_FOR:
                names = ", ".join(topics)
                raise TopicError(f"{names}: nothing came for {_NOTHING_FOR:.0f} s, and there is more; is a broker up?")
    return found


async def _read(topics: Mapping[str, float | None], connection: dict[str, Any]) -> AsyncGenerator[Read, None]:
    """Like `read_topic` for several topics; `at_end` is about all of them.

    The end of a partition is the high watermark of a fetch response. ListOffsets returns a wrong end on some brokers.
    """
    consumer = AIOKafkaConsumer(
        **connection, enable_auto_commit=False, auto_offset_reset="earliest", fetch_max_wait_ms=100
    )
    try:
        await consumer.start()
    except (KafkaError, TimeoutError, OSError) as error:
        await consumer.stop()
        servers, names = ", ".join(connection["bootstrap_servers"]), ", ".join(topics)
        raise TopicError(f"{names} on {servers} cannot be read: {await reason(error, connection)}") from error
    try:
        tps = [TopicPartition(topic, p) for topic in topics for p in await _partitions(consumer, topic)]
        consumer.assign(tps)
        await _seek(consumer, tps, topics)
        # A partition that was read to its end stays at its end, although it may grow while another one is read.
        unread = set(tps)
        while True:
            batches = await consumer.getmany(timeout_ms=200)
            records = [record for tp in tps for record in batches.get(tp, [])]
            unread -= {tp for tp in unread if _at_end(consumer, tp, await consumer.position(tp))}
            yield Read(records, not unread)
    finally:
        await consumer.stop()


async def _partitions(consumer: AIOKafkaConsumer, topic: str) -> list[int]:
    known = consumer.partitions_for_topic(topic)
    while not known:
        # A topic that was just created is in the metadata after the next refresh.
        await consumer._client.force_metadata_update()
        await consumer.topics()
        known = consumer.partitions_for_topic(topic)
        if not known:
            await asyncio.sleep(0.2)
    return sorted(known)


async def _seek(consumer: AIOKafkaConsumer, tps: list[TopicPartition], topics: Mapping[str, float | None]) -> None:
    times = {tp: int(since * 1000) for tp in tps if (since := topics[tp.topic]) is not None}
    found = await consumer.offsets_for_times(times) if times else {}
    ends = await consumer.end_offsets([*times]) if times else {}
    for tp in tps:
        hit = found.get(tp)
        consumer.seek(tp, 0 if tp not in times else ends[tp] if hit is None else hit.offset)


def _at_end(consumer: AIOKafkaConsumer, tp: TopicPartition, position: int) -> bool:
    highwater = consumer.highwater(tp)
    return highwater is not None and position >= highwater


async def last_records(sources: Iterable[Source], connection: dict[str, Any]) -> dict[Source, bytes | None]:
    """The value of each partition's newest record, or None if it is empty.

    On a broker whose ListOffsets returns an end that is too low, it is the value of an older record.
    """
    found = await tails(sources, connection, 1)
    return {source: tail.records[-1].value if tail.records else None for source, tail in found.items()}


class Tail(NamedTuple):
    """The newest records of a partition in offset order; `ever` is whether it has ever had records."""

    records: list[ConsumerRecord[bytes, bytes]]
    ever: bool


async def tails(sources: Iterable[Source], connection: dict[str, Any], most: int) -> dict[Source, Tail]:
    """The newest records of each partition, at most `most`; fewer if they do not come in two seconds."""
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
