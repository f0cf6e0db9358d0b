"""aiokafka's fetcher and client, changed as `streams.kafka.driver` lists (2, 4, 5 and 8)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import Fetcher, FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException
from faust.types import TP

from streams.kafka.reading import Answer, Fetched, Position, Reading
from streams.slices import Source

FETCH_WAIT_MS = 50


def _batches(records: PartitionRecords, position: Position) -> Iterator[Fetched]:
    """Unpack whole Kafka batches; otherwise the same as `PartitionRecords._unpack_records` at read_uncommitted."""
    batches = records._records
    while batches.has_next():
        batch = batches.next_batch()
        if records._check_crcs and not batch.validate_crc():
            raise CorruptRecordException(f"Invalid CRC - {records._tp}")
        if not batch.is_control_batch:
            before = records.next_fetch_offset
            # If the requested offset lies inside a batch, the broker returns the whole batch.
            rows = [row for row in batch if row.offset >= before]
            if rows:
                headers = {
                    index: value
                    for index, row in enumerate(rows)
                    if row.headers
                    for name, value in row.headers
                    if name.lower() == "content-type"
                }
                # `next_offset` is behind offsets that compaction removed, so reading does not stop at those.
                records.next_fetch_offset = batch.next_offset
                position.delivered = batch.next_offset
                yield Fetched(
                    [row.value for row in rows],
                    [row.offset for row in rows],
                    [row.timestamp for row in rows],
                    headers,
                    before,
                    batch.next_offset,
                    position.epoch,
                )
        records.next_fetch_offset = position.read = batch.next_offset


class SliceFetcher(Fetcher):  # type: ignore[misc]
    """aiokafka's fetcher, which unpacks telemetry by batch and records when each response came."""

    reading: Reading

    async def _proc_fetch_request(self, assignment: Any, node_id: int, request: Any) -> bool:
        sent, sent_wall = time.monotonic(), time.time()
        before = {
            (topic, partition): getattr(assignment.state_value(TP(topic, partition)), "timestamp", None)
            for topic, partitions in request.topics
            if topic in self.reading.batched
            for partition, _, _ in partitions
        }
        woke: bool = await super()._proc_fetch_request(assignment, node_id, request)
        latest = min(time.monotonic(), sent + FETCH_WAIT_MS / 1000 + 0.25)
        for topic, partitions in request.topics:
            if topic not in self.reading.batched or not assignment.active:
                continue
            for partition, _, _ in partitions:
                tp = TP(topic, partition)
                state = assignment.state_value(tp)
                position = self.reading.positions.setdefault(Source(topic, partition), Position())
                if state is not None and state.highwater is not None and state.timestamp != before[topic, partition]:
                    # aiokafka stamps a response by the wall clock, which may have been stepped in between.
                    taken = sent + max(0.0, state.timestamp / 1000 - sent_wall)
                    position.answer = Answer(min(taken, latest), state.highwater)
                result = self._records.get(tp)
                if isinstance(result, FetchResult) and result.has_more():
                    records = result._partition_records
                    if not getattr(records, "by_batch", False):
                        records.by_batch = True
                        records._records_iterator = _batches(records, position)
        return woke

    async def _update_fetch_positions(self, assignment: Any, node_id: int, tps: Any) -> bool:
        """Report positions that a broker rejected by `Reading.on_lost`, so that `Consumer` seeks.

        Upstream seeks to the partition's beginning (`Fetcher._update_fetch_positions`). Stage 1 and Faust would drop
        everything there, because they expect offsets beyond the old position.
        """
        lost = {}
        for tp in tps:
            source, state = Source(*tp), assignment.state_value(tp)
            position = self.reading.positions.get(source)
            if tp.topic not in self.reading.batched or position is None or not position.epoch:
                continue
            if state is not None and state.awaiting_reset:
                lost[source] = position.read
        if lost:
            self.reading.lost = self.reading.lost | lost
            if self.reading.on_lost is not None:
                self.reading.on_lost()
            await asyncio.sleep(self._retry_backoff)
        rest = [tp for tp in tps if Source(*tp) not in lost]
        woke: bool = bool(rest) and await super()._update_fetch_positions(assignment, node_id, rest)
        return woke


class AnsweredClient(AIOKafkaClient):  # type: ignore[misc]
    """aiokafka's client, which records when a broker last answered any request: fetch, heartbeat or commit."""

    reading: Reading

    async def send(self, node_id: int, request: Any, **options: Any) -> Any:
        response = await super().send(node_id, request, **options)
        self.reading.answered_at = time.monotonic()
        return response
