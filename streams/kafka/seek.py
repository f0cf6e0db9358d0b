"""Chooses the offset at which reading of each assigned partition begins."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from streams.slices import Source


@dataclass(frozen=True, slots=True)
class Begin:
    """Where the reading of one app's partitions begins.

    Without a committed offset, reading of a topic starts `lookback` seconds in the past. A topic in `bounded` starts no
    further back than that, even if an older offset is committed. For topics in `replayed` committed offsets are
    ignored: `since` returns the Unix time from which each partition is read, or None for its beginning.
    """

    lookback: Mapping[str, float]
    bounded: frozenset[str]
    replayed: frozenset[str]
    since: Callable[[list[Source]], Awaitable[Mapping[Source, float | None]]] | None


class Skip(NamedTuple):
    """Reading of `source` should have continued at offset `was`, but begins at `begins`.

    If `lost`, the offset `was` does not exist: it is beyond the partition's end or before its beginning. Otherwise the
    records between the two are older than `seconds`.
    """

    source: Source
    was: int
    begins: int
    seconds: float
    lost: bool

    def __str__(self) -> str:
        name = f"{self.source.topic}/{self.source.partition}"
        if self.lost:
            return (
                f"{name} has no offset {self.was}, where reading should continue: the topic was created again, or its "
                f"end or beginning was lost; reading begins at {self.begins}"
            )
        return (
            f"{self.begins - self.was} records of {name} were written more than {self.seconds:.0f} s ago and are not "
            f"read; reading begins at {self.begins} instead of {self.was}"
        )


async def starts(
    consumer: Any, assigned: Iterable[Any], begin: Begin, lost: Mapping[Source, int], now: float
) -> tuple[dict[Any, int], list[Skip]]:
    """The offset at which reading of each of the `assigned` partitions begins, and the records that this skips.

    `consumer` is an aiokafka consumer; `lost` has the positions that a broker has rejected; `now` is in Unix seconds.
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
    # Request the ends before the offsets by time: a record that is appended between the two requests is then either
    # found by its time or lies behind the end. In the other order the end of an empty partition could lie behind a
    # record that no time had found.
    ends = await _ends(consumer, [tp for tp in past if tp not in committed])
    # A committed offset is kept if no record is younger than the lookback: the producers' timestamps may be wrong.
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
