"""Merges the partials of all source partitions: which seconds are complete, and their cells.

A cell is cumulative and carries the last source offset it contains. Of two cells for the same (source, scope, second)
the one with the higher offset counts, the first of equals. A second before a source's watermark is final: later cells
of that source for it change nothing. So a record that is read twice, a re-read after a crash, and an owner that still
writes after it lost its partition add nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from detectors.arrays import Int
from detectors.cell_operations import empty, join, nbytes, select
from detectors.cells import Cells
from streams.monitor.highest_offsets import highest_offsets
from streams.monitor.room import MOST_BYTES, kept_from
from streams.monitor.source_state import SourceState
from streams.monitor.unread import UnreadLog
from streams.partials.batch import PartialBatch, PartialHead
from streams.partials.record import Partial
from streams.slices import Source

AHEAD = 5.0
"""Seconds that a watermark may be ahead of the reader's clock. A later one must be wrong, as no source has read the
future; if it were accepted, all samples until then would be too late."""

_FAR = int(np.iinfo(np.int64).max)
_NO_ROWS = np.zeros(0, dtype=np.int64)


class Merge:
    """Merges the partials of one partials partition.

    No second is complete before every source partition of `topics`, the telemetry topics, has published a watermark.
    Times are Unix seconds, except for `heard_at`, when a record was read, which is in monotonic seconds. A watermark
    that is more than `AHEAD` seconds later than `latest`, the reader's clock, is not accepted.
    """

    def __init__(self, topics: Iterable[str], *, from_start: bool = True, most_bytes: int = MOST_BYTES) -> None:
        """`from_start` says that the first record added is the first of the log. Cells of `most_bytes` may wait."""
        self._most_bytes = most_bytes
        self._ready_bytes = 0
        self.lost_until: int | None = None
        """The first second after those that were given up; None if none was."""
        self._topics = frozenset(topics)
        self._from_start = from_start
        self._partitions: dict[str, int] = {}
        self._sources: dict[Source, SourceState] = {}
        # Cells of seconds that may still change, and the number of the source of each.
        self._open: tuple[Cells, Int] = empty(), _NO_ROWS
        self._ready: list[Cells] = []
        self._unheard: list[str] | None = None
        self.overflow = 0
        self.unread = UnreadLog()

    def add(self, partial: Partial, cells: Cells, heard_at: float, latest: float = math.inf) -> None:
        """Take in one record. Records of a source come in the order of the log."""
        self.add_all(
            PartialBatch([PartialHead.of(partial)], cells, np.zeros(len(cells), dtype=np.int64)), heard_at, latest
        )

    def expects(self, head: PartialHead) -> bool:
        """Does the record leave the set of sources as it is? Not if its source is new or it names more partitions."""
        topic = head.source.topic
        known = head.source in self._sources and head.partitions <= self._partitions[topic]
        return known or topic not in self._topics

    def add_all(self, batch: PartialBatch, heard_at: float, latest: float = math.inf) -> list[float]:
        """Take in records, those of a source in the order of the log; return the watermarks that result, ascending.

        All cells are sorted out at once, with the same result as record by record. A record depends on the records
        before it only by the first second that is open for its source; `opens` has this second for each record.
        """
        number = np.zeros(len(batch.heads), dtype=np.int64)
        opens = np.full(len(batch.heads), _FAR)
        marks: list[float] = []
        for i, head in enumerate(batch.heads):
            topic = head.source.topic
            if topic not in self._topics:
                continue
            if head.partitions > self._partitions.get(topic, 0):
                self._resize(topic, head.partitions)
            state = self._sources.get(head.source)
            if state is None:
                self._unheard = None
                state = self._sources[head.source] = SourceState(len(self._sources), heard_at)
            state.heard_at = max(state.heard_at, heard_at)
            self.overflow += head.overflow
            number[i], opens[i] = state.number, state.final
            state.caught_up = head.caught_up
            if head.watermark is not None:
                state.ahead = head.watermark if head.watermark > latest + AHEAD else None
            believed = None if state.ahead is not None else head.watermark
            if believed is not None and (state.watermark is None or believed > state.watermark):
                final = math.floor(believed)
                if state.watermark is None and not self._from_start:
                    # Records before the first one that was read may have cells of earlier seconds.
                    state.whole_from = final
                state.watermark, state.final = believed, max(state.final, final)
                mark = self.watermark
                if mark is not None and (not marks or mark > marks[-1]):
                    marks.append(mark)
            if head.received or head.rejected:
                self.unread.add(topic, state.final, head.received, head.rejected)
        if len(batch.cells) or len(self._open[1]):
            self._sort_out(batch, number, opens)
        if self._ready_bytes + nbytes(self._open[0]) > self._most_bytes:
            first = self.first()
            # Complete seconds are taken next, which makes room.
            if not marks or first is None or first >= math.floor(marks[-1]):
                self._give_up()
        return marks

    def resized(self, topic: str, partitions: int) -> int | None:
        """Set the number of a topic's partitions by the brokers, if it is lower than known; return the number before.

        None means that nothing has changed. Call it again and again: a record from before the change brings the higher
        number back.
        """
        known = self._partitions.get(topic, 0)
        if partitions >= known:
            return None
        self._resize(topic, partitions)
        return known

    def _resize(self, topic: str, partitions: int) -> None:
        self._partitions[topic], self._unheard = partitions, None
        for source, state in self._sources.items():
            if source.topic == topic:
                state.gone = source.partition >= partitions

    def _existing(self) -> list[tuple[Source, SourceState]]:
        return [(source, state) for source, state in self._sources.items() if not state.gone]

    def _sort_out(self, batch: PartialBatch, number: Int, opens: Int) -> None:
        """Drop cells that are too late, make ready those of final seconds, and keep the rest open."""
        cells, source = batch.cells, number[batch.record]
        fresh = np.flatnonzero(cells.second >= opens[batch.record])
        if len(fresh) < len(cells):
            cells, source = select(cells, fresh), source[fresh]
        if len(self._open[1]):
            cells, source = join([self._open[0], cells]), np.concatenate([self._open[1], source])
        finals = np.array([_FAR if s.gone else s.final for s in self._sources.values()], dtype=np.int64)
        closed = cells.second < finals[source]
        if closed.any():
            kept = highest_offsets(cells, source)
            final = kept[closed[kept]]
            self._ready.append(cells if len(final) == len(cells) else select(cells, final))
            self._ready_bytes += nbytes(self._ready[-1])
            kept = kept[~closed[kept]]
            cells, source = (select(cells, kept), source[kept]) if len(kept) else (empty(), _NO_ROWS)
        self._open = cells, source

    def _give_up(self) -> None:
        """Give up the oldest seconds: drop their cells, and those that are still to come."""
        open_, source = self._open
        # A cell of an open second that was sent again is there twice until the second is final.
        kept = highest_offsets(open_, source) if len(source) else source
        ready, open_, source = join(self._ready or [empty()]), select(open_, kept), source[kept]
        first = kept_from([ready, open_], self._most_bytes)
        if first is not None:
            self.lost_until = first if self.lost_until is None else max(self.lost_until, first)
            for state in self._sources.values():
                state.final = max(state.final, first)
            ready = select(ready, np.flatnonzero(ready.second >= first))
            rows = np.flatnonzero(open_.second >= first)
            open_, source = select(open_, rows), source[rows]
        self._ready, self._ready_bytes, self._open = [ready] if len(ready) else [], nbytes(ready), (open_, source)

    def missing(self) -> list[str]:
        """Topics and source partitions without a record so far, as text; empty if all have sent one."""
        # This is called with every record, and changes only if a source or a number of partitions is new.
        if self._unheard is None:
            unheard = [topic for topic in sorted(self._topics) if topic not in self._partitions]
            for topic, number in sorted(self._partitions.items()):
                unheard += [f"{topic}/{p}" for p in range(number) if Source(topic, p) not in self._sources]
            self._unheard = unheard
        return self._unheard

    def silent(self, now: float, after: float) -> list[str]:
        """Source partitions whose owner has sent nothing for more than `after` seconds at `now` (monotonic)."""
        late = (source for source, state in self._existing() if now - state.heard_at > after)
        return [f"{source.topic}/{source.partition}" for source in sorted(late)]

    @property
    def watermark(self) -> float | None:
        """The time before which every source partition has been read; None until each has published a watermark."""
        if self.missing():
            return None
        marks = [state.watermark for state in self._sources.values() if not state.gone]
        return None if None in marks else min(mark for mark in marks if mark is not None)

    def ahead(self, latest: float) -> dict[str, float]:
        """Source partitions with a watermark too far in the future, and how many seconds it is later than `latest`."""
        found = {}
        for source, state in sorted(self._existing()):
            mark = state.ahead if state.ahead is not None else state.watermark
            if mark is not None and mark > latest + AHEAD:
                found[f"{source.topic}/{source.partition}"] = mark - latest
        return found

    def lagging(self, behind: float, *, caught_up: bool = True) -> list[str]:
        """Source partitions whose watermark is earlier than `behind`; without `caught_up`, only those with unread
        records.
        """
        states = ((source, state) for source, state in self._existing() if caught_up or not state.caught_up)
        marks = ((source, state.watermark) for source, state in states)
        return [f"{s.topic}/{s.partition}" for s, mark in sorted(marks) if mark is None or mark < behind]

    @property
    def whole_from(self) -> int | None:
        """The first second that was read completely from every source; None if the log was read from its start."""
        return max((state.whole_from for _, state in self._existing() if state.whole_from is not None), default=None)

    def first(self) -> int | None:
        """The earliest second that waits to be taken."""
        return min((int(cells.second.min()) for cells in self._ready), default=None)

    def take(self, before: int) -> Cells:
        """Remove and return the complete cells of seconds earlier than `before`; a scope has a cell for each source."""
        cells = join(self._ready or [empty()])
        later = np.flatnonzero(cells.second >= before)
        if not len(later):
            self._ready, self._ready_bytes = [], 0
            return cells
        self._ready = [select(cells, later)]
        self._ready_bytes = nbytes(self._ready[0])
        return select(cells, np.flatnonzero(cells.second < before))
