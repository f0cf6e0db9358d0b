"""Rejected samples whose service could not be read, and the triggers in which they may be missing.

They may have been samples of any service of their topic. If they are more than 1 % of the samples that a topic received
in a window, they count as missing in windows of that length for every trigger of the topic's services.
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
    """Topics that rejected too many samples: a text for each, and in `mine` (topics, triggers) whose service it has."""

    shares: tuple[str, ...]
    mine: Bool


class Lost(NamedTuple):
    """How many `samples` (triggers,) may be missing in each trigger, by the length of the window in seconds."""

    samples: Mapping[int, Int]
    topics: Mapping[int, _Topics]

    def where(self, trigger: int, seconds: int) -> str:
        """The topics that rejected samples that may be of a trigger, as text; "" if no window has too many."""
        if seconds not in self.topics:
            return ""
        found = self.topics[seconds]
        shares = [share for share, mine in zip(found.shares, found.mine[:, trigger], strict=True) if mine]
        return f"{', '.join(shares)}, of any service" if shares else ""


class Unattributed:
    """Finds these samples for the triggers `specs` of a shard that reads `topics`."""

    def __init__(self, specs: Sequence[TriggerSpec], topics: Sequence[str]) -> None:
        self._looked_at = window_lengths(specs)
        services = list(dict.fromkeys((spec.environment, spec.service) for spec in specs))
        self._number = {service: number for number, service in enumerate(services)}
        self._of = np.array([self._number[spec.environment, spec.service] for spec in specs], dtype=np.int64)
        self._topics = {topic: number for number, topic in enumerate(dict.fromkeys(topics))}
        # A single topic has every service.
        self._served = np.full((len(self._topics), len(services)), len(self._topics) == 1)

    def note(self, batch: PartialBatch) -> None:
        """Note which services have samples in which topic, if there are several topics."""
        if len(self._topics) < 2 or not len(batch.cells):
            return
        topics = np.array([self._topics.get(head.source.topic, -1) for head in batch.heads], dtype=np.int64)
        number = [self._number.get(scope[:2], -1) for scope in batch.cells.scopes]
        topic, service = topics[batch.record], np.array(number, dtype=np.int64)[batch.cells.scope]
        kept = (topic >= 0) & (service >= 0)
        self._served[topic[kept], service[kept]] = True

    def lost(self, unread: UnreadLog, end: int) -> Lost:
        """The samples that may be missing in the triggers' windows that end at `end`."""
        samples, topics = {}, {}
        for seconds in self._looked_at:
            too_many = {
                topic: one
                for topic, one in unread.over(end, seconds).items()
                if topic in self._topics and 100 * one.rejected > MOST_MISSING * one.received
            }
            if not too_many or not len(self._of):
                continue
            served = self._served[[self._topics[topic] for topic in too_many]]
            services = served.T @ np.array([one.rejected for one in too_many.values()], dtype=np.int64)
            shares = tuple(
                f"{100 * n / max(whole, 1):.3g} % of topic {topic}" for topic, (whole, n) in too_many.items()
            )
            samples[seconds], topics[seconds] = services[self._of], _Topics(shares, served[:, self._of])
        return Lost(samples, topics)
