"""Makes a Faust app with flipback's settings. Several apps, one for each role, run in one process and event loop."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from typing import Any

from aiokafka.errors import KafkaError
from faust.exceptions import ProducerSendError

from streams.errors import TopicError
from streams.kafka.connection import Connection
from streams.kafka.driver import App
from streams.kafka.reading import Reading

COMMIT_INTERVAL = 1.0
"""Seconds between commits. After a crash, at most this much and the open seconds are read again."""

_METADATA_AGE_MS = 10_000
"""Maximum age of the metadata on topics and partitions. A recreated topic and added partitions are read only after the
metadata is refreshed: with aiokafka's default of 5 minutes a third of the traffic stayed unread for that long."""

_BY_BROKER = 1
"""aiokafka's `timestamp_type` of a record whose time the broker sets (`message.timestamp.type=LogAppendTime`)."""

_RETRY_FIRST = 0.1
_RETRY_MOST = 2.0


def new_app(group: str, connection: Connection, reading: Reading, *, buffer: int, fetch: int = 1 << 20) -> App:
    """Make the app of one role. `group` is the consumer group, `buffer` how many events may wait for its agent.

    `fetch` is the maximum size in bytes of one fetch of a partition; a larger single record is fetched all the same.
    """
    return App(
        group,
        reading=reading,
        broker=connection.urls,
        broker_credentials=connection.credentials,
        broker_session_timeout=connection.session_timeout,
        broker_heartbeat_interval=connection.session_timeout / 6,
        broker_commit_interval=COMMIT_INTERVAL,
        # For topics that are delivered record by record; a slice counts as one.
        broker_max_poll_records=500,
        stream_buffer_maxsize=buffer,
        consumer_max_fetch_size=fetch,
        consumer_auto_offset_reset="earliest",
        consumer_metadata_max_age_ms=_METADATA_AGE_MS,
        producer_metadata_max_age_ms=_METADATA_AGE_MS,
        producer_linger=0,
        producer_max_request_size=4 << 20,
        store="memory://",
        # Faust creates this directory at once, although a memory store writes nothing to it.
        datadir=tempfile.gettempdir(),
        key_serializer="raw",
        value_serializer="raw",
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        # Without this Faust configures logging itself and reports its start in colour.
        logging_config={"version": 1, "disable_existing_loggers": False},
    )


async def send_until_acknowledged(
    app: App,
    topic: str,
    value: bytes,
    *,
    key: bytes | None = None,
    partition: int | None = None,
    headers: list[tuple[str, bytes]] | None = None,
    on_retry: Callable[[Exception], Any] | None = None,
) -> float | None:
    """Write a record and wait for its acknowledgement. Retries as long as the app runs.

    Returns the broker's time in Unix seconds if the broker sets the time of the topic's records, else None. A retry may
    write a record twice; readers of all of flipback's topics ignore the repetition.
    """
    delay = _RETRY_FIRST
    while True:
        try:
            written: Any = await app.producer.send_and_wait(topic, key, value, partition, None, headers or [])
            return written.timestamp / 1000 if written.timestamp_type == _BY_BROKER else None
        except (KafkaError, ProducerSendError) as error:
            if app.should_stop:
                raise
            if on_retry:
                on_retry(error)
            await asyncio.sleep(delay)
            delay = min(2 * delay, _RETRY_MOST)


async def send_within(app: App, topic: str, key: bytes, value: bytes | None, *, within: float) -> None:
    """Write a record once. Raises TopicError if the broker has not acknowledged it `within` seconds."""
    try:
        async with asyncio.timeout(within):
            await app.producer.send_and_wait(topic, key, value, None, None, [])
    except (KafkaError, ProducerSendError, TimeoutError, OSError) as error:
        raise TopicError(f"{topic} took no record within {within:g} s: {error!r}") from error
