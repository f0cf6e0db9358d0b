"""Writes records to a topic from the command line, without a Faust app, and waits for their acknowledgement."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from streams.errors import TopicError
from streams.kafka.connection_errors import reason

TIMEOUT = 10.0


async def send(topic: str, records: Iterable[tuple[bytes, bytes]], connection: dict[str, Any]) -> None:
    """Write records, each a key and a value, in order, acknowledged by all replicas. Raises TopicError after 10 s."""
    producer = AIOKafkaProducer(**connection, acks="all", request_timeout_ms=int(TIMEOUT * 1000))
    try:
        async with asyncio.timeout(TIMEOUT):
            await producer.start()
            for key, value in records:
                await producer.send_and_wait(topic, value, key=key)
    except (KafkaError, TimeoutError, OSError) as error:
        servers = ", ".join(connection["bootstrap_servers"])
        raise TopicError(f"{topic} on {servers} took no record: {await reason(error, connection)}") from error
    finally:
        await producer.stop()
