"""`METRIC@variant OP control`: the triggers that want proof that the variant is worse than the control.

The e-process of `detectors.sequential.canary_proof` on the bad requests of each second. The variant's share of the
requests is that of the same second. It is known without regard to which of them failed, so that of b bad ones the
variant's are, when both arms are alike, a draw without replacement: hypergeometric, and the mean of a convex function
such as w^x is then no greater than for the binomial of the e-value (Hoeffding 1963, theorem 4). The share of earlier
seconds would do too in a steady stage, but would call each raise of the percentage a proof.

A latency is bad above the control's own quantile, frozen when a stage begins: a limit that moved with the control would
count the past with one measure and the present with another.

Of a second of which too much is missing in an arm, those instances count in both arms of which no more is missing than
may be overlooked, if they have half of the arm's samples; else the second is no evidence. Which instances these are
does not depend on how requests ended, so that the share among them is as good as that of all. A second in which too
many values of the metric's field could not be read in an arm is no evidence. To take what is missing
for healthy in one arm and for bad in the other would be safe too, but an outage of the brokers, which is all late,
would then speak against the proof for as long as the version lasts.

    Hoeffding: Probability inequalities for sums of bounded random variables. JASA 58 (1963).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.arrays import Bool, Int
from detectors.conditions.spec import PROOF_WINDOW, TriggerSpec, samples_beyond
from detectors.missing.missing_samples import MOST_MISSING
from detectors.sequential.canary_proof import CanaryProof, CanaryProofConfig
from detectors.sequential.sample_ratio import SampleRatio, SampleRatioConfig
from detectors.state import BEFORE, Arrays, checked_state, part, prefixed
from detectors.triggers.bad_counts import BadCounts
from detectors.windows.metrics import compute
from detectors.windows.store import WindowStore
from detectors.windows.unreadable import unreadable_of


class ProofTriggers:
    """The proofs among `specs`, n of them; `at` (n,) are their numbers. Arrays have shape (n,).

    `proven`, `evidence` (nats) and `since`, the second with which the evidence began, are those of the newest second.
    `mismatch` says where the requests are not shared as was told, `open` where the limit of a latency is not taken yet.
    """

    def __init__(self, specs: Sequence[TriggerSpec], store: WindowStore) -> None:
        chosen = [(i, s, control) for i, s in enumerate(specs) if s.condition.proof and (control := s.control_scope)]
        n = len(chosen)
        self.at = np.array([i for i, _, _ in chosen], dtype=np.int64)
        self._store = store
        self._own = BadCounts(store, [(spec, spec.scope) for _, spec, _ in chosen]) if n else None
        self._control = BadCounts(store, [(spec, scope) for _, spec, scope in chosen]) if n else None
        self._control_rows = np.array([store.row(scope, PROOF_WINDOW) for _, _, scope in chosen], dtype=np.int64)
        self._unread_in = store.unread.window(PROOF_WINDOW)
        self._unread = np.array(
            [store.unread.place(scope, unreadable_of(spec.condition)) for _, spec, scope in chosen], dtype=np.int64
        )
        self._quantile = np.array([spec.condition.quantile or 0.0 for _, spec, _ in chosen])
        self._least = np.array(
            [samples_beyond(spec.condition.quantile or 0.0) for _, spec, _ in chosen], dtype=np.int64
        )
        self.open = self._quantile > 0
        self._proof = CanaryProof(n, CanaryProofConfig())
        self._ratio = SampleRatio(n, 2, SampleRatioConfig())
        self._set_share = np.full(n, np.nan)
        self.bound = self._proof.bound
        self.proven = np.zeros(n, dtype=np.bool_)
        self.evidence = np.zeros(n)
        self.mismatch = np.zeros(n, dtype=np.bool_)
        self.since = np.full(n, BEFORE, dtype=np.int64)

    def set_share(self, rows: Bool, share: float | None) -> None:
        """The variant of these rows (n,) should have this share (0..1) of the requests; None where it is not known."""
        self._set_share[rows] = np.nan if share is None else share

    def reset(self, rows: Bool) -> None:
        """Begin anew in these rows (n,): a new version of the flag is a new stage."""
        self._proof.reset(rows)
        self._ratio.reset(rows)
        self.proven[rows] = self.mismatch[rows] = False
        self.evidence[rows] = 0.0
        self.since[rows] = BEFORE
        self.open[rows] = self._quantile[rows] > 0

    def update(self, second: int, *, begin: Int, unattributed: Int | None = None) -> None:
        """Take in the newest second; what happened before the second `begin` is no evidence. Nor is anything while
        requests that may have been anybody's could not be read, `unattributed` (n,)."""
        if self._own is None or self._control is None:
            return
        self._freeze()
        own_bad, own = self._own.read()
        control_bad, control = self._control.read()
        nothing = (begin > second) | self.open
        missing = [found for side in (self._own, self._control) if (found := side.missing()) is not None]
        lost = [found.much for found in missing]
        if lost:
            at = np.flatnonzero(np.logical_or.reduce(lost))
            own_bad[at], _, own[at] = self._own.judged(at)
            _, control_bad[at], control[at] = self._control.judged(at)
            nothing[at] |= (own[at] == 0) | (control[at] == 0)
            # Of values that could not be read it is not known whose they were.
            nothing |= np.logical_or.reduce([found.much_unread for found in missing])
        if unattributed is not None:
            nothing |= unattributed > 0
        for counts in (own_bad, own, control_bad, control):
            counts[nothing] = 0
        both = (own > 0) & (control > 0)
        share = np.divide(own, own + control, where=both, out=np.zeros(len(own)))
        self.since[both & (self.since == BEFORE)] = second
        self.proven = self._proof.update(second, own_bad, control_bad, share)
        self.evidence = self._proof.evidence
        known = ~np.isnan(self._set_share)
        if known.any():
            wanted = np.where(known, self._set_share, 0.5)
            # How the requests are shared does not depend on how many of them say how they ended.
            shared = np.stack([self._own.requests(), self._control.requests()])
            unsure = np.logical_or.reduce([nothing, *lost])
            seen = np.where(known & ~unsure, shared, 0)
            self.mismatch = self._ratio.update(second, seen, np.stack([wanted, 1 - wanted]))

    def state(self) -> Arrays:
        """Copies of all that it remembers. The shares that are set are told anew."""
        own = {
            "open": self.open.copy(),
            "proven": self.proven.copy(),
            "evidence": self.evidence.copy(),
            "mismatch": self.mismatch.copy(),
            "since": self.since.copy(),
        }
        if self._own is not None and self._control is not None:
            own |= {"bad": self._own.first_bad_bin.copy(), "control_bad": self._control.first_bad_bin.copy()}
        return prefixed(own=own, proof=self._proof.state(), ratio=self._ratio.state())

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what `state` gave. Raises StateError, and changes nothing, when that does not fit."""
        arrays = checked_state(state, self.state())
        self._proof.restore(part(arrays, "proof"))
        self._ratio.restore(part(arrays, "ratio"))
        own = part(arrays, "own")
        self.open, self.proven, self.evidence = own["open"], own["proven"], own["evidence"]
        self.mismatch, self.since = own["mismatch"], own["since"]
        if self._own is not None and self._control is not None:
            self._own.first_bad_bin, self._control.first_bad_bin = own["bad"], own["control_bad"]

    def _freeze(self) -> None:
        """Take the control's quantile where none was taken yet and it has samples enough."""
        rows = np.flatnonzero(self.open)
        if not len(rows) or self._own is None or self._control is None:
            return
        value, samples = compute(
            self._store,
            PROOF_WINDOW,
            "latency_quantile",
            self._control_rows[rows],
            quantile=self._quantile[rows],
        )
        unread = self._unread_in.read(self._unread[rows])
        # Frozen for the whole stage, so not of what may be another one.
        ready = (samples >= self._least[rows]) & (100 * unread <= MOST_MISSING * (unread + samples))
        self._own.set_limit(rows[ready], value[ready])
        self._control.set_limit(rows[ready], value[ready])
        self.open[rows[ready]] = False
