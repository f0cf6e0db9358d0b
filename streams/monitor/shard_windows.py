"""The windows of a shard and all that reads them. They are replaced together after seconds were given up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from detectors.conditions.spec import TriggerSpec
from detectors.triggers.evaluator import Evaluator
from detectors.triggers.wants import measures, wants
from detectors.windows.store import WindowStore
from streams.monitor.drift_watch import DriftTarget, ServiceDrift, drift_wants
from streams.monitor.evidence import EvidenceBuilder, fresh_wants
from streams.monitor.flag_coverage import Coverage
from streams.monitor.observer import Observer, flip_wants


@dataclass(frozen=True, slots=True)
class ShardWindows:
    """The windows in `store`, and what reads them. `drift` is None for a shard without drift targets."""

    store: WindowStore
    evaluator: Evaluator
    observer: Observer
    coverage: Coverage
    evidence: EvidenceBuilder
    drift: ServiceDrift | None

    @classmethod
    def of(cls, specs: Sequence[TriggerSpec], targets: Sequence[DriftTarget], max_scopes: int) -> ShardWindows:
        """Empty windows of at most `max_scopes` scopes."""
        wanted = [*wants(specs), *fresh_wants(specs), *flip_wants(specs), *drift_wants(targets)]
        store = WindowStore(wanted, max_scopes=max_scopes, measures=measures(specs))
        evaluator = Evaluator(specs, store)
        observer = Observer(specs, store)
        coverage = Coverage(specs, store)
        evidence = EvidenceBuilder(specs, store, observer)
        return cls(store, evaluator, observer, coverage, evidence, ServiceDrift(targets, store) if targets else None)
