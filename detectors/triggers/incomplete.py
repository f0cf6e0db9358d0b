"""Verdicts of triggers in whose windows too much is missing: see `detectors.missing.missing_samples`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.arrays import Bool, Float, Int
from detectors.conditions.spec import TriggerSpec
from detectors.missing.unknown_reason import UnknownReason
from detectors.triggers.evaluation import Measured
from detectors.triggers.state_machine import FALSE, TRUE, UNKNOWN
from detectors.triggers.window_readings import ValueBounds, WindowReadings


class _Said(NamedTuple):
    """Of some triggers (p,): what is said, of which value and threshold and of how many samples, and whether it is of
    the instances that can be judged: of `mine`, the trigger's own, and of `theirs`, the control's.
    """

    said: NDArray[np.int8]
    value: Float
    threshold: Float
    samples: Int
    mine: Bool
    theirs: Bool


class IncompleteWindows:
    """Judges what is there of the windows that `own` and `control` read."""

    def __init__(self, specs: Sequence[TriggerSpec], own: WindowReadings, control: WindowReadings) -> None:
        self._own, self._control = own, control
        self._greater = np.array([s.condition.op == ">" for s in specs], dtype=bool)
        self._limit = np.array([s.condition.value if s.threshold is None else s.threshold for s in specs])
        self._controlled = np.array([s.control_scope is not None for s in specs], dtype=bool)
        self._sequential = np.array([s.condition.sequential for s in specs], dtype=bool)
        self._min_samples = np.array([s.min_samples for s in specs], dtype=np.int64)

    def settle(self, own: Measured, control: Measured, threshold: Float, breach: Bool, truth: NDArray[np.int8]) -> None:
        """Put in what can be said where too much is missing on either side, and nothing else is in doubt.

        `truth`, `breach`, `threshold` and the values and samples of `own` (each (triggers,)) are changed there. What
        gathers its evidence second by second (`detectors.triggers.bad_counts`) has left out by itself what is missing.
        """
        lacking = (own.unknown == UnknownReason.MISSING) | (control.unknown == UnknownReason.MISSING)
        at = np.flatnonzero(lacking & _known_or_missing(own) & _known_or_missing(control))
        if not len(at):
            return
        found = self._said(own, control, at, breach, whole=False)
        # That others are well says nothing of those left out: what they did send may breach whatever is missing.
        doubtful = np.flatnonzero((found.said != TRUE) & (found.mine | found.theirs) & ~self._sequential[at])
        if len(doubtful):
            again = self._said(own, control, at[doubtful], breach, whole=True)
            certain = again.said == TRUE
            columns: Iterable[tuple[NDArray[Any], NDArray[Any]]] = zip(found, again, strict=True)
            for column, of_all in columns:
                column[doubtful[certain]] = of_all[certain]
        said, sequential = found.said, self._sequential[at]
        truth[at], breach[at] = said, said == TRUE
        told = said != UNKNOWN
        numbers = at[told & ~sequential]
        own.value[numbers] = found.value[told & ~sequential]
        threshold[numbers] = found.threshold[told & ~sequential]
        own.samples[at[told]] = np.where(sequential, own.samples[at], found.samples)[told]
        own.judged[at], control.judged[at] = told & found.mine, told & found.theirs

    def _said(self, own: Measured, control: Measured, at: Int, breach: Bool, *, whole: bool) -> _Said:
        """What can be said of the triggers `at` (p,): of all that their windows have, if `whole`."""
        mine, theirs = (
            self._side(readings, measured, at, whole=whole)
            for readings, measured in ((self._own, own), (self._control, control))
        )
        greater, sequential = self._greater[at], self._sequential[at]
        # Least like a breach, and most like one: for `>` a low value of the variant and a high one of the control.
        least = np.where(greater, mine.low, mine.high), self._thresholds(at, np.where(greater, theirs.high, theirs.low))
        most = np.where(greater, mine.high, mine.low), self._thresholds(at, np.where(greater, theirs.low, theirs.high))
        certain = np.where(sequential, breach[at], _beyond(greater, *least))
        possible = np.where(sequential, breach[at], _beyond(greater, *most) | np.isnan(most[0]) | np.isnan(most[1]))
        enough = (mine.samples >= self._min_samples[at]) & (
            ~self._controlled[at] | (theirs.samples >= self._min_samples[at])
        )
        judged = mine.judged & theirs.judged
        said = np.where(certain & (enough | judged), TRUE, np.where(judged & ~possible, FALSE, UNKNOWN)).astype(np.int8)
        value, threshold = (np.where(said == TRUE, *pair) for pair in zip(least, most, strict=True))
        return _Said(
            said,
            value,
            threshold,
            mine.samples,
            mine.judged & (own.unknown[at] == UnknownReason.MISSING),
            theirs.judged & (control.unknown[at] == UnknownReason.MISSING),
        )

    def _side(self, readings: WindowReadings, measured: Measured, at: Int, *, whole: bool) -> ValueBounds:
        """One side of the triggers `at` (p,); where nothing is missing its value is known, and all is judged."""
        value = measured.value[at]
        side = ValueBounds(value.copy(), value.copy(), np.ones(len(at), dtype=bool), measured.samples[at].copy())
        lacking = np.flatnonzero(measured.unknown[at] == UnknownReason.MISSING)
        if len(lacking):
            found = readings.incomplete(measured, at[lacking], whole=whole)
            for column, part in zip(side, found, strict=True):
                column[lacking] = part
        return side

    def _thresholds(self, at: Int, control: Float) -> Float:
        result: Float = self._limit[at] * np.where(self._controlled[at], control, 1.0)
        return result


def _known_or_missing(side: Measured) -> Bool:
    result: Bool = (side.unknown == UnknownReason.NONE) | (side.unknown == UnknownReason.MISSING)
    return result


def _beyond(greater: Bool, value: Float, threshold: Float) -> Bool:
    result: Bool = np.where(greater, value > threshold, value < threshold)
    return result
