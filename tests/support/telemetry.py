"""Sends telemetry to a real broker, and counts exactly what was sent, independently of the code under test."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaProducer

from streams.monitor.health import Health


class Telemetry:
    """Sends samples without keys to given partitions and counts them by (scope, second).

    A scope is `service` or `service/flag@variant`. `exact` counts all samples, `errors` those with a status of 500 or
    more.
    """

    def __init__(self, producer: AIOKafkaProducer, topic: str) -> None:
        self._producer = producer
        self._topic = topic
        self._pending: list[Any] = []
        self.exact: Counter[tuple[str, int]] = Counter()
        self.errors: Counter[tuple[str, int]] = Counter()
        self.sent = 0

    async def send(
        self, partition: int, service: str, *, ts: float | None = None, recorded: float | None = None, **fields: Any
    ) -> None:
        """Send a sample; `ts` is its own time, `recorded` that of the Kafka record if it differs."""
        at = time.time() if ts is None else ts
        sample = {"ts": at, "service": service, "status": 200, "instance": f"i-{self.sent % 3}", **fields}
        self._pending.append(
            await self._producer.send(
                self._topic, json.dumps(sample).encode(), partition=partition, timestamp_ms=int(1000 * (recorded or at))
            )
        )
        self.sent += 1
        for scope in (service, *(f"{service}/{f}@{v}" for f, v in fields.get("flags", {}).items())):
            self.exact[scope, math.floor(at)] += 1
            status = fields.get("status", 200)
            self.errors[scope, math.floor(at)] += isinstance(status, int) and status >= 500

    async def flush(self) -> None:
        """Wait until all sent samples are acknowledged."""
        pending, self._pending = self._pending, []
        for acknowledged in pending:
            await acknowledged


@asynccontextmanager
async def telemetry(kafka: str, topic: str) -> AsyncIterator[Telemetry]:
    producer = AIOKafkaProducer(bootstrap_servers=kafka.split(","), linger_ms=5)
    await producer.start()
    try:
        yield Telemetry(producer, topic)
    finally:
        await producer.stop()


def counted(frames: list[Health], column: str = "requests") -> dict[tuple[str, int], int]:
    """A count by (scope, second) from health records; a second that was published again must have the same count."""
    seen: dict[tuple[str, int], int] = {}
    for frame in frames:
        for index, (_, service, flag, variant) in enumerate(frame.scopes):
            if not frame.counts["requests"][index]:
                # All samples of the scope were rejected.
                assert frame.counts["late"][index] == 0
                continue
            key = f"{service}/{flag}@{variant}" if flag else service, frame.time - 1
            value = frame.counts[column][index]
            assert seen.setdefault(key, value) == value, f"{key} was published as {seen[key]} and as {value}"
            assert frame.counts["late"][index] == 0, f"{key} has late samples"
    return seen
