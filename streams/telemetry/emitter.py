"""Sends samples from an asyncio service to a telemetry topic, without ever delaying the observed request.

    async with Emitter("requests", {"bootstrap_servers": ["127.0.0.1:9092"]}) as emitter:
        emitter.emit(Sample(ts=time.time(), service="shop", status=200, latency_ms=12.5, flags={"new-cart": "on"}))

Each record is one JSON object. It has no key, so that the load is spread evenly over the partitions; a sample with an
id has its id as the key, so that the start and the end of a request are in the same partition. If the broker does not
accept samples fast enough, the oldest are dropped and counted: a service must not fail because its telemetry does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import msgspec
from aiokafka import AIOKafkaProducer

from streams.telemetry.sample import Sample

CAPACITY = 10_000
"""Maximum number of waiting samples: about 2 MB, or ten seconds of 1,000 requests/s while no broker answers."""

_LINGER_MS = 20
_RETRY_AFTER = 1.0
_FLUSH = 2.0

_logger = logging.getLogger(__name__)


class Emitter:
    """Sends samples to `topic`; `connection` are the arguments of an aiokafka client. Not thread-safe.

    Entering the context does not wait for the brokers. Leaving it waits for up to two seconds until all is sent.
    """

    def __init__(self, topic: str, connection: dict[str, Any], *, capacity: int = CAPACITY) -> None:
        self.dropped = 0
        """How many samples were dropped: the queue was full, or the brokers did not acknowledge them."""
        self.sent = 0
        """How many samples a broker has acknowledged."""
        self._topic = topic
        self._connection = connection
        self._queue: deque[tuple[bytes, bytes | None]] = deque(maxlen=capacity)
        self._filled = asyncio.Event()
        self._in_flight: set[asyncio.Future[Any]] = set()
        self._encoder = msgspec.json.Encoder()
        self._task: asyncio.Task[None] | None = None

    def emit(self, sample: Sample) -> None:
        """Queue a sample. Never waits for the brokers, nor raises because of them."""
        if len(self._queue) == self._queue.maxlen:
            self.dropped += 1
        key = None if sample.id is None else sample.id.encode()
        self._queue.append((self._encoder.encode(sample), key))
        self._filled.set()

    def started(self, sample: Sample) -> None:
        """Queue the start of a request: `ts` is when it began, `id` is the id of the sample that `emit` gets at its
        end.

        With `flags` it counts for their variants too. Until the end is emitted, the request counts against every
        latency limit that its age exceeds; so emit an end for each start. Raises ValueError without an id.
        """
        if sample.id is None:
            raise ValueError("a started sample needs an id, which the sample of its end has too")
        self.emit(msgspec.structs.replace(sample, kind="started"))

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._task is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH):
                while self._queue or self._in_flight:  # noqa: ASYNC110 - an event for the end alone costs every emit
                    await asyncio.sleep(_LINGER_MS / 1000)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self.dropped += len(self._queue)
        self._queue.clear()

    async def _run(self) -> None:
        while True:
            try:
                async with self._producer() as producer:
                    await producer.start()
                    await self._pump(producer)
            except Exception as error:
                # Catch every error: if this task ended, all samples would be dropped without a log line.
                self._log("emitter.unconnected", error)
            await asyncio.sleep(_RETRY_AFTER)

    @contextlib.asynccontextmanager
    async def _producer(self) -> AsyncIterator[AIOKafkaProducer]:
        producer = AIOKafkaProducer(**self._connection, linger_ms=_LINGER_MS)
        try:
            yield producer
        finally:
            # `stop` waits for records in flight as long as a request may take, 40 s.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FLUSH):
                    await producer.stop()

    async def _pump(self, producer: AIOKafkaProducer) -> None:
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._queue:
                await self._send(producer, *self._queue.popleft())

    async def _send(self, producer: AIOKafkaProducer, value: bytes, key: bytes | None) -> None:
        try:
            # Waits while the producer's own buffer is full; meanwhile the queue drops its oldest.
            future = await producer.send(self._topic, value, key)
        except Exception as error:
            self._lost(error)
            return
        self._in_flight.add(future)
        future.add_done_callback(self._settled)

    def _settled(self, future: asyncio.Future[Any]) -> None:
        self._in_flight.discard(future)
        error = None if future.cancelled() else future.exception()
        if future.cancelled() or error is not None:
            self._lost(error)
        else:
            self.sent += 1

    def _lost(self, error: BaseException | None) -> None:
        self.dropped += 1
        self._log("emitter.lost", error)

    def _log(self, event: str, error: BaseException | None) -> None:
        _logger.warning(event, extra={"fields": {"topic": self._topic, "error": repr(error)}})
