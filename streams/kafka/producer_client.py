"""The producer of a Faust app, whose client backs off between two equal requests for metadata."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection
from typing import Any

from aiokafka.client import AIOKafkaClient
from faust.transport.drivers import aiokafka as driver


class PatientClient(AIOKafkaClient):  # type: ignore[misc]
    """aiokafka's client, which waits for its back-off before it requests metadata of the same topics again.

    While records wait for a topic that does not exist, aiokafka's sender requests metadata without a pause
    (aiokafka/producer/sender.py:155 has "wait backoff time" as a comment only): 960 times a second, 42 % of a core.
    """

    asked_at: float | None = None
    asked_for: frozenset[str] = frozenset()

    async def _metadata_update(self, cluster_metadata: Any, topics: Collection[str] | None) -> Any:
        asks = frozenset(topics or ())
        if self.asked_at is not None and asks == self.asked_for:
            await asyncio.sleep(max(0.0, self.asked_at + self._retry_backoff - time.monotonic()))
        self.asked_at, self.asked_for = time.monotonic(), asks
        return await super()._metadata_update(cluster_metadata, topics)


class Producer(driver.Producer):
    """Faust's producer with a `PatientClient`."""

    logger = logging.getLogger("faust.flipback")

    def _new_producer(self, transactional_id: str | None = None) -> Any:
        made = super()._new_producer(transactional_id)
        made.client.__class__ = PatientClient
        return made
