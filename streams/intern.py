"""Small integers for the strings of samples, bounded whatever is sent.

Two lifetimes. Scopes and measure names keep their number as long as the process lives, and there are at most so many;
what a trigger needs has its place reserved. Everything that can grow with the traffic (combinations of flags,
instances) is numbered by a `Table` that is replaced by an empty one when it is full; numbers of two tables have
nothing to do with each other, so a batch carries the table that numbered it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec
import numpy as np

from detectors.cells import Int, Scope
from detectors.overdue import above_ms, measure_of
from streams.sample import DEFAULT_ENVIRONMENT, MAX_NAME, Name

INVALID: Final = -1
"""Number of what may not be counted; ask `explain` for the reason."""
NO_INSTANCE: Final = 0
MAX_MEASURES: Final = 256
"""Measure names kept in one process, beside those under watch."""
TABLE_ENTRIES: Final = 1 << 15
TABLE_BYTES: Final = 1 << 24
LONGEST_KEPT: Final = 4096
"""Bytes of a flag map up to which its reading is remembered; longer ones are read anew every time."""
LONGEST_LIST: Final = 1 << 16
"""The same for a list of a columnar batch."""
OVERFULL: Final = 4
"""A table is replaced between slices. What one slice adds past so many times its size is not remembered."""

Flags = dict[str, str]


class Limit(NamedTuple):
    """A latency that a trigger compares with, in seconds; `above_ms` is the least that counts as more.

    `measure` is the number of the measure that carries the sum of the requests overdue for it.
    """

    seconds: float
    above_ms: float
    measure: int


ProfileKey = tuple[str | None, str, bytes]
"""Environment (None for the default), service, flag map as it was encoded (empty for none)."""


@dataclass(frozen=True, slots=True)
class WatchList:
    """What triggers ask for: scopes that always have a place, and the flags whose variants become scopes."""

    scopes: tuple[Scope, ...]
    flags: Mapping[tuple[str, str], frozenset[str]]
    measures: frozenset[str]
    limits: Mapping[Scope, tuple[float, ...]]

    @classmethod
    def of(
        cls, scopes: Iterable[Scope], measures: Iterable[str] = (), limits: Iterable[tuple[str, str, float]] = ()
    ) -> WatchList:
        """Build it from the scopes, measure names and latency limits of all triggers.

        A limit is environment, service and milliseconds; the service's scope is reserved too.

        A scope with a flag and no variant watches the flag; no single variant of it is then sure of a place.
        """
        reserved: set[Scope] = set()
        flags: dict[tuple[str, str], set[str]] = {}
        for scope in scopes:
            reserved.add(Scope(scope.environment, scope.service))
            if scope.flag:
                flags.setdefault((scope.environment, scope.service), set()).add(scope.flag)
                if scope.variant:
                    reserved.add(scope)
        watched = {service: frozenset(names) for service, names in flags.items()}
        crossed: dict[Scope, set[float]] = {}
        for environment, service, limit in limits:
            crossed.setdefault(Scope(environment, service), set()).add(limit)
        ascending = {scope: tuple(sorted(limits_of)) for scope, limits_of in crossed.items()}
        return cls(tuple(sorted(reserved | crossed.keys())), watched, frozenset(measures), ascending)


class Interner:
    """The numbers of one process; all decoders and reducers of the process share it."""

    def __init__(self, watch: WatchList, max_scopes: int = 2000) -> None:
        self.watch = watch
        self.scopes: list[Scope] = list(watch.scopes)
        limits = sorted({limit for limits in watch.limits.values() for limit in limits})
        self.measures = Measures(watch.measures, [measure_of(limit) for limit in limits])
        number = {limit: self.measures.names.index(measure_of(limit)) for limit in limits}
        self.limits = {
            scope_id: tuple(Limit(limit / 1000, above_ms(limit), number[limit]) for limit in watch.limits[scope])
            for scope_id, scope in enumerate(watch.scopes)
            if scope in watch.limits
        }
        """The latency limits of a service by the number of its scope, ascending."""
        self._max_scopes = max(max_scopes, len(watch.scopes))
        self._scope_ids = {scope: index for index, scope in enumerate(watch.scopes)}
        self._table = Table(self)

    def table(self) -> Table:
        """The table to number the next batch with."""
        if self._table.full:
            self._table = Table(self)
        return self._table

    def scope_id(self, scope: Scope) -> int:
        """Number of a scope, INVALID when all places are taken."""
        found = self._scope_ids.get(scope)
        if found is not None:
            return found
        if len(self.scopes) >= self._max_scopes:
            return INVALID
        self._scope_ids[scope] = found = len(self.scopes)
        self.scopes.append(scope)
        return found


class Table:
    """Numbers of profiles and instances, good for one generation.

    Nothing in it refers back to it, so that it is freed as soon as the next one has taken its place.
    """

    def __init__(self, interner: Interner) -> None:
        self._size = _Size()
        self._profiles = _Profiles(interner)
        self._lists: dict[bytes, Int] = {}
        self.json = FlagMaps(self._profiles, self._size, msgspec.json.Decoder(dict[Name, Name] | None).decode)
        self.msgpack = FlagMaps(self._profiles, self._size, msgspec.msgpack.Decoder(dict[Name, Name] | None).decode)
        self.instances = Instances(self._size)

    @property
    def full(self) -> bool:
        """Whether the next slice should have another table."""
        return self._size.reached(1)

    @property
    def profiles(self) -> int:
        """How many profiles have a number."""
        return len(self._profiles.scopes)

    def expansion(self) -> tuple[Int, Int, Int]:
        """What profiles stand for: (starts, scopes, missing).

        Profile p has the scope numbers `scopes[starts[p] : starts[p + 1]]`, and `missing[p]` scopes without a place.
        """
        return self._profiles.expansion()

    def scopes(self, profile: int) -> tuple[int, ...]:
        """The scope numbers of a profile; that of its service is the first, unless it has no place."""
        return self._profiles.scopes[profile]

    def listed(self, kind: bytes, encoded: bytes, read: Callable[[bytes, Table], list[int]]) -> Int:
        """The numbers of the entries of an encoded list of a kind, which `read` gives if it was not met before."""
        key = kind + encoded
        found = self._lists.get(key)
        if found is None:
            found = np.array(read(encoded, self), dtype=np.int64)
            if len(key) <= LONGEST_LIST and not self._size.reached(OVERFULL):
                self._size.grow(len(key) + found.nbytes)
                self._lists[key] = found
        return found


class _Size:
    """How much a table holds."""

    __slots__ = ("bytes", "entries")

    def __init__(self) -> None:
        self.entries = 0
        self.bytes = 0

    def grow(self, size: int) -> None:
        self.entries += 1
        self.bytes += size

    def reached(self, times: int) -> bool:
        return self.entries >= times * TABLE_ENTRIES or self.bytes >= times * TABLE_BYTES


class _Profiles:
    """Numbers of profiles: what samples of the same scopes share, that is environment, service and watched variants.

    A profile is expanded to its scopes when sums are made, so the cost of a sample does not grow with its flags.
    """

    def __init__(self, interner: Interner) -> None:
        self._interner = interner
        self._ids: dict[tuple[int, tuple[int, ...]], int] = {}
        self.scopes: list[tuple[int, ...]] = []
        self._missing: list[int] = []
        self._expansion: tuple[Int, Int, Int] | None = None

    def number(self, environment: str, service: str, flags: Flags) -> int:
        """Number of the profile of a sample; ValueError with the reason when a name is not fit to be kept."""
        check_name("environment", environment)
        check_name("service", service)
        for flag, variant in flags.items():
            check_name("flag", flag)
            check_name("variant", variant)
        watched = self._interner.watch.flags.get((environment, service), frozenset()) & flags.keys()
        scopes = [Scope(environment, service), *(Scope(environment, service, f, flags[f]) for f in sorted(watched))]
        numbers = [self._interner.scope_id(scope) for scope in scopes]
        key = numbers.count(INVALID), tuple(number for number in numbers if number != INVALID)
        found = self._ids.get(key)
        if found is None:
            self._ids[key] = found = len(self.scopes)
            self._missing.append(key[0])
            self.scopes.append(key[1])
        return found

    def expansion(self) -> tuple[Int, Int, Int]:
        known = self._expansion
        if known is None or len(known[2]) != len(self.scopes):
            sizes = np.fromiter(map(len, self.scopes), dtype=np.int64, count=len(self.scopes))
            starts = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(sizes)))
            scopes = np.array([scope for profile in self.scopes for scope in profile], dtype=np.int64)
            self._expansion = known = (starts, scopes, np.array(self._missing, dtype=np.int64))
        return known


class FlagMaps(dict[ProfileKey, int]):
    """Profile numbers by the flag map as encoded: a map already met costs one look-up, without being read."""

    def __init__(self, profiles: _Profiles, size: _Size, parse: Callable[[bytes], Flags | None]) -> None:
        super().__init__()
        self._profiles = profiles
        self._size = size
        self._parse = parse

    def __missing__(self, key: ProfileKey) -> int:
        try:
            found = self._resolve(key)
        except (ValueError, RecursionError):
            found = INVALID
        if len(key[2]) <= LONGEST_KEPT and not self._size.reached(OVERFULL):
            self._size.grow(len(key[1]) + len(key[2]))
            self[key] = found
        return found

    def explain(self, key: ProfileKey) -> str:
        """Why the number of `key` is INVALID."""
        try:
            self._resolve(key)
        except (ValueError, RecursionError) as error:
            return str(error).replace("`$", "`$.flags")
        raise LookupError(f"{key} is not invalid")

    def _resolve(self, key: ProfileKey) -> int:
        environment, service, encoded = key
        flags = (self._parse(encoded) or {}) if encoded else {}
        return self._profiles.number(DEFAULT_ENVIRONMENT if environment is None else environment, service, flags)


class Instances(dict[str | None, int]):
    """Instance numbers; `names[number]` is the name, "" for none and for those an overfull table has no place for."""

    def __init__(self, size: _Size) -> None:
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

    def explain(self, name: str) -> str:
        """Why the number of `name` is INVALID."""
        try:
            check_name("instance", name)
        except ValueError as error:
            return str(error)
        raise LookupError(f"instance {name!r} is not invalid")


class Measures(dict[str, int]):
    """Measure numbers, NOT_KEPT for those past the limit; `names[number]` is the name.

    `own` are names that have a number but that no sample may use.
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

    def explain(self, names: Iterable[str]) -> str:
        """Why the number of one of `names` is INVALID."""
        for name in names:
            try:
                check_name("measure", name)
            except ValueError as error:
                return str(error)
        raise LookupError("no measure is invalid")


def check_name(what: str, name: str) -> None:
    """Raise ValueError unless the name is 1 to MAX_NAME printable characters: names end up on terminals and in logs."""
    if not 1 <= len(name) <= MAX_NAME:
        raise ValueError(f"{what} must have 1 to {MAX_NAME} characters, not {len(name)}")
    if not name.isprintable():
        raise ValueError(f"{what} {name!r} has characters that do not print")
