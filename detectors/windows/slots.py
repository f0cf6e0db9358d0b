"""The row, or slot, in the arrays of each key (a scope, an instance), with a bound on how many keys are kept.

Reserved keys have a slot for ever. Other keys get one when they are seen, and lose it when room is needed after they
have been silent. A key that still does not fit is refused and counted, never merged with others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from detectors.cells import Scope
from detectors.state import BEFORE

K = TypeVar("K", Scope, str)


class Slots(Generic[K]):
    """A table of at most `capacity` keys; `reserved` keys beyond the capacity, in the order given, are not kept either.

    If not all new keys fit, the least by value are kept, so that the result does not depend on their order.
    """

    def __init__(self, capacity: int, reserved: Iterable[K] = ()) -> None:
        self.capacity = capacity
        self.refused = 0
        """How often a key was refused, counted once per key and second."""
        self.changes = 0
        """How often the set of keys changed; a list of the keys is outdated if this has changed."""
        self._slots: dict[K, int] = {}
        for key in reserved:
            if key not in self._slots and len(self._slots) < capacity:
                self._slots[key] = len(self._slots)
        self.reserved = len(self._slots)
        """Slots 0 .. reserved - 1 belong to the reserved keys in their order."""
        self._keys: list[K | None] = list(self._slots)
        self._free: list[int] = []
        self._seen = np.full(capacity, BEFORE, dtype=np.int64)

    def get(self, key: K) -> int:
        """Return the slot of a key, -1 if it has none."""
        return self._slots.get(key, -1)

    def last_seen(self, key: K) -> int | None:
        """Return the second in which a key was last seen, None if it never was or has no slot."""
        slot = self._slots.get(key, -1)
        return None if slot < 0 or self._seen[slot] == BEFORE else int(self._seen[slot])

    def seen_at(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the second in which the key of each slot was last seen, BEFORE if it never was."""
        result: NDArray[np.int64] = self._seen[slots]
        return result

    def restore(self, slots: NDArray[np.int64], seen_at: NDArray[np.int64]) -> None:
        """Restore when the keys of slots (s,) were last seen; later sightings are kept."""
        self._seen[slots] = np.maximum(self._seen[slots], seen_at)

    def key(self, slot: int) -> K:
        """Return the key that has a slot. Raises KeyError if none has."""
        key = self._keys[slot] if 0 <= slot < len(self._keys) else None
        if key is None:
            raise KeyError(slot)
        return key

    def keys(self) -> list[K]:
        """Return the keys that have a slot."""
        return list(self._slots)

    def seen(self, since: int) -> list[K]:
        """Return the keys seen in second `since` or later, sorted."""
        recent = np.flatnonzero(self._seen[: len(self._keys)] >= since)
        return sorted(self.key(slot) for slot in recent.tolist())

    def of(self, table: Sequence[K], used: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Return the slots of a table's keys; the keys at `used` (indices) get one if they have none.

        If there is no room for all, return None and change nothing: which keys are kept then depends on when each is
        seen.
        """
        found = self._found(table)
        new = {table[i] for i in used[found[used] < 0].tolist()}
        if len(self._free) + self.capacity - len(self._keys) < len(new):
            return None
        if new:
            self._admit(new, BEFORE)
            found = self._found(table)
        return found

    def _found(self, table: Sequence[K]) -> NDArray[np.int64]:
        return np.fromiter(map(self._slots.get, table, repeat(-1)), dtype=np.int64, count=len(table))

    def mark(self, slots: NDArray[np.integer[Any]], second: int) -> None:
        """Record that the keys of slots were seen in a second, which is later than earlier ones."""
        self._seen[slots] = second

    def assign(self, tables: Sequence[Sequence[K]], second: int, silent_before: int) -> list[NDArray[np.int64]]:
        """Return the slots of the keys of every table, seen in `second`; -1 for a key that is refused.

        If there is no room, unreserved keys last seen before `silent_before` lose theirs.
        """
        # Keys that have a slot are marked first, so that they are not evicted for new keys of the same second.
        found = [self._seen_in(second, table) for table in tables]
        new = {table[i] for table, slots in zip(tables, found, strict=True) for i in np.flatnonzero(slots < 0).tolist()}
        if new:
            self._admit(new, silent_before)
            found = [self._seen_in(second, table) for table in tables]
        return found

    def _seen_in(self, second: int, table: Sequence[K]) -> NDArray[np.int64]:
        slots = self._found(table)
        self._seen[slots[slots >= 0]] = second
        return slots

    def _admit(self, new: set[K], silent_before: int) -> None:
        """Give new keys a slot, after evicting silent ones if room is needed; refuse and count those that do not
        fit."""
        self.changes += 1
        if len(self._free) + self.capacity - len(self._keys) < len(new):
            self._evict(silent_before)
        room = len(self._free) + self.capacity - len(self._keys)
        self.refused += max(len(new) - room, 0)
        for key in sorted(new)[:room] if room else ():
            if self._free:
                slot = self._free.pop()
                self._keys[slot] = key
            else:
                slot = len(self._keys)
                self._keys.append(key)
            self._slots[key] = slot

    def _evict(self, silent_before: int) -> None:
        """Free the slots of unreserved keys that were last seen before `silent_before`."""
        silent = np.flatnonzero(self._seen[: len(self._keys)] < silent_before)
        for slot in silent[silent >= self.reserved].tolist():
            key = self._keys[slot]
            if key is not None:
                del self._slots[key]
                self._keys[slot] = None
                self._free.append(slot)


def present(index: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Return the values of an index array into a table of `size` entries, ascending."""
    mask = np.zeros(size, dtype=bool)
    mask[index] = True
    return np.flatnonzero(mask)


def used_of(table: tuple[K, ...], used: NDArray[np.int64]) -> Sequence[K]:
    return table if len(used) == len(table) else [table[i] for i in used.tolist()]


def looked_up(index: NDArray[np.int64], used: NDArray[np.int64], slots: NDArray[np.int64]) -> NDArray[np.int64]:
    """Translate an index array, given the slots of the entries it uses."""
    table = np.full(int(used[-1]) + 1 if len(used) else 0, -1, dtype=np.int64)
    table[used] = slots
    return table[index]
