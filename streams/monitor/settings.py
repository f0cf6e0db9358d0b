"""Settings of the monitor and of each of its shards, from the configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from detectors.conditions.spec import TriggerSpec
from streams.monitor.drift_watch import DriftTarget
from streams.monitor.room import MOST_BYTES
from streams.partials.partitions import partition_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardSettings:
    """Limits of one shard.

    `evaluate_every` is in seconds of event time. A second older than `catching_up_after` seconds is muted. Samples may
    come `max_lateness` seconds late. Cells of `most_bytes` may wait for a source that holds the others up.
    """

    max_scopes: int
    evaluate_every: int
    catching_up_after: float
    max_lateness: float = 2.0
    most_bytes: int = MOST_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorSettings:
    """The triggers and drift targets of a process, which are judged on samples of the `telemetry` topics.

    A shard without a checkpoint needs `lookback` seconds of partials, one with a checkpoint `window_lookback` seconds.
    """

    specs: Sequence[TriggerSpec]
    drift_targets: Sequence[DriftTarget]
    telemetry: Sequence[str]
    partials_partitions: int
    lookback: float
    window_lookback: float
    shard: ShardSettings

    def specs_of(self, partition: int) -> list[TriggerSpec]:
        """The triggers of the services in a partials partition."""
        return [spec for spec in self.specs if self._partition_of(spec) == partition]

    def drift_targets_of(self, partition: int) -> list[DriftTarget]:
        """The drift targets of the services in a partials partition."""
        return [target for target in self.drift_targets if self._partition_of(target) == partition]

    def _partition_of(self, of: TriggerSpec | DriftTarget) -> int:
        return partition_of(of.environment, of.service, self.partials_partitions)
