"""Requests that carry no flag: of the service, and of no variant, so that no trigger `@variant` sees how they end.

It is normal that part of the traffic never asks for the flag, such as probes or other routes. It is published from 5 %
on. It is published below that too, and as failing, if those requests fail and the others do not: a service that leaves
`flags` out of the samples of failed requests looks well in every variant, however bad a release is.
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
"""Requests without the flag, in the display window, of which a share means something."""
LEAST_FAILED: Final = 10
FAR_ABOVE: Final = 3
"""Requests without the flag are published as failing if they fail this many times as often as the others."""

_COLUMNS: Final = (REQUESTS, ERRORS, NO_OUTCOME)


class Counted(NamedTuple):
    """Requests, those of them that failed, and those of which it is not told how they ended."""

    requests: int
    failed: int
    no_outcome: int

    @property
    def known(self) -> int:
        return max(self.requests - self.no_outcome, 0)

    @property
    def rate(self) -> float | None:
        """The share of failures (0 to 1); None where nothing is told."""
        return min(self.failed / self.known, 1.0) if self.known else None


class Unflagged(NamedTuple):
    """`share` (0 to 1) of a service's requests carry no such flag. Of these `failed` (0 to 1) failed, of the others
    `others_failed`; None where nothing tells. `failing`: far more of them than of the others.
    """

    environment: str
    service: str
    flag: str
    share: float
    failed: float | None
    others_failed: float | None
    failing: bool


def unflagged(of: tuple[str, str, str], whole: Counted, carried: Counted) -> Unflagged | None:
    """What is to be told of the flag `of` (environment, service, flag): of the requests `whole` of its service,
    `carried` have it. None where there is nothing to tell, or none carries it, which is no matter of single requests.
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
    """The flags of which `specs` judge a variant, in the display window of `store`."""

    def __init__(self, specs: Sequence[TriggerSpec], store: WindowStore) -> None:
        self._store = store
        self._flags = FlagSlots(specs, store)
        self._unread = self._flags.unread_places()
        self._window = store.unread.window(store.display)

    def find(self) -> Iterator[Unflagged]:
        """What is to be told now; nothing of flags whose variants may have found no place in the store."""
        store, flags = self._store, self._flags.flags
        if not flags or store.end is None or len(store.scopes()) >= store.max_scopes:
            return
        begin, (services, slots, of) = store.end - store.span(store.display), self._flags.places()
        whole = np.stack([store.by_second.read(services, c, begin, store.end).sum(axis=0) for c in _COLUMNS])
        carried = np.zeros((len(_COLUMNS), len(flags)), dtype=np.int64)
        for number, column in enumerate(_COLUMNS):
            np.add.at(carried[number], of, store.by_second.read(slots, column, begin, store.end).sum(axis=0))
        # They do carry the flag. Nobody knows which failed, so all count as failed: the note rather understates.
        unread: Int = self._window.read(self._unread)
        carried[:2] += unread
        lacking = (services >= 0) & (carried[0] > 0) & (whole[0] > carried[0])
        for number in np.flatnonzero(lacking).tolist():
            mine, theirs = Counted(*whole[:, number].tolist()), Counted(*carried[:, number].tolist())
            if (found := unflagged(flags[number], mine, theirs)) is not None:
                yield found
