"""The checkpoint records of a process: written for its shards, and read back if they fit today's triggers."""

from __future__ import annotations

import logging

from streams.errors import CheckpointError
from streams.monitor import checkpoint
from streams.monitor.checkpoint import Checkpoint
from streams.monitor.settings import MonitorSettings
from streams.monitor.shard import Shard

_logger = logging.getLogger(__name__)


class CheckpointRecords:
    """Encodes and decodes the checkpoints of every partition; `settings` has the triggers of today."""

    def __init__(self, settings: MonitorSettings) -> None:
        self._settings = settings
        self._identities: dict[int, str] = {}
        self._too_large: set[int] = set()

    def encode(self, shard: Shard) -> bytes | None:
        """The record of a shard's checkpoint; None before its first evaluation, and after a checkpoint of it was too
        large for a record."""
        found = shard.checkpoint(self._identity(shard.partition))
        if found is None or shard.partition in self._too_large:
            return None
        try:
            return checkpoint.encode(found)
        except CheckpointError as error:
            self._too_large.add(shard.partition)
            _logger.warning("checkpoint.too-large", extra={"fields": {"error": str(error)}})
            return None

    def decode(self, partition: int, record: bytes | None) -> Checkpoint | None:
        """The checkpoint of a record; None if there is none, or one of other triggers than today's."""
        try:
            found = checkpoint.decode(record) if record else None
        except CheckpointError as error:
            _logger.warning("checkpoint.unreadable", extra={"fields": {"partition": partition, "error": str(error)}})
            return None
        return found if found is not None and found.of == self._identity(partition) else None

    def _identity(self, partition: int) -> str:
        if partition not in self._identities:
            self._identities[partition] = checkpoint.identity(
                self._settings.specs_of(partition),
                topics=self._settings.telemetry,
                evaluate_every=self._settings.shard.evaluate_every,
            )
        return self._identities[partition]
