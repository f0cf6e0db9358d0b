"""A sample: one observed request, or a number of equal ones, and what it adds to the statistics.

docs/telemetry-formats.md lists the fields and their limits. The limits below hold for every format, so that the same
samples give the same cells in any of them.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, cast

import msgspec
import numpy as np
from msgspec import Meta

from detectors.arrays import Int
from detectors.cells import (
    CACHE_HITS,
    CACHE_LOOKUPS,
    COUNTS,
    ERRORS,
    LATE,
    NO_OUTCOME,
    REJECTED,
    REQUESTS,
    TIMEOUTS,
    UNAVAILABLE,
)

DEFAULT_ENVIRONMENT: Final = "production"
MIN_TIME: Final = 946_684_800
"""2000-01-01. A time outside of 2000 to 2100 is rejected: it is most likely in milliseconds."""
MAX_TIME: Final = 4_102_444_800
"""2100-01-01."""
MAX_LATENCY_MS: Final = 3_600_000.0
MAX_N: Final = 1_000_000
MAX_STATUS: Final = 999
MAX_MEASURE: Final = 1e9
MAX_NAME: Final = 256
"""Characters of a service, environment, instance, flag, variant or measure name."""
MAX_ROUTE: Final = 2048
MAX_ID: Final = 128
"""Characters of the id of a request."""
MAX_RECORD_BYTES: Final = 4 * 1024 * 1024

Time = Annotated[float, Meta(ge=MIN_TIME, le=MAX_TIME)]
Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
Instance = Annotated[str, Meta(max_length=MAX_NAME)]
Route = Annotated[str, Meta(max_length=MAX_ROUTE)]
Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID)]
Status = Annotated[int, Meta(ge=0, le=MAX_STATUS)]
Latency = Annotated[float, Meta(ge=0, le=MAX_LATENCY_MS)]
Measure = Annotated[float, Meta(ge=-MAX_MEASURE, le=MAX_MEASURE)]
Multiplicity = Annotated[int, Meta(ge=1, le=MAX_N)]
Outcome = Literal["ok", "error", "timeout", "unavailable"]
Cache = Literal["hit", "miss", "bypass"]
Phase = Literal["completed", "started"]
Spelling = Literal["hit", "miss", "bypass", "HIT", "MISS", "BYPASS", "Hit", "Miss", "Bypass", "", "-"]
"""How other programs, such as nginx, write a cache result."""

OUTCOMES: Final[tuple[Outcome, ...]] = ("ok", "error", "timeout", "unavailable")
CACHES: Final[tuple[Cache, ...]] = ("hit", "miss", "bypass")
NO_RESULT: Final = ("", "-")
"""How other programs write that there was no cache lookup."""
LOOKUPS: Final[dict[str | None, int]] = {
    None: 0,
    **dict.fromkeys(NO_RESULT, 0),
    **{
        spelling: number
        for cache, number in (("hit", 1), ("miss", 2), ("bypass", 0))
        for spelling in (cache, cache.upper(), cache.title())
    },
}
UNREADABLE: Final = "unreadable"
"""Stands for an outcome whose value cannot be read. If the status is that of a failure, the request is a failure."""
REJECTED_PHASE: Final = "rejected"
"""The phase that decoders give a sample that does not count as a request; services cannot send it."""


class Sample(msgspec.Struct, omit_defaults=True):
    """One observed request, or `n` equal ones; `ts` is the end of the request in Unix seconds.

    None stands for a value that was not observed. Without `outcome` it follows from `status`; without both the request
    counts with an unknown outcome. A sample of `kind` "started" is the start of a request: `ts` is when it began, and
    it ends with the next sample that has the same `id`.
    """

    ts: Time
    service: Name
    environment: Name | None = DEFAULT_ENVIRONMENT
    route: Route | None = None
    instance: Instance | None = None
    status: Status | None = None
    outcome: Outcome | None = None
    latency_ms: Latency | None = None
    cache: Cache | None = None
    flags: dict[Name, Name] | None = None
    measures: dict[Name, Measure] | None = None
    n: Multiplicity | None = 1
    kind: Phase | None = "completed"
    id: Id | None = None


def _outcome_of(status: int) -> Outcome | None:
    if not 100 <= status <= 599:
        # Clients and proxies write 0 if no answer came.
        return None
    if status in (408, 504):
        return "timeout"
    if status in (502, 503):
        return "unavailable"
    return "error" if 500 <= status <= 599 else "ok"


NO_OUTCOME_KIND: Final = len(OUTCOMES) * 3
"""The kind of a request with an unknown outcome and no cache lookup; the next two are those with a hit and a miss."""
KIND_OF_STATUS: Final = tuple(
    NO_OUTCOME_KIND if outcome is None else OUTCOMES.index(outcome) * 3
    for outcome in map(_outcome_of, range(MAX_STATUS + 1))
)
"""The kind of a request without a cache lookup, by its status."""
HIT_KIND: Final = NO_OUTCOME_KIND + 3
"""The kind of a cache hit that is counted separately from requests."""
MISS_KIND: Final = HIT_KIND + 1
"""The kind of a cache miss that is counted separately from requests."""
LATE_KIND: Final = MISS_KIND + 1
"""The kind of samples that came after their second was closed."""
REJECTED_KIND: Final = LATE_KIND + 1
"""The kind of samples that cannot be counted as requests, but whose service is known."""
STARTED_KIND: Final = REJECTED_KIND + 1
"""The kind of samples that are the start of a request. They add nothing to the counts and have no row in
KIND_COUNTS."""


def _kind_counts() -> Int:
    counts = np.zeros((REJECTED_KIND + 1, len(COUNTS)), dtype=np.int64)
    counts[:HIT_KIND, REQUESTS] = 1
    for index, outcome in enumerate(OUTCOMES):
        kinds = slice(index * 3, index * 3 + 3)
        counts[kinds, ERRORS] = outcome != "ok"
        counts[kinds, TIMEOUTS] = outcome == "timeout"
        counts[kinds, UNAVAILABLE] = outcome == "unavailable"
    counts[NO_OUTCOME_KIND:HIT_KIND, NO_OUTCOME] = 1
    counts[:HIT_KIND, CACHE_HITS] = (0, 1, 0) * (len(OUTCOMES) + 1)
    counts[:HIT_KIND, CACHE_LOOKUPS] = (0, 1, 1) * (len(OUTCOMES) + 1)
    counts[HIT_KIND, [CACHE_HITS, CACHE_LOOKUPS]] = 1
    counts[MISS_KIND, CACHE_LOOKUPS] = 1
    counts[LATE_KIND, LATE] = 1
    counts[REJECTED_KIND, REJECTED] = 1
    return counts


KIND_COUNTS: Final[Int] = _kind_counts()
"""What one request or lookup of a kind adds to each column of COUNTS except latency; shape (kinds, len(COUNTS))."""


class Kinds(dict[tuple[int | None, str | None, str | None, str | None], int]):
    """The kind of each (status, outcome, cache, phase), computed when it is first looked up.

    STARTED_KIND for the start of a request, REJECTED_KIND for a sample that does not count as one, else 3 * outcome +
    (0 no lookup, 1 hit, 2 miss). The outcome is an index in OUTCOMES, or NO_OUTCOME_KIND / 3 if it is unknown.
    """

    def __missing__(self, key: tuple[int | None, str | None, str | None, str | None]) -> int:
        self[key] = kind = _kind(*key)
        return kind


def _kind(status: int | None, outcome: str | None, cache: str | None, phase: str | None) -> int:
    if phase == REJECTED_PHASE:
        return REJECTED_KIND
    if phase == "started":
        return STARTED_KIND
    ended = NO_OUTCOME_KIND if status is None else KIND_OF_STATUS[status]
    if outcome == UNREADABLE:
        ended = ended or NO_OUTCOME_KIND
    elif outcome is not None:
        ended = OUTCOMES.index(cast("Outcome", outcome)) * 3
    return ended + LOOKUPS[cache]
