"""Rejected samples of which not even the service could be read, and in which triggers they may be missing.

They may have been of any service of their topic. Where they are more than 1 % of what a topic received in a window,
they count as missing in windows of that length for every trigger of its services.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from detectors.arrays import Bool, Int
from detectors.conditions.spec import TriggerSpec
from detectors.missing.missing_samples import MOST_MISSING
from detectors.missing.unattributed import window_lengths
from streams.monitor.unread import UnreadLog
from streams.partials.batch import PartialBatch


class _Topics(NamedTuple):
    """Those that rejected too many: words for each, and whose services it has: `mine` is (topics, triggers)."""

    shares: tuple[str, ...]
    mine: Bool


class Lost(NamedTuple):
    """`samples` (triggers,) that may have been a trigger's, by the seconds of the window that lacks them."""

    samples: Mapping[int, Int]
    topics: Mapping[int, _Topics]

    def where(self, trigger: int, seconds: int) -> str:
        """Which topics rejected those of a trigger in a window, for people."""
        if seconds not in self.topics:
            return ""
        found = self.topics[seconds]
        shares = [share for share, mine in zip(found.shares, found.mine[:, trigger], strict=True) if mine]
        return f"{', '.join(shares)}, of any service" if shares else ""


class Unattributed:
    """The triggers `specs` of a shard that reads `topics`."""

    def __init__(self, specs: Sequence[TriggerSpec], topics: Sequence[str]) -> None:
        self._looked_at = window_lengths(specs)
        services = list(dict.fromkeys((spec.environment, spec.service) for spec in specs))
        self._number = {service: number for number, service in enumerate(services)}
        self._of = np.array([self._number[spec.environment, spec.service] for spec in specs], dtype=np.int64)
        self._topics = {topic: number for number, topic in enumerate(dict.fromkeys(topics))}
        # Of one topic alone every service is.
        self._served = np.full((len(self._topics), len(services)), len(self._topics) == 1)

    def note(self, batch: PartialBatch) -> None:
        """Note which services come from which topic, where there are several."""
        if len(self._topics) < 2 or not len(batch.cells):
            return
        topics = np.array([self._topics.get(word.source.topic, -1) for word in batch.heads], dtype=np.int64)
        number = [self._number.get(scope[:2], -1) for scope in batch.cells.scopes]
        topic, service = topics[batch.record], np.array(number, dtype=np.int64)[batch.cells.scope]
        kept = (topic >= 0) & (service >= 0)
        self._served[topic[kept], service[kept]] = True

    def lost(self, unread: UnreadLog, end: int) -> Lost:
        """What may be missing in the windows of the triggers that end at `end`."""
        samples, topics = {}, {}
        for seconds in self._looked_at:
            much = {
                topic: one
                for topic, one in unread.over(end, seconds).items()
                if topic in self._topics and 100 * one.rejected > MOST_MISSING * one.received
            }
            if not much or not len(self._of):
                continue
            served = self._served[[self._topics[topic] for topic in much]]
            services = served.T @ np.array([one.rejected for one in much.values()], dtype=np.int64)
            shares = tuple(f"{100 * n / max(whole, 1):.3g} % of topic {topic}" for topic, (whole, n) in much.items())
            samples[seconds], topics[seconds] = services[self._of], _Topics(shares, served[:, self._of])
        return Lost(samples, topics)
