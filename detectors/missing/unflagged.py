"""Requests without a flag: they count for the service and for no variant, so no trigger `@variant` sees how they end.

Part of the traffic, such as probes or other routes, normally never evaluates the flag. Its share is published from 5 %
on. A smaller share is published too, as failing, if those requests fail and the others do not: a service that leaves
`flags` out of the samples of failed requests looks healthy in every variant, however bad a release is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from detectors.arrays import Int
from detectors.cells import ERRORS, NO_OUTCOME, REQUESTS
from detectors.conditions.spec import TriggerSpec
from detectors.missing.flag_slots import FlagSlots
from detectors.sequential.likelihood_ratio import PROOF, signed_likelihood_ratio
from detectors.windows.store import WindowStore

LEAST_SHARE: Final = 0.05
LEAST_REQUESTS: Final = 30
"""Fewest requests without the flag, in the display window, for which a share is published."""
LEAST_FAILED: Final = 10
FAR_ABOVE: Final = 3
"""Requests without the flag are published as failing if they fail this many times as often as the others."""

_COLUMNS: Final = (REQUESTS, ERRORS, NO_OUTCOME)


class Counted(NamedTuple):
    """Requests, those of them that failed, and those that do not say how they ended."""

    requests: int
    failed: int
    no_outcome: int

    @property
    def known(self) -> int:
        return max(self.requests - self.no_outcome, 0)

    @property
    def rate(self) -> float | None:
        """The share of failures (0 to 1); None if no outcome is known."""
        return min(self.failed / self.known, 1.0) if self.known else None


class Unflagged(NamedTuple):
    """`share` (0 to 1) of a service's requests do not carry the flag. The shares `failed` of these and `others_failed`
    of the others failed (0 to 1); None if no outcome is known. `failing`: far more of these failed than of the others.
    """

    environment: str
    service: str
    flag: str
    share: float
    failed: float | None
    others_failed: float | None
    failing: bool


def unflagged(of: tuple[str, str, str], whole: Counted, carried: Counted) -> Unflagged | None:
    """Return what to publish about the flag `of` (environment, service, flag): `carried` of the requests `whole` of its
    service have it. None if there is nothing to publish, or if no request carries the flag, which is not a matter of
    single requests.
    """
    without = Counted(*(max(mine - theirs, 0) for mine, theirs in zip(whole, carried, strict=True)))
    if not whole.requests or not carried.requests:
        return None
    share, rate, others = without.requests / whole.requests, without.rate, carried.rate
    failing = (
        rate is not None
        and others is not None
        and without.failed >= LEAST_FAILED
        and rate >= FAR_ABOVE * others
        and (signed_likelihood_ratio(without.failed, without.known, carried.failed, carried.known) or 0.0) >= PROOF
    )
    much = share >= LEAST_SHARE and without.requests >= LEAST_REQUESTS
    if not much and not (failing and without.failed >= carried.failed):
        return None
    return Unflagged(*of, share, rate, others, failing)


class FlagCoverage:
    """The flags whose variants `specs` judge, in the display window of `store`."""

    def __init__(self, specs: Sequence[TriggerSpec], store: WindowStore) -> None:
        self._store = store
        self._flags = FlagSlots(specs, store)
        self._unread = self._flags.unread_places()
        self._window = store.unread.window(store.display)

    def find(self) -> Iterator[Unflagged]:
        """Yield what to publish now; nothing while the store is full, because variants may then have no place in it."""
        store, flags = self._store, self._flags.flags
        if not flags or store.end is None or len(store.scopes()) >= store.max_scopes:
            return
        begin, (services, slots, of) = store.end - store.span(store.display), self._flags.places()
        whole = np.stack([store.by_second.read(services, c, begin, store.end).sum(axis=0) for c in _COLUMNS])
        carried = np.zeros((len(_COLUMNS), len(flags)), dtype=np.int64)
        for number, column in enumerate(_COLUMNS):
            np.add.at(carried[number], of, store.by_second.read(slots, column, begin, store.end).sum(axis=0))
        # Requests of unread variant do carry the flag. Which of them failed is not known, so all count as failed: that
        # understates the result rather than overstating it.
        unread: Int = self._window.read(self._unread)
        carried[:2] += unread
        lacking = (services >= 0) & (carried[0] > 0) & (whole[0] > carried[0])
        for number in np.flatnonzero(lacking).tolist():
            mine, theirs = Counted(*whole[:, number].tolist()), Counted(*carried[:, number].tolist())
            if (found := unflagged(flags[number], mine, theirs)) is not None:
                yield found
