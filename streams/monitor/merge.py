"""Partials of all source partitions, put together: which seconds are whole, and what they hold.

A cell is cumulative and carries the last source offset it contains; of two for the same (source, scope, second) the
one with the higher offset counts, the first of equals. A second behind a source's watermark is final: whatever comes
later for it from that source changes nothing. So a record read twice, a re-read after a crash, and an owner that
still writes after it lost its partition all add nothing.
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
"""Seconds that a watermark may be ahead of the reader's clock. Nobody can know everything before a time that is yet to
come: taken for true, it would make all that comes until then too late."""

_FAR = int(np.iinfo(np.int64).max)
_NO_ROWS = np.zeros(0, dtype=np.int64)


class Merge:
    """Merges the partials of one partials partition.

    `topics` are the telemetry topics that must be heard of before anything is known. Times are Unix seconds; but
    `heard_at`, when a record was read, is of the monotonic clock. No watermark is believed that is more than `AHEAD`
    seconds later than `latest`, by the reader's clock.
    """

    def __init__(self, topics: Iterable[str], *, from_start: bool = True, most_bytes: int = MOST_BYTES) -> None:
        """`from_start` says that the first record added is the first of the log; `most_bytes` may wait to be taken."""
        self._most_bytes = most_bytes
        self._ready_bytes = 0
        self.lost_until: int | None = None
        """The first second of which nothing was given up; None where nothing ever was."""
        self._topics = frozenset(topics)
        self._from_start = from_start
        self._partitions: dict[str, int] = {}
        self._sources: dict[Source, SourceState] = {}
        # Cells of seconds that may still change, and the number of the source that each is of.
        self._open: tuple[Cells, Int] = empty(), _NO_ROWS
        self._ready: list[Cells] = []
        self._unheard: list[str] | None = None
        self.overflow = 0
        self.unread = UnreadLog()

    def add(self, partial: Partial, cells: Cells, heard_at: float, latest: float = math.inf) -> None:
        """Take in one record; records of a source arrive in the order of the log."""
        self.add_all(
            PartialBatch([PartialHead.of(partial)], cells, np.zeros(len(cells), dtype=np.int64)), heard_at, latest
        )

    def expects(self, word: PartialHead) -> bool:
        """Does the record come from who was heard before, so that from whom to hear stays as it is?"""
        topic = word.source.topic
        known = word.source in self._sources and word.partitions <= self._partitions[topic]
        return known or topic not in self._topics

    def add_all(self, batch: PartialBatch, heard_at: float, latest: float = math.inf) -> list[float]:
        """Take in records, of each source in the order of the log; returns the watermarks that they led to, rising.

        All cells are sorted out at once, as if each record had come alone: `opens` is, for each record, the first
        second that was open for its source when it came, which is all that earlier records have to say to it.
        """
        number = np.zeros(len(batch.heads), dtype=np.int64)
        opens = np.full(len(batch.heads), _FAR)
        marks: list[float] = []
        for i, word in enumerate(batch.heads):
            topic = word.source.topic
            if topic not in self._topics:
                continue
            if word.partitions > self._partitions.get(topic, 0):
                self._resize(topic, word.partitions)
            state = self._sources.get(word.source)
            if state is None:
                self._unheard = None
                state = self._sources[word.source] = SourceState(len(self._sources), heard_at)
            state.heard_at = max(state.heard_at, heard_at)
            self.overflow += word.overflow
            number[i], opens[i] = state.number, state.final
            state.caught_up = word.caught_up
            if word.watermark is not None:
                state.ahead = word.watermark if word.watermark > latest + AHEAD else None
            believed = None if state.ahead is not None else word.watermark
            if believed is not None and (state.watermark is None or believed > state.watermark):
                final = math.floor(believed)
                if state.watermark is None and not self._from_start:
                    # Cells of earlier seconds may be in records before those that were read.
                    state.whole_from = final
                state.watermark, state.final = believed, max(state.final, final)
                mark = self.watermark
                if mark is not None and (not marks or mark > marks[-1]):
                    marks.append(mark)
            if word.received or word.rejected:
                self.unread.add(topic, state.final, word.received, word.rejected)
        if len(batch.cells) or len(self._open[1]):
            self._sort_out(batch, number, opens)
        if self._ready_bytes + nbytes(self._open[0]) > self._most_bytes:
            first = self.first()
            # What is complete is taken next, which makes room.
            if not marks or first is None or first >= math.floor(marks[-1]):
                self._give_up()
        return marks

    def resized(self, topic: str, partitions: int) -> int | None:
        """Go on with fewer partitions of a topic than were told of; returns how many those were, None where no more.

        To be called for what the brokers say, again and again: a record of an earlier time tells of more once more.
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

    def _there(self) -> list[tuple[Source, SourceState]]:
        return [(source, state) for source, state in self._sources.items() if not state.gone]

    def _sort_out(self, batch: PartialBatch, number: Int, opens: Int) -> None:
        """Drop what came too late, make ready what is final and keep the rest open."""
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
        """Give up the oldest seconds: all that is known of them, and all that would come."""
        open_, source = self._open
        # What was said again of an open second stands twice until it is final.
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
        """Topics and source partitions nothing was heard of, as text; empty when all have spoken."""
        # Asked for with every record, and another only when a source speaks for the first time.
        if self._unheard is None:
            unheard = [topic for topic in sorted(self._topics) if topic not in self._partitions]
            for topic, number in sorted(self._partitions.items()):
                unheard += [f"{topic}/{p}" for p in range(number) if Source(topic, p) not in self._sources]
            self._unheard = unheard
        return self._unheard

    def silent(self, now: float, after: float) -> list[str]:
        """Source partitions whose owner has said nothing for longer than `after` seconds; `now` is monotonic."""
        late = (source for source, state in self._there() if now - state.heard_at > after)
        return [f"{source.topic}/{source.partition}" for source in sorted(late)]

    @property
    def watermark(self) -> float | None:
        """Everything before this time is known from every source partition; None until each has said so once."""
        if self.missing():
            return None
        marks = [state.watermark for state in self._sources.values() if not state.gone]
        return None if None in marks else min(mark for mark in marks if mark is not None)

    def ahead(self, latest: float) -> dict[str, float]:
        """Source partitions that cannot be believed, and by how many seconds their watermark is later than `latest`."""
        found = {}
        for source, state in sorted(self._there()):
            mark = state.ahead if state.ahead is not None else state.watermark
            if mark is not None and mark > latest + AHEAD:
                found[f"{source.topic}/{source.partition}"] = mark - latest
        return found

    def lagging(self, behind: float, *, caught_up: bool = True) -> list[str]:
        """Source partitions whose watermark is before the given time; without `caught_up` only those that have more to
        read.
        """
        states = ((source, state) for source, state in self._there() if caught_up or not state.caught_up)
        marks = ((source, state.watermark) for source, state in states)
        return [f"{s.topic}/{s.partition}" for s, mark in sorted(marks) if mark is None or mark < behind]

    @property
    def whole_from(self) -> int | None:
        """The first second that was read whole from every source; None where the log was read from its start."""
        return max((state.whole_from for _, state in self._there() if state.whole_from is not None), default=None)

    def first(self) -> int | None:
        """The earliest second that waits to be taken."""
        return min((int(cells.second.min()) for cells in self._ready), default=None)

    def take(self, before: int) -> Cells:
        """The cells of all sources of the seconds earlier than `before`; a scope may stand twice in a second."""
        cells = join(self._ready or [empty()])
        later = np.flatnonzero(cells.second >= before)
        if not len(later):
            self._ready, self._ready_bytes = [], 0
            return cells
        self._ready = [select(cells, later)]
        self._ready_bytes = nbytes(self._ready[0])
        return select(cells, np.flatnonzero(cells.second < before))
