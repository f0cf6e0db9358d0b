"""Where reading of assigned partitions begins: what was committed, as far as that is still worth reading."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from streams.slices import Source


@dataclass(frozen=True, slots=True)
class Begin:
    """How the partitions of one app are begun.

    `lookback` gives, for a topic, how many seconds back reading starts when there is no committed offset. A topic in
    `bounded` is never begun further back than that, whatever is committed. For topics in `replayed` committed offsets
    are ignored: `since` is asked for the Unix time from which each partition is read, None for its beginning.
    """

    lookback: Mapping[str, float]
    bounded: frozenset[str]
    replayed: frozenset[str]
    since: Callable[[list[Source]], Awaitable[Mapping[Source, float | None]]] | None


class Skip(NamedTuple):
    """Reading of `source` was to go on at `was`, and begins at `begins` instead.

    `lost` says that `was` does not exist: it is beyond the partition's end or before its beginning. Otherwise the
    records between the two are older than `seconds`.
    """

    source: Source
    was: int
    begins: int
    seconds: float
    lost: bool

    def __str__(self) -> str:
        place = f"{self.source.topic}/{self.source.partition}"
        if self.lost:
            return (
                f"{place} has no offset {self.was}, where reading was to go on: the topic was made anew, or lost its "
                f"end or its beginning; reading begins at {self.begins}"
            )
        return (
            f"{self.begins - self.was} records of {place} were written more than {self.seconds:.0f} s ago and are not "
            f"read; reading begins at {self.begins} instead of {self.was}"
        )


async def starts(
    consumer: Any, assigned: Iterable[Any], begin: Begin, lost: Mapping[Source, int], now: float
) -> tuple[dict[Any, int], list[Skip]]:
    """The offset at which each of the `assigned` partitions begins, and what is skipped by that.

    `consumer` is aiokafka's; `lost` has the positions that a broker has refused; `now` is in Unix seconds.
    """
    assigned = list(assigned)
    replayed = [Source(*tp) for tp in assigned if tp.topic in begin.replayed]
    since = await begin.since(replayed) if begin.since is not None and replayed else {}
    committed: dict[Any, int] = {}
    past: dict[Any, int] = {}
    for tp in assigned:
        if tp.topic in begin.replayed:
            past[tp] = int((since.get(Source(*tp)) or 0) * 1000)
            continue
        past[tp] = int((now - begin.lookback.get(tp.topic, now)) * 1000)
        if Source(*tp) in lost:
            continue
        offset = await consumer.committed(tp)
        if offset is not None:
            committed[tp] = offset
            if tp.topic not in begin.bounded:
                del past[tp]
    # The ends are asked for first: a record that is appended between the two requests is found by its time, or it lies
    # behind the end. Asked for last, the end of a partition that was empty lay behind what had just been written.
    ends = await _ends(consumer, [tp for tp in past if tp not in committed])
    # Where no record is that young, none is skipped: what its producers stamp may have nothing to do with the time.
    found = {tp: hit.offset for tp, hit in (await _by_time(consumer, past)).items() if hit is not None}
    offsets = {tp: max(committed.get(tp, 0), found.get(tp, ends.get(tp, 0))) for tp in assigned}
    skips = []
    for tp in assigned:
        source = Source(*tp)
        was = lost.get(source, committed.get(tp))
        if was is not None and (source in lost or offsets[tp] > was):
            seconds = begin.lookback.get(tp.topic, 0.0)
            skips.append(Skip(source, was, offsets[tp], seconds, lost=source in lost))
    return offsets, skips


async def _by_time(consumer: Any, past: Mapping[Any, int]) -> Mapping[Any, Any]:
    return await consumer.offsets_for_times(dict(past)) if past else {}


async def _ends(consumer: Any, tps: list[Any]) -> Mapping[Any, int]:
    return await consumer.end_offsets(tps) if tps else {}
