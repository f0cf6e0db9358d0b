"""Which flags a notable part of the requests does not carry, for health records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from detectors.conditions.spec import TriggerSpec
from detectors.missing.unflagged import FlagCoverage
from detectors.windows.store import WindowStore
from streams.monitor.health import WithoutFlag

LOOK_EVERY: Final = 10
"""Seconds of event time from one look to the next: a look at 2,000 scopes takes 3 ms."""

MOST_TOLD: Final = 20


class Coverage:
    """The flags of which `specs` judge a variant, in the display window of `store`."""

    def __init__(self, specs: Sequence[TriggerSpec], store: WindowStore) -> None:
        self._flags = FlagCoverage(specs, store)
        self._found: Sequence[WithoutFlag] = ()
        self._due = 0
        self._overflow = 0

    def at(self, t: int, overflow: int) -> Sequence[WithoutFlag]:
        """What is to be told at evaluation `t`, of the newest look: those whose requests fail first.

        `overflow` counts samples with a scope for which ingest had no place, such as a variant: they look as if they
        carried no flag, so that nothing is told while there are more and more.
        """
        if t >= self._due:
            self._due = t - t % LOOK_EVERY + LOOK_EVERY
            found = sorted(self._flags.find(), key=lambda one: (not one.failing, -one.share, one[:3]))
            told = [WithoutFlag(*one) for one in found[:MOST_TOLD]]
            self._found, self._overflow = ([] if overflow > self._overflow else told), overflow
        return self._found
