"""The flags that a notable part of the requests does not carry, for health records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from detectors.conditions.spec import TriggerSpec
from detectors.missing.unflagged import FlagCoverage
from detectors.windows.store import WindowStore
from streams.monitor.health import WithoutFlag

LOOK_EVERY: Final = 10
"""Seconds of event time between two looks: a look at 2,000 scopes takes 3 ms."""

MOST_PUBLISHED: Final = 20


class Coverage:
    """Looks for the flags whose variants `specs` judge, in the display window of `store`."""

    def __init__(self, specs: Sequence[TriggerSpec], store: WindowStore) -> None:
        self._flags = FlagCoverage(specs, store)
        self._found: Sequence[WithoutFlag] = ()
        self._due = 0
        self._overflow = 0

    def at(self, t: int, overflow: int) -> Sequence[WithoutFlag]:
        """The flags to publish at evaluation `t`, from the newest look; those whose requests fail come first.

        `overflow` counts samples with a scope, such as a variant, for which ingest had no place. They look as if they
        carried no flag, so nothing is published while their number rises.
        """
        if t >= self._due:
            self._due = t - t % LOOK_EVERY + LOOK_EVERY
            found = sorted(self._flags.find(), key=lambda one: (not one.failing, -one.share, one[:3]))
            published = [WithoutFlag(*one) for one in found[:MOST_PUBLISHED]]
            self._found, self._overflow = ([] if overflow > self._overflow else published), overflow
        return self._found
