"""Where each assigned partition is read from, and where its shard resumes: from what was published before."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping

from streams.kafka.connection import Connection
from streams.kafka.reader import NOT_READ, last_records
from streams.kafka.topics import Topics
from streams.monitor.checkpoint import EVERY
from streams.monitor.checkpoint_records import CheckpointRecords
from streams.monitor.merge import AHEAD
from streams.monitor.published import announced_before, newest_judged
from streams.monitor.resume_point import NEW_DEPLOYMENT, ResumePoint
from streams.monitor.settings import MonitorSettings
from streams.slices import Source

REPLAY_MARGIN = 10.0
"""Seconds read again beyond the longest window and hold, because watermarks of the log's first records may lag."""

_CHECKPOINT_BEHIND = 6 * EVERY
"""Seconds that a checkpoint may be older than the newest health record."""

_WITHIN = 10.0
"""Seconds for reading the newest records."""

_logger = logging.getLogger(__name__)


class Recall:
    """Reads the newest health record and checkpoint of each partition that is assigned to this process."""

    def __init__(
        self, connection: Connection, topics: Topics, settings: MonitorSettings, checkpoints: CheckpointRecords
    ) -> None:
        self._connection = connection
        self._topics = topics
        self._checkpoints = checkpoints
        self._lookback = settings.lookback + REPLAY_MARGIN
        self._window_lookback = settings.window_lookback + REPLAY_MARGIN
        self.points: dict[int, ResumePoint] = {}
        """The resume point of each partition of the last call of `since`, except for its `from_start`."""

    async def since(self, sources: list[Source]) -> dict[Source, float | None]:
        """From which time (Unix seconds) on the partials of each partition are needed; None: from the first record.

        With a checkpoint that fits, that is the begin of the windows at its time; without one, it is what triggers look
        back before the newest health record. It is not counted back from now: after an outage, the seconds before it
        are needed to judge the next ones. This runs in Faust's consumer thread; `points` is read after it has ended.
        """
        wanted = [
            Source(topic, source.partition)
            for source in sources
            for topic in (self._topics.health, self._topics.checkpoints)
        ]
        try:
            async with asyncio.timeout(_WITHIN):
                records = await last_records(wanted, self._connection.client)
        except NOT_READ as error:
            # Without these records events are published twice; without a monitor nothing is judged.
            _logger.warning("monitor.recall-failed", extra={"fields": {"error": repr(error)}})
            records = {}
        self.points = {}
        return {source: self._since_of(source.partition, records, time.time()) for source in sources}

    def _since_of(self, partition: int, records: Mapping[Source, bytes | None], now: float) -> float | None:
        health = records.get(Source(self._topics.health, partition))
        published, wrong = newest_judged(health, now + AHEAD)
        if published is None:
            self.points[partition] = NEW_DEPLOYMENT
            if wrong:
                fields = {"partition": partition, "error": wrong}
                _logger.warning("health.unreadable", extra={"fields": fields})
            # If the records were read and there is no health record, no second was ever judged.
            return None if records and not wrong else now - self._lookback
        announced = announced_before(health)
        found = self._checkpoints.decode(partition, records.get(Source(self._topics.checkpoints, partition)))
        # The two records are published together. A checkpoint later than the health record would leave seconds out of
        # the health topic. If it is much older, its writing has failed, and from it more would be read than without.
        if found is not None and found.time <= published <= found.time + _CHECKPOINT_BEHIND:
            self.points[partition] = ResumePoint(published=published, announced=announced, checkpoint=found)
            return found.time - self._window_lookback
        self.points[partition] = ResumePoint(published=published, announced=announced)
        return published - self._lookback
