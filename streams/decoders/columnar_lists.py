"""The lists of a columnar batch: the numbers of their entries, and the faults of entries that cannot be read.

A list is decoded strictly, all entries at once. Only a list that fails is decoded entry by entry.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta, Raw

from streams.decoders.faults import Why, shown
from streams.decoders.interner import Table
from streams.decoders.profiles import INVALID
from streams.telemetry.columnar import Kind, Profile
from streams.telemetry.sample import CACHES, LOOKUPS, MAX_STATUS, OUTCOMES, UNREADABLE, Kinds

LONGEST_LIST: Final = 1 << 16
"""Entries of a list at most: each becomes a Python object, and a record of 4 MiB could hold a million."""
_profiles: Final = msgspec.msgpack.Decoder(Annotated[list[Profile], Meta(max_length=LONGEST_LIST)]).decode
_instances: Final = msgspec.msgpack.Decoder(Annotated[list[str], Meta(max_length=LONGEST_LIST)]).decode
_kinds: Final = msgspec.msgpack.Decoder(Annotated[list[Kind], Meta(max_length=LONGEST_LIST)]).decode
_kind_numbers: Final = Kinds()
_profile: Final = msgspec.msgpack.Decoder(Profile).decode
_entries: Final = msgspec.msgpack.Decoder(Annotated[list[Raw], Meta(max_length=LONGEST_LIST)]).decode
_NO_STATUS, _NO_OUTCOME, NO_CACHE = 1 << 10, 1 << 11, 1 << 12
KIND: Final = _NO_STATUS - 1
KIND_FAULTS: Final = (
    (_NO_STATUS, Why("status", f"must be a whole number from 0 to {MAX_STATUS}")),
    (_NO_OUTCOME, Why("outcome", f"must be one of {', '.join(OUTCOMES)}")),
    (NO_CACHE, Why("cache", f"must be one of {', '.join(CACHES)}")),
)


class Damaged(ValueError):
    """The parts of a batch do not fit together."""


def profile_numbers(raw: bytes, table: Table) -> list[int]:
    """The number of each profile, INVALID if its service or environment cannot be read."""
    try:
        profiles = _profiles(raw)
    except msgspec.ValidationError:
        profiles = [_profile_or_none(entry) for entry in _entries(raw)]
    return [
        INVALID if profile is None else table.msgpack[profile.environment, profile.service, bytes(profile.flags)]
        for profile in profiles
    ]


def _profile_or_none(entry: Raw) -> Profile | None:
    try:
        return _profile(entry)
    except msgspec.ValidationError:
        return None


def instance_numbers(raw: bytes, table: Table) -> list[int]:
    """The number of each instance, INVALID if its name cannot be read."""
    try:
        return [table.instances[name] for name in _instances(raw) or [""]]
    except msgspec.ValidationError:
        names = [msgspec.msgpack.decode(entry) for entry in _entries(raw)]
        return [table.instances[name] if isinstance(name, str) else INVALID for name in names]


def numbers_of_kinds(raw: bytes, table: Table) -> list[int]:
    """The number of each kind without the fields that cannot be read, plus a bit of `KIND_FAULTS` for each of those."""
    try:
        kinds = _kinds(raw)
    except msgspec.ValidationError:
        kinds = [_loose_kind(msgspec.msgpack.decode(entry)) for entry in _entries(raw)]
    return [_kind_number(kind) for kind in kinds] or [_kind_numbers[None, None, None, None]]


def _loose_kind(entry: object) -> Kind:
    if not isinstance(entry, list) or len(entry) < 3:
        raise Damaged(f"a kind is {shown(entry)}, expected [status, outcome, cache]")
    status, outcome, cache = entry[:3]
    return Kind(
        status if status is None or (isinstance(status, int) and not isinstance(status, bool)) else -1,
        outcome if outcome is None or isinstance(outcome, str) else UNREADABLE,
        cache if cache is None or isinstance(cache, str) else UNREADABLE,
    )


def _kind_number(kind: Kind) -> int:
    """The number of a kind without the fields that cannot be read, plus a bit for each of those."""
    bits, status, outcome, cache = 0, kind.status, kind.outcome, kind.cache
    if status is not None and not 0 <= status <= MAX_STATUS:
        bits, status = bits | _NO_STATUS, None
    if outcome is not None and outcome not in OUTCOMES:
        bits, outcome = bits | _NO_OUTCOME, UNREADABLE
    if cache is not None and cache not in LOOKUPS:
        cache = cache.lower()
        if cache not in CACHES:
            bits, cache = bits | NO_CACHE, None
    return _kind_numbers[status, outcome, cache, None] | bits
