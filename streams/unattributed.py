"""Rejected samples of which not even the service could be read, and in which triggers they may be missing.

They may have been of any service of their topic. Where they are more than 1 % of what a topic received in the last
minute, they count as missing for every trigger of its services.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from detectors.cells import Int
from detectors.missing import MOST_MISSING, Bool
from detectors.spec import TriggerSpec
from streams.partials import Batch
from streams.slices import Source
from streams.unread import Unread

LOOKED_BACK: Final = 60


class Lost(NamedTuple):
    """`samples` (triggers,) that may have been a trigger's; None where there are none.

    `shares` are words for each topic that rejected too many, `mine` (topics, triggers) says whose services it has.
    """

    samples: Int | None
    shares: tuple[str, ...] = ()
    mine: Bool | None = None

    def where(self, trigger: int) -> str:
        """Which topics rejected those of a trigger, for people."""
        if self.mine is None:
            return ""
        shares = [share for share, mine in zip(self.shares, self.mine[:, trigger], strict=True) if mine]
        return f"{', '.join(shares)}, of any service" if shares else ""


class Unattributed:
    """The triggers `specs` of a shard that reads `topics`."""

    def __init__(self, specs: Sequence[TriggerSpec], topics: Sequence[str]) -> None:
        services = list(dict.fromkeys((spec.environment, spec.service) for spec in specs))
        self._number = {service: number for number, service in enumerate(services)}
        self._of = np.array([self._number[spec.environment, spec.service] for spec in specs], dtype=np.int64)
        self._topics = {topic: number for number, topic in enumerate(dict.fromkeys(topics))}
        # Of one topic alone every service is.
        self._served = np.full((len(self._topics), len(services)), len(self._topics) == 1)

    def note(self, batch: Batch) -> None:
        """Note which services come from which topic, where there are several."""
        if len(self._topics) < 2 or not len(batch.cells):
            return
        topics = np.array([self._topics.get(word.source.topic, -1) for word in batch.words], dtype=np.int64)
        number = [self._number.get(scope[:2], -1) for scope in batch.cells.scopes]
        topic, service = topics[batch.record], np.array(number, dtype=np.int64)[batch.cells.scope]
        kept = (topic >= 0) & (service >= 0)
        self._served[topic[kept], service[kept]] = True

    def lost(self, unread: Mapping[Source, Unread]) -> Lost:
        """What may be missing, `unread` being what each source partition rejected in the last `LOOKED_BACK` seconds."""
        received = dict.fromkeys(self._topics, 0)
        rejected = dict.fromkeys(self._topics, 0)
        for source, found in unread.items():
            if source.topic in received:
                received[source.topic] += found.received
                rejected[source.topic] += found.rejected
        much = [topic for topic in self._topics if 100 * rejected[topic] > MOST_MISSING * received[topic]]
        if not much or not len(self._of):
            return Lost(None)
        served = self._served[[self._topics[topic] for topic in much]]
        services = served.T @ np.array([rejected[topic] for topic in much], dtype=np.int64)
        shares = (f"{100 * rejected[topic] / max(received[topic], 1):.3g} % of topic {topic}" for topic in much)
        return Lost(services[self._of], tuple(shares), served[:, self._of])


def by_topic(unread: Mapping[Source, Unread]) -> dict[str, tuple[int, int]]:
    """What was received and rejected, by topic."""
    found: dict[str, tuple[int, int]] = {}
    for source, one in unread.items():
        received, rejected = found.get(source.topic, (0, 0))
        found[source.topic] = received + one.received, rejected + one.rejected
    return found
