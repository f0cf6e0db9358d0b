"""The sliding windows of a shard, moved on together second by second.

A window tracks the scopes that it is wanted for; the display window tracks every scope that is seen. Windows of several
lengths hold the same seconds, each stored once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.arrays import Int
from detectors.cells import COUNTS, ERRORS, LATE, NO_OUTCOME, REQUESTS, Cells, Scope
from detectors.state import Arrays
from detectors.windows.by_instance import MAX_INSTANCES
from detectors.windows.by_second import BySecond
from detectors.windows.second import Second, collect
from detectors.windows.slots import K, Slots, looked_up, present, used_of
from detectors.windows.unread_sums import UnreadSums
from detectors.windows.window import Window

DISPLAY = 60
"""Seconds of the display window, in which every scope that is seen is kept, to be shown and compared."""


class Want(NamedTuple):
    """A window that is needed: `seconds` of `scope`, with or without its latency histogram."""

    scope: Scope
    seconds: int
    latency: bool = False


class WindowStore:
    """Windows of all scopes of a shard, moved on second by second.

    At most `max_scopes` scopes are kept. Those of `wants` keep their place for ever, in the order given; others get one
    when they are seen, and lose it if room is needed and they have been silent for the display window. Scopes that do
    not fit are counted in `refused_scopes` (once per scope and second). `measures` are the custom measures to keep.
    """

    def __init__(
        self, wants: Iterable[Want], *, max_scopes: int, display: int = DISPLAY, measures: Sequence[str] = ()
    ) -> None:
        wants = list(wants)
        if any(seconds < 1 for seconds in (display, *(want.seconds for want in wants))):
            raise ValueError("a window must be at least 1 second long")
        self.end: int | None = None
        """All windows hold [end - w, end); None before the first second."""
        self.display = display
        self.max_scopes = max_scopes
        self._start: int
        """The first second; not set before `end` is."""
        self._scopes: Slots[Scope] = Slots(max_scopes, (want.scope for want in wants))
        self._instances: Slots[str] = Slots(MAX_INSTANCES)
        self._measures = {name: k for k, name in enumerate(dict.fromkeys(measures))}
        columns = len(COUNTS) + 2 * len(self._measures)
        self._windows = {display: Window(display, columns, max_scopes, max_scopes)}
        for seconds in sorted({want.seconds for want in wants} - {display}):
            # Rows with a histogram come first, so that the others need none.
            chosen = sorted((want for want in wants if want.seconds == seconds), key=lambda want: not want.latency)
            slots = list(dict.fromkeys(slot for want in chosen if (slot := self._scopes.get(want.scope)) >= 0))
            timed = len({want.scope for want in chosen if want.latency and self._scopes.get(want.scope) >= 0})
            row_of = np.full(max_scopes, -1, dtype=np.int64)
            row_of[slots] = np.arange(len(slots))
            self._windows[seconds] = Window(seconds, columns, len(slots), timed, row_of)
        self._longest = max(self._windows)
        self.by_second = BySecond(display, (REQUESTS, LATE, ERRORS, NO_OUTCOME), max_scopes)
        """Of each slot in each second of the display window: requests, those of them that failed, those that do not say
        how they ended, and late samples."""
        self.unread = UnreadSums()
        """Values that could not be read."""
        # Slot by slot, itself for scopes that are wanted, -1 for the others, which only the display window keeps.
        self._wanted_slots = np.full(max_scopes, -1, dtype=np.int64)
        wanted = [slot for want in wants if (slot := self._scopes.get(want.scope)) >= 0]
        self._wanted_slots[wanted] = wanted

    def advance(self, second: int, *blocks: Cells) -> None:
        """Commit [second, second + 1) and move every window to end there.

        All rows of the blocks belong to that second; a scope may occur in several blocks and is summed. Skipped seconds
        are empty. Raises ValueError if the second is not later than the last one or a row belongs to another second.
        """
        if self.end is not None and second < self.end:
            raise ValueError(f"second {second} is already committed: the windows end at {self.end}")
        blocks = tuple(cells for cells in blocks if len(cells))
        for cells in blocks:
            if np.any(cells.second != second):
                raise ValueError(f"cells of other seconds than {second}: {cells.second[cells.second != second][:3]}")
        self._start = second if self.end is None else self._start
        self.end = second + 1
        for window in self._windows.values():
            window.expire(self.end - window.seconds)
            window.filled = self.end - window.seconds >= self._start
        self.unread.advance(second, blocks)
        if blocks:
            self._commit(self._collect(second, blocks))

    def prepared(self, cells: Cells) -> dict[int, Second]:
        """Sum all seconds of a block at once, for `advance_prepared`: when minutes are read again, the numpy calls
        dominate.

        Empty if scopes or instances do not all fit: which ones do then depends on the seconds before. The result is
        valid until `advance` is called with a block.
        """
        if not len(cells):
            return {}
        scopes = self._scopes.of(cells.scopes, present(cells.scope, len(cells.scopes)))
        names = self._instances.of(cells.instances, present(cells.instance_id, len(cells.instances)))
        if scopes is None or names is None:
            return {}
        self.unread.note([cells])
        found = collect([cells], [scopes[cells.scope]], [names[cells.instance_id]], self._measures)
        return {second.second: second for second in found}

    def advance_prepared(self, second: int, prepared: Second | None) -> None:
        """Do the same as `advance`, with the prepared sums of the second; None for an empty second."""
        self.advance(second)
        if prepared is not None:
            self._scopes.mark(prepared.rows, second)
            self._instances.mark(prepared.instance_ids, second)
            self._commit(prepared)

    def _commit(self, committed: Second) -> None:
        """Add a second to the table by second and to every window."""
        self.by_second.put(committed)
        of_wanted = committed.renumbered(self._wanted_slots, len(self._wanted_slots))
        for window in self._windows.values():
            window.add(committed if window.seconds == self.display else of_wanted)

    def _collect(self, second: int, blocks: Sequence[Cells]) -> Second:
        """Sum the blocks of one second, after giving their scopes and instances slots."""
        # A scope has left the display window, the only one that tracks it, before its slot is given to another.
        scopes = _numbered(self._scopes, [(c.scope, c.scopes) for c in blocks], second, second + 1 - self.display)
        longest = second + 1 - self._longest
        names = _numbered(self._instances, [(c.instance_id, c.instances) for c in blocks], second, longest)
        (committed,) = collect(blocks, scopes, names, self._measures)
        return committed

    def window(self, seconds: int) -> Window:
        """Return the window of a length. Raises KeyError if nothing wants it."""
        return self._windows[seconds]

    def row(self, scope: Scope, seconds: int) -> int:
        """Return the scope's row in a window, -1 if it is not kept. The row of a wanted scope never changes."""
        return self._windows[seconds].row(self._scopes.get(scope))

    def slot(self, scope: Scope) -> int:
        """Return the scope's slot, -1 if it has none. The slot of a wanted scope never changes."""
        return self._scopes.get(scope)

    def seen_at(self, slots: Int) -> Int:
        """Return the newest second in which each slot (s,) had cells, `detectors.state.BEFORE` if it never had
        any."""
        return self._scopes.seen_at(slots)

    def instance(self, number: int) -> str:
        """Return the name of an instance that some window holds."""
        return self._instances.key(number)

    def state(self) -> Arrays:
        """Return what outlives every window: which wanted scopes ever had a cell, by window length, and when last."""
        seen = {str(seconds): window.seen[self._wanted_rows(window)] for seconds, window in self._windows.items()}
        return seen | {"newest": self.seen_at(np.flatnonzero(self._wanted_slots >= 0))}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from what `state` returned; scopes seen since then stay seen."""
        for seconds, window in self._windows.items():
            window.seen[self._wanted_rows(window)] |= state[str(seconds)]
        self._scopes.restore(np.flatnonzero(self._wanted_slots >= 0), state["newest"])

    def _wanted_rows(self, window: Window) -> Int:
        """Return the rows of the wanted scopes, which never change."""
        slots = np.flatnonzero(self._wanted_slots >= 0)
        rows = np.array([window.row(slot) for slot in slots.tolist()], dtype=np.int64)
        return rows[rows >= 0]

    def span(self, seconds: int) -> int:
        """Return how many seconds of a window the store has been running for."""
        return 0 if self.end is None else min(seconds, self.end - self._start)

    def scopes(self) -> list[Scope]:
        """Return the scopes that have a place now; the list changes whenever `scope_changes` does."""
        return self._scopes.keys()

    @property
    def scope_changes(self) -> int:
        """How often the set of scopes changed."""
        return self._scopes.changes

    def measure_columns(self, measure: str) -> tuple[int, int]:
        """Return the columns of `Window.sums` with count and sum (millionths) of a measure. Raises KeyError."""
        first = len(COUNTS) + 2 * self._measures[measure]
        return first, first + 1

    def instances(self, scope: Scope, seconds: int, since: int = 0) -> dict[str, Int]:
        """Return the counts (len(COUNTS),) of each instance of a scope in a window from `since` on, by name, sorted."""
        window, slot = self._windows[seconds], self._scopes.get(scope)
        found = window.instances(slot, since) if window.row(slot) >= 0 else {}
        return dict(sorted((self._instances.key(number), counts) for number, counts in found.items()))

    def newest(self, scope: Scope) -> int | None:
        """Return the newest second in which a scope has cells, None if it has none."""
        return self._scopes.last_seen(scope)

    def active(self) -> list[Scope]:
        """Return the scopes seen in the display window, sorted."""
        return [] if self.end is None else self._scopes.seen(self.end - self.display)

    @property
    def refused_scopes(self) -> int:
        """How often scopes were refused because there was no room, once per scope and second."""
        return self._scopes.refused

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays of all windows, including pages that were never written."""
        stored = {id(second): second.nbytes for window in self._windows.values() for second in window.seconds_kept}
        own = sum(window.nbytes for window in self._windows.values()) + self.by_second.nbytes
        return own + sum(stored.values())

    def counts(self, scope: Scope, seconds: int, since: int = 0) -> Int:
        """Return the counts (len(COUNTS),) of a scope in a window, in the seconds from `since` on. It is slow: for rare
        use."""
        window, slot = self._windows[seconds], self._scopes.get(scope)
        return window.counts(slot, since) if window.row(slot) >= 0 else np.zeros(len(COUNTS), dtype=np.int64)


def _numbered(
    slots: Slots[K], columns: Sequence[tuple[Int, tuple[K, ...]]], second: int, silent_before: int
) -> list[Int]:
    """Return the slot of each entry of some columns, each of indices into a table of keys; see `Slots.assign`."""
    used = [(index, table, present(index, len(table))) for index, table in columns]
    assigned = slots.assign([used_of(table, own) for _, table, own in used], second, silent_before)
    return [looked_up(index, own, found) for (index, _, own), found in zip(used, assigned, strict=True)]
