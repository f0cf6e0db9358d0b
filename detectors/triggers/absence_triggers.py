"""`absence@variant`: the triggers that fire if a variant has fallen silent while the control has traffic.

The evidence of `detectors.sequential.absence` needs the variant's share of the requests. If the flag's percentage is
not known, the share is estimated from the requests before the variant fell silent: requests weigh less with age, half
after 60 seconds in which the variant had some, and two standard errors are subtracted, so that chance in few requests
causes no absence. A variant with fewer than 30 requests is not judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.arrays import Bool, Int
from detectors.cells import LATE, REJECTED, REQUESTS
from detectors.conditions.spec import MIN_SAMPLES, TriggerSpec
from detectors.missing.missing_samples import Missing, missing_of
from detectors.missing.unknown_reason import UnknownReason
from detectors.sequential.absence import Absence, AbsenceConfig
from detectors.state import BEFORE, Arrays, checked_state, part, prefixed
from detectors.triggers.bad_counts import BadCounts
from detectors.windows.store import WindowStore

HALF_LIFE = 60
"""Seconds with requests of the variant after which a request weighs half in the share."""


class AbsenceTriggers:
    """The n absences among `specs`; `at` (n,) are their trigger numbers. Arrays have shape (n,).

    `absent`, `evidence` (nats), `share` (0..1, 0 if it is not known), `missed` (requests of the control since the
    variant's last one) and `since` (the second after that one) are as of the newest second.
    """

    def __init__(self, specs: Sequence[TriggerSpec], store: WindowStore) -> None:
        chosen = [
            (i, s, control)
            for i, s in enumerate(specs)
            if s.condition.metric == "absence" and (control := s.control_scope)
        ]
        n = len(chosen)
        self.at = np.array([i for i, _, _ in chosen], dtype=np.int64)
        self._own = BadCounts(store, [(spec, spec.scope) for _, spec, _ in chosen]) if n else None
        self._control = BadCounts(store, [(spec, scope) for _, spec, scope in chosen]) if n else None
        if n:
            # All have the window length of the condition.
            self._over = store.window(chosen[0][1].condition.over)
        self._rows = (
            np.array(
                [
                    [store.row(scope, spec.condition.over) for scope in (spec.scope, control)]
                    for _, spec, control in chosen
                ],
                dtype=np.int64,
            )
            .reshape(-1, 2)
            .T
        )
        gammas = np.array([spec.false_alarms for _, spec, _ in chosen], dtype=np.float64)
        self._detectors = [
            (rows, Absence(len(rows), AbsenceConfig(gamma=float(gamma))))
            for gamma in np.unique(gammas)
            for rows in (np.flatnonzero(gammas == gamma),)
        ]
        self.bound = np.log(gammas)
        self.slots = np.array([store.slot(spec.scope) for _, spec, _ in chosen], dtype=np.int64)
        self.over = np.array([spec.condition.over for _, spec, _ in chosen], dtype=np.int64)
        self._unattributed: Int | None = None
        self._variant: Int | None = None
        self._set_share = np.full(n, np.nan)
        self._seen = np.zeros((2, n))
        self.absent = np.zeros(n, dtype=np.bool_)
        self.evidence = np.zeros(n)
        self.missed = np.zeros(n, dtype=np.int64)
        self.since = np.full(n, BEFORE, dtype=np.int64)

    @property
    def share(self) -> NDArray[np.float64]:
        """The variant's share (0..1) of the requests, (n,): the configured one, or a cautious estimate; 0 if it is not
        known."""
        own, control = self._seen
        cautious = np.where(
            own >= MIN_SAMPLES, np.maximum(own - 2 * np.sqrt(own), 0) / np.maximum(own + control, 1), 0.0
        )
        # The configured percentage holds only after a first request: when a rollout begins, the variant has none yet.
        return np.where(np.isnan(self._set_share) | (own == 0), cautious, self._set_share)

    @property
    def missing(self) -> Missing | None:
        """What is missing in the windows of both arms, each (n,); None if nothing is."""
        sums = self._over.sums
        if (
            self._unattributed is None
            and self._variant is None
            and not any(sums[column].any() for column in (LATE, REJECTED))
        ):
            return None
        both = missing_of(lambda column: sums[column][self._rows].sum(axis=0), outcome=False)
        given = {"unattributed": self._unattributed, "variant": self._variant}
        return both._replace(**{name: lost for name, lost in given.items() if lost is not None})

    def unknown(self, missing: Missing | None) -> NDArray[np.int8]:
        """Return the `UnknownReason` of each row, given what is `missing`."""
        own, control = self._rows
        much = np.zeros(len(own), dtype=np.bool_) if missing is None else missing.much
        for lost in (self._unattributed, self._variant):
            if lost is not None:
                much = much | (lost > 0)
        return np.select(
            [
                (own < 0) | (control < 0),
                much,
                self.share == 0,
                self._over.sums[REQUESTS][control] == 0,
            ],
            [UnknownReason.NOT_KEPT, UnknownReason.MISSING, UnknownReason.NO_SHARE, UnknownReason.SILENT],
            UnknownReason.NONE,
        ).astype(np.int8)

    def set_share(self, rows: Bool, share: float | None) -> None:
        """Set the share (0..1) of the requests that the variant of these rows (n,) should have; None if it is not
        known."""
        self._set_share[rows] = np.nan if share is None else share

    def reset(self, rows: Bool) -> None:
        """Restart these rows (n,): another version of the flag has another share."""
        for own, detector in self._detectors:
            detector.reset(rows[own])
        self._seen[:, rows] = 0
        self.absent[rows] = False
        self.evidence[rows] = 0.0
        self.missed[rows] = 0
        self.since[rows] = BEFORE

    def state(self) -> Arrays:
        """Return copies of all its state, except the shares, which are set again."""
        own = {
            "seen": self._seen.copy(),
            "absent": self.absent.copy(),
            "evidence": self.evidence.copy(),
            "missed": self.missed.copy(),
            "since": self.since.copy(),
        }
        silent = {f"silent{i}": detector.state() for i, (_, detector) in enumerate(self._detectors)}
        return prefixed(own=own, **silent)

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from what `state` returned. Raises StateError, and changes nothing, if it does not fit."""
        arrays = checked_state(state, self.state())
        for i, (_, detector) in enumerate(self._detectors):
            detector.restore(part(arrays, f"silent{i}"))
        own = part(arrays, "own")
        self._seen, self.absent, self.evidence = own["seen"], own["absent"], own["evidence"]
        self.missed, self.since = own["missed"], own["since"]

    def update(self, second: int, *, begin: Int, unattributed: Int | None = None, variant: Int | None = None) -> None:
        """Add the newest second. Requests before second `begin` (n,) are no evidence.

        `unattributed` (n,) rejected samples, and `variant` (n,) requests of unread variant, may belong to the variant:
        while there are any, it is not absent.
        """
        if self._own is None or self._control is None:
            return
        self._unattributed, self._variant = unattributed, variant
        (_, own), (_, control) = self._own.read(), self._control.read()
        missing = self._own.missing()
        if missing is not None:
            # A variant whose samples are late or rejected is not silent. For the control such samples are no evidence.
            own = own + missing.late + missing.rejected
        own[begin > second] = control[begin > second] = 0
        share = self.share
        for rows, detector in self._detectors:
            self.absent[rows] = detector.update(second, own[rows], control[rows], share[rows])
            self.evidence[rows] = detector.evidence
        for lost in (unattributed, variant):
            if lost is not None:
                self.absent &= lost == 0
        heard = own > 0
        # Requests of the control in seconds without the variant count in the share only when the variant is back.
        missed = self.missed + control
        fading = 0.5 ** (1 / HALF_LIFE)
        self._seen = np.where(heard, fading * self._seen + np.stack([own, missed]), self._seen)
        self.missed = np.where(heard, 0, missed)
        self.since[heard] = second + 1
