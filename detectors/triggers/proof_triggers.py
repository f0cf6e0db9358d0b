"""`METRIC@variant OP control`: the triggers that fire on proof that the variant is worse than the control.

They run the e-process of `detectors.sequential.canary_proof` on the bad requests of each second. The variant's share of
the requests is that of the same second. It does not depend on which requests failed, so if both arms are alike, the
variant's part of b bad requests is a draw without replacement: hypergeometric. The mean of a convex function such as
w^x is then no greater than for the binomial of the e-value (Hoeffding 1963, theorem 4). The share of earlier seconds
would be valid in a steady stage, but would turn each raise of the percentage into a proof.

A latency is bad above the control's own quantile, frozen when a stage begins: a limit that moved with the control would
measure past and present requests differently.

If an arm lacks too much of a second, only instances that lack no more than the tolerated share count in both arms, if
they have half of the arm's samples; else the second is no evidence. Which instances these are does not depend on how
requests ended, so the share among them is as valid as that of all. A second in which too many values of the metric's
field could not be read in an arm is no evidence. Counting missing samples as healthy in one arm and as bad in the other
would be safe too, but an outage of the brokers, in which everything is late, would then count against the proof for as
long as the version lasts.

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
    """The n proofs among `specs`; `at` (n,) are their trigger numbers. Arrays have shape (n,).

    `proven`, `evidence` (nats) and `since` (the second in which the evidence began) are as of the newest second.
    `mismatch` marks rows whose requests do not have the configured share, `open` rows whose latency limit is not frozen
    yet.
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
        """Set the share (0..1) of the requests that the variant of these rows (n,) should have; None if it is not
        known."""
        self._set_share[rows] = np.nan if share is None else share

    def reset(self, rows: Bool) -> None:
        """Restart these rows (n,): a new version of the flag is a new stage."""
        self._proof.reset(rows)
        self._ratio.reset(rows)
        self.proven[rows] = self.mismatch[rows] = False
        self.evidence[rows] = 0.0
        self.since[rows] = BEFORE
        self.open[rows] = self._quantile[rows] > 0

    def update(self, second: int, *, begin: Int, unattributed: Int | None = None) -> None:
        """Add the newest second. Requests before second `begin` (n,) are no evidence.

        Nor is anything while there are `unattributed` (n,) samples, which were rejected and may belong to either arm.
        """
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
            # Values that could not be read are not counted by instance.
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
            # How requests are shared does not depend on how many say how they ended, so all requests count.
            shared = np.stack([self._own.requests(), self._control.requests()])
            unsure = np.logical_or.reduce([nothing, *lost])
            seen = np.where(known & ~unsure, shared, 0)
            self.mismatch = self._ratio.update(second, seen, np.stack([wanted, 1 - wanted]))

    def state(self) -> Arrays:
        """Return copies of all its state, except the shares, which are set again."""
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
        """Continue from what `state` returned. Raises StateError, and changes nothing, if it does not fit."""
        arrays = checked_state(state, self.state())
        self._proof.restore(part(arrays, "proof"))
        self._ratio.restore(part(arrays, "ratio"))
        own = part(arrays, "own")
        self.open, self.proven, self.evidence = own["open"], own["proven"], own["evidence"]
        self.mismatch, self.since = own["mismatch"], own["since"]
        if self._own is not None and self._control is not None:
            self._own.first_bad_bin, self._control.first_bad_bin = own["bad"], own["control_bad"]

    def _freeze(self) -> None:
        """Freeze the control's quantile as the limit of rows that have none yet, if it has enough samples."""
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
        # The limit holds for the whole stage, so too many unreadable values must not distort it.
        ready = (samples >= self._least[rows]) & (100 * unread <= MOST_MISSING * (unread + samples))
        self._own.set_limit(rows[ready], value[ready])
        self._control.set_limit(rows[ready], value[ready])
        self.open[rows[ready]] = False
