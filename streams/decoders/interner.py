"""Small integers for the strings of samples, in bounded memory whatever is sent.

There are two lifetimes. Scopes and measure names are limited in number and keep their numbers as long as the process
lives; places are reserved for those that triggers need. Everything that grows with the traffic (combinations of flags,
instances) is numbered by a `Table`, which is replaced by an empty one when it is full. Numbers of different tables are
unrelated, so a batch carries the table that numbered it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np

from detectors.arrays import Int
from detectors.cells import Scope
from detectors.windows.overdue import above_ms, measure_of
from detectors.windows.unreadable import unreadable
from streams.decoders.lenient import check_name, loose
from streams.decoders.profiles import INVALID, OVERFULL, FlagMaps, Profiles, Size, UnreadVariant
from streams.decoders.watch_list import WatchList

NO_INSTANCE: Final = 0
VARIANTS_KEPT: Final = 16
"""Places kept free for the variants of each watched flag, in all at most half of the free places."""
MAX_MEASURES: Final = 256
"""Measure names kept in one process in addition to the watched ones."""
LONGEST_LIST: Final = 1 << 16
"""Bytes of a list of a columnar batch up to which it is remembered."""


class LatencyLimit(NamedTuple):
    """A latency limit of a trigger in seconds; `above_ms` is the least latency above it.

    `measure` is the number of the measure that sums the requests overdue for it.
    """

    seconds: float
    above_ms: float
    measure: int


class Interner:
    """The numbers of one process; all decoders and reducers of the process share it."""

    def __init__(self, watch: WatchList, max_scopes: int = 2000) -> None:
        self.watch = watch
        self.scopes: list[Scope] = list(watch.scopes)
        limits = sorted({limit for limits in watch.limits.values() for limit in limits})
        flags = sorted(set().union(*watch.flags.values()))
        missing = [
            unreadable("latency"),
            unreadable("cache"),
            *(unreadable("variant", flag) for flag in flags),
            *(unreadable("measure", measure) for measure in sorted(watch.measures)),
        ]
        self.measures = Measures(watch.measures, [*map(measure_of, limits), *missing])
        self.unreadable = {name: self.measures.names.index(name) for name in missing}
        """The numbers of the measures that count unreadable fields, by name."""
        number = {limit: self.measures.names.index(measure_of(limit)) for limit in limits}
        self.limits = {
            scope_id: tuple(LatencyLimit(limit / 1000, above_ms(limit), number[limit]) for limit in watch.limits[scope])
            for scope_id, scope in enumerate(watch.scopes)
            if scope in watch.limits
        }
        """The latency limits of a service by the number of its scope, ascending."""
        self._max_scopes = max(max_scopes, len(watch.scopes))
        self._scope_ids = {scope: index for index, scope in enumerate(watch.scopes)}
        free = self._max_scopes - len(watch.scopes)
        # Services without a watched flag, such as short-lived names, must not take the places of watched variants.
        self._others_left = free - min(free // 2, VARIANTS_KEPT * sum(map(len, watch.flags.values())))
        self._table = Table(self)

    def table(self) -> Table:
        """The table for the next batch."""
        if self._table.full:
            self._table = Table(self)
        return self._table

    def scope_id(self, scope: Scope) -> int:
        """The number of a scope, INVALID if all places are taken."""
        found = self._scope_ids.get(scope)
        if found is not None:
            return found
        watched = (scope.environment, scope.service) in self.watch.flags
        if len(self.scopes) >= self._max_scopes or (not watched and not self._others_left):
            return INVALID
        self._others_left -= not watched
        self._scope_ids[scope] = found = len(self.scopes)
        self.scopes.append(scope)
        return found


class Table:
    """Numbers of profiles and instances, valid until the table is replaced.

    It has no reference cycles, so that it is freed as soon as its successor is in use.
    """

    def __init__(self, interner: Interner) -> None:
        self._size = Size()
        self._profiles = Profiles(interner)
        self._lists: dict[bytes, Int] = {}
        self.json = FlagMaps(self._profiles, self._size, loose)
        self.msgpack = FlagMaps(self._profiles, self._size, msgspec.msgpack.decode)
        self.instances = Instances(self._size)

    @property
    def full(self) -> bool:
        """Whether the next slice should have a new table."""
        return self._size.reached(1)

    @property
    def profiles(self) -> int:
        """The number of profiles."""
        return len(self._profiles.scopes)

    def expansion(self) -> tuple[Int, Int, Int]:
        """The scopes of all profiles as (starts, scopes, missing).

        Profile p has the scope numbers `scopes[starts[p] : starts[p + 1]]`, and `missing[p]` scopes without a place.
        """
        return self._profiles.expansion()

    def scopes(self, profile: int) -> tuple[int, ...]:
        """The scope numbers of a profile; the first is its service's, unless that has no place."""
        return self._profiles.scopes[profile]

    def whole(self, profile: int) -> int:
        """The profile of the same service without flags."""
        return self._profiles.whole(profile)

    @property
    def unread(self) -> Mapping[int, tuple[UnreadVariant, ...]]:
        """The unreadable variants of each profile that has any."""
        return self._profiles.unread

    def listed(self, kind: bytes, encoded: bytes, read: Callable[[bytes, Table], list[int]]) -> Int:
        """The numbers of the entries of an encoded list; `read` decodes a list that is not remembered."""
        key = kind + encoded
        found = self._lists.get(key)
        if found is None:
            found = np.array(read(encoded, self), dtype=np.int64)
            if len(key) <= LONGEST_LIST and not self._size.reached(OVERFULL):
                self._size.grow(len(key) + found.nbytes)
                self._lists[key] = found
        return found


class Instances(dict[str | None, int]):
    """Instance numbers; `names[number]` is the name. An overfull table gives new instances the number of ""."""

    def __init__(self, size: Size) -> None:
        super().__init__({None: NO_INSTANCE, "": NO_INSTANCE})
        self._size = size
        self.names = [""]

    def __missing__(self, name: str) -> int:
        try:
            check_name("instance", name)
        except ValueError:
            return INVALID
        if self._size.reached(OVERFULL):
            return NO_INSTANCE
        self._size.grow(len(name))
        self[name] = number = len(self.names)
        self.names.append(name)
        return number


class Measures(dict[str, int]):
    """Measure numbers, NOT_KEPT past the limit; `names[number]` is the name.

    `own` are flipback's measures: they have numbers, but samples cannot use them.
    """

    NOT_KEPT: Final = -2

    def __init__(self, watched: frozenset[str], own: Sequence[str] = ()) -> None:
        self.names = sorted(watched)
        super().__init__({name: number for number, name in enumerate(self.names)})
        self.names += own
        self._limit = len(self.names) + MAX_MEASURES

    def __missing__(self, name: str) -> int:
        try:
            check_name("measure", name)
        except ValueError:
            return INVALID
        if len(self.names) >= self._limit:
            return self.NOT_KEPT
        self[name] = number = len(self.names)
        self.names.append(name)
        return number
