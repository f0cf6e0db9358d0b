"""aiokafka's fetcher and client as flipback needs them; what is changed and why stands in `streams.kafka.driver`."""

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
    """Unpack whole Kafka batches; the duties of `PartitionRecords._unpack_records` at read_uncommitted are kept."""
    batches = records._records
    while batches.has_next():
        batch = batches.next_batch()
        if records._check_crcs and not batch.validate_crc():
            raise CorruptRecordException(f"Invalid CRC - {records._tp}")
        if not batch.is_control_batch:
            before = records.next_fetch_offset
            # A fetch may answer with a batch that begins before the asked offset, when that lies inside the batch.
            rows = [row for row in batch if row.offset >= before]
            if rows:
                headers = {
                    index: value
                    for index, row in enumerate(rows)
                    if row.headers
                    for name, value in row.headers
                    if name.lower() == "content-type"
                }
                # The next offset of the batch counts offsets that compaction removed, so reading never sticks there.
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
    """aiokafka's fetcher with batch-wise unpacking of telemetry and honest answer times."""

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
                    # aiokafka stamps an answer by the wall clock, which may have been set meanwhile.
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
        """Leave it to `Consumer` where reading goes on after a broker has refused a position.

        Upstream goes to the partition's beginning (`Fetcher._update_fetch_positions`), while stage 1 and Faust wait for
        offsets beyond the old position, and drop all before.
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
    """aiokafka's client that notes when a broker answered: fetches, heartbeats, commits."""

    reading: Reading

    async def send(self, node_id: int, request: Any, **options: Any) -> Any:
        response = await super().send(node_id, request, **options)
        self.reading.answered_at = time.monotonic()
        return response
