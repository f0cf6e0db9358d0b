"""Profiles: the environment, service and watched variants that samples of the same scopes share.

Sums are made by profile first and expanded to scopes afterwards, so the cost of a sample does not grow with its flags.
Only the watched flags of a service are read; a variant that cannot be read is counted by a measure of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, Protocol

import numpy as np

from detectors.arrays import Int
from detectors.cells import Scope
from detectors.windows.unreadable import unreadable
from streams.decoders.faults import Why, shown
from streams.decoders.lenient import check_name, variant_fault
from streams.decoders.watch_list import WatchList
from streams.telemetry.sample import DEFAULT_ENVIRONMENT

INVALID: Final = -1
"""Number of a profile or name that cannot be used; `FlagMaps.explain` gives the reason."""
TABLE_ENTRIES: Final = 1 << 15
TABLE_BYTES: Final = 1 << 24
OVERFULL: Final = 4
"""A table is replaced only between slices. Past this multiple of its size, new entries are not remembered."""
LONGEST_KEPT: Final = 4096
"""Bytes of a flag map up to which it is remembered; a longer one is decoded every time."""

ProfileKey = tuple[str | None, str, bytes]
"""Environment (None for the default), service, and the encoded flag map (empty for none)."""


class UnreadVariant(NamedTuple):
    """A variant that cannot be read: the number of the measure that counts it, and the reason."""

    measure: int
    why: Why


class Size:
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


class Numbers(Protocol):
    """The numbers of scopes and of measures, as `streams.decoders.interner.Interner` has them.

    `scopes` are in the order of their numbers. `unreadable` maps the measures that count unreadable fields to their
    numbers.
    """

    watch: WatchList
    scopes: list[Scope]
    unreadable: dict[str, int]

    def scope_id(self, scope: Scope) -> int:
        """The number of a scope, INVALID if all places are taken."""


class Profiles:
    """Numbers of profiles."""

    def __init__(self, known: Numbers) -> None:
        self._known = known
        self._ids: dict[tuple[int, tuple[int, ...], tuple[UnreadVariant, ...]], int] = {}
        self.scopes: list[tuple[int, ...]] = []
        self.unread: dict[int, tuple[UnreadVariant, ...]] = {}
        """The unreadable variants of each profile that has any."""
        self._missing: list[int] = []
        self._expansion: tuple[Int, Int, Int] | None = None

    def number(self, environment: str, service: str, flags: object) -> int:
        """The number of a sample's profile. Raises ValueError if the environment or service is not a good name."""
        check_name("environment", environment)
        check_name("service", service)
        watched = self._known.watch.flags.get((environment, service), frozenset())
        variants, faults = _variants(flags, watched)
        scopes = [Scope(environment, service), *(Scope(environment, service, *one) for one in sorted(variants.items()))]
        numbers = [self._known.scope_id(scope) for scope in scopes]
        unread = tuple(
            UnreadVariant(self._known.unreadable[unreadable("variant", flag)], why)
            for flag, why in sorted(faults.items())
        )
        return self._numbered(numbers.count(INVALID), tuple(n for n in numbers if n != INVALID), unread)

    def whole(self, profile: int) -> int:
        """The profile of the same service without flags."""
        scopes = self.scopes[profile]
        known = bool(scopes) and not self._known.scopes[scopes[0]].flag
        return self._numbered(0 if known else 1, scopes[:1] if known else (), ())

    def _numbered(self, missing: int, scopes: tuple[int, ...], unread: tuple[UnreadVariant, ...]) -> int:
        # The example is not part of the key: variants with different bad values share a profile.
        key = missing, scopes, tuple(one._replace(why=one.why._replace(example="")) for one in unread)
        found = self._ids.get(key)
        if found is None:
            self._ids[key] = found = len(self.scopes)
            self._missing.append(missing)
            self.scopes.append(scopes)
            if unread:
                self.unread[found] = unread
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
    """Profile numbers by the encoded flag map: a known map costs one look-up and is not decoded."""

    def __init__(self, profiles: Profiles, size: Size, parse: Callable[[bytes], object]) -> None:
        super().__init__()
        self._profiles = profiles
        self._size = size
        self._parse = parse

    def __missing__(self, key: ProfileKey) -> int:
        try:
            found = self._resolve(key)
        except ValueError:
            found = INVALID
        if len(key[2]) <= LONGEST_KEPT and not self._size.reached(OVERFULL):
            self._size.grow(len(key[1]) + len(key[2]))
            self[key] = found
        return found

    def explain(self, key: ProfileKey) -> str:
        """Why the number of `key` is INVALID."""
        try:
            self._resolve(key)
        except ValueError as error:
            return str(error)
        raise LookupError(f"{key} is not invalid")

    def _resolve(self, key: ProfileKey) -> int:
        environment, service, encoded = key
        return self._profiles.number(
            DEFAULT_ENVIRONMENT if environment is None else environment, service, self._read(encoded)
        )

    def _read(self, encoded: bytes) -> object:
        try:
            return self._parse(encoded) if encoded else None
        # RecursionError: thousands of nested arrays in place of a variant.
        except (ValueError, RecursionError):
            return False


def _variants(flags: object, watched: frozenset[str]) -> tuple[dict[str, str], Mapping[str, Why]]:
    """The variants of the watched flags, and the reasons for those that cannot be read."""
    if flags is None:
        return {}, {}
    if not isinstance(flags, dict):
        why = Why("flags", "must be an object with the variant of each flag", shown(flags))
        return {}, dict.fromkeys(watched, why)
    variants, faults = {}, {}
    for flag in watched & flags.keys():
        said = variant_fault(flags[flag])
        if said is not None:
            faults[flag] = Why(f"flags.{flag}", said, shown(flags[flag]))
        elif flags[flag]:
            variants[flag] = flags[flag]
    return variants, faults
