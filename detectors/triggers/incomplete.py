"""Verdicts of triggers whose windows lack too much: see `detectors.missing.missing_samples`."""

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


class _Verdicts(NamedTuple):
    """The verdicts of some triggers (p,), with value, threshold and samples.

    `mine` and `theirs` tell whether the trigger's own side and the control's were judged by some of their instances
    only.
    """

    verdict: NDArray[np.int8]
    value: Float
    threshold: Float
    samples: Int
    mine: Bool
    theirs: Bool


class IncompleteWindows:
    """Judges the windows that `own` and `control` read by the samples that they have."""

    def __init__(self, specs: Sequence[TriggerSpec], own: WindowReadings, control: WindowReadings) -> None:
        self._own, self._control = own, control
        self._greater = np.array([s.condition.op == ">" for s in specs], dtype=bool)
        self._limit = np.array([s.condition.value if s.threshold is None else s.threshold for s in specs])
        self._controlled = np.array([s.control_scope is not None for s in specs], dtype=bool)
        self._sequential = np.array([s.condition.sequential for s in specs], dtype=bool)
        self._min_samples = np.array([s.min_samples for s in specs], dtype=np.int64)

    def judge(self, own: Measured, control: Measured, threshold: Float, breach: Bool, truth: NDArray[np.int8]) -> None:
        """Enter verdicts for triggers that are unknown only because too much is missing on either side.

        `truth`, `breach`, `threshold` and the values and samples of `own` (each (triggers,)) are changed in place.
        Triggers that accumulate evidence have already left out what is missing (`detectors.triggers.bad_counts`).
        """
        lacking = (own.unknown == UnknownReason.MISSING) | (control.unknown == UnknownReason.MISSING)
        at = np.flatnonzero(lacking & _known_or_missing(own) & _known_or_missing(control))
        if not len(at):
            return
        found = self._verdicts(own, control, at, breach, whole=False)
        # Even if the others are well, all samples that were sent, with those of instances left out, may breach whatever
        # is missing.
        unsettled = np.flatnonzero((found.verdict != TRUE) & (found.mine | found.theirs) & ~self._sequential[at])
        if len(unsettled):
            again = self._verdicts(own, control, at[unsettled], breach, whole=True)
            certain = again.verdict == TRUE
            columns: Iterable[tuple[NDArray[Any], NDArray[Any]]] = zip(found, again, strict=True)
            for column, of_all in columns:
                column[unsettled[certain]] = of_all[certain]
        verdict, sequential = found.verdict, self._sequential[at]
        truth[at], breach[at] = verdict, verdict == TRUE
        known = verdict != UNKNOWN
        numbers = at[known & ~sequential]
        own.value[numbers] = found.value[known & ~sequential]
        threshold[numbers] = found.threshold[known & ~sequential]
        own.samples[at[known]] = np.where(sequential, own.samples[at], found.samples)[known]
        own.judged[at], control.judged[at] = known & found.mine, known & found.theirs

    def _verdicts(self, own: Measured, control: Measured, at: Int, breach: Bool, *, whole: bool) -> _Verdicts:
        """Return the verdicts of the triggers `at` (p,); with `whole`, from all samples of their windows."""
        mine, theirs = (
            self._side(readings, measured, at, whole=whole)
            for readings, measured in ((self._own, own), (self._control, control))
        )
        greater, sequential = self._greater[at], self._sequential[at]
        # The values least and most like a breach: for `>`, least is a low value of the variant and a high one of the
        # control.
        least = np.where(greater, mine.low, mine.high), self._thresholds(at, np.where(greater, theirs.high, theirs.low))
        most = np.where(greater, mine.high, mine.low), self._thresholds(at, np.where(greater, theirs.low, theirs.high))
        certain = np.where(sequential, breach[at], _beyond(greater, *least))
        possible = np.where(sequential, breach[at], _beyond(greater, *most) | np.isnan(most[0]) | np.isnan(most[1]))
        enough = (mine.samples >= self._min_samples[at]) & (
            ~self._controlled[at] | (theirs.samples >= self._min_samples[at])
        )
        judged = mine.judged & theirs.judged
        verdict = np.where(certain & (enough | judged), TRUE, np.where(judged & ~possible, FALSE, UNKNOWN)).astype(
            np.int8
        )
        value, threshold = (np.where(verdict == TRUE, *pair) for pair in zip(least, most, strict=True))
        return _Verdicts(
            verdict,
            value,
            threshold,
            mine.samples,
            mine.judged & (own.unknown[at] == UnknownReason.MISSING),
            theirs.judged & (control.unknown[at] == UnknownReason.MISSING),
        )

    def _side(self, readings: WindowReadings, measured: Measured, at: Int, *, whole: bool) -> ValueBounds:
        """Return one side of the triggers `at` (p,); if nothing is missing, its value is known and all of it is
        judged."""
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
