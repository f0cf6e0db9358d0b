"""The verdicts of an evaluation, in a form that tests can compare."""

from __future__ import annotations

from math import isnan
from typing import NamedTuple

from detectors.triggers.evaluation import STATES, Evaluation


class Row(NamedTuple):
    """One trigger's verdict; None stands for no number."""

    state: str
    value: float | None
    threshold: float | None
    samples: int
    reason: str


def rows_of(found: Evaluation) -> list[Row]:
    """The verdict of every trigger, in order."""
    numbers = (a.tolist() for a in (found.state, found.value, found.threshold, found.samples))
    return [
        Row(STATES[state], None if isnan(value) else value, None if isnan(threshold) else threshold, samples, reason)
        for state, value, threshold, samples, reason in zip(*numbers, found.reasons(), strict=True)
    ]
