"""Flags with odd definitions, as people leave them, are flipped and restored exactly: every flip can be undone."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.backends.contract import Outcome
from tests.support.places import REF, Place
from tests.support.places import place as at_place
from tests.support.places.firestore import FirestorePlace
from tests.support.places.flagd_file import FlagdFilePlace
from tests.support.places.rtdb import RealtimeDatabasePlace

VARIANTS = {"on": True, "off": False}

ODD: dict[str, dict[str, Any]] = {
    "targeting is null": {"state": "ENABLED", "variants": VARIANTS, "defaultVariant": "on", "targeting": None},
    "no state": {"variants": VARIANTS, "defaultVariant": "on"},
    "state in small letters": {"state": "enabled", "variants": VARIANTS, "defaultVariant": "on"},
    "state is a number": {"state": 1, "variants": VARIANTS, "defaultVariant": "on"},
    "a default that is no variant": {"state": "ENABLED", "variants": VARIANTS, "defaultVariant": "gone"},
    "no default": {"state": "DISABLED", "variants": VARIANTS},
    "a default that is no text": {"state": "ENABLED", "variants": VARIANTS, "defaultVariant": {"a": 1}},
    "targeting is text": {"state": "ENABLED", "variants": VARIANTS, "defaultVariant": "on", "targeting": "all"},
    "variants of mixed kinds": {"state": "ENABLED", "variants": {"on": 1, "off": "no"}, "defaultVariant": "on"},
    "variants that are arrays": {
        "state": "ENABLED",
        "variants": {"on": [1], "off": ["a", "b"]},
        "defaultVariant": "on",
    },
    "variants with numbers for names": {
        "state": "ENABLED",
        "variants": {"on": {"0": "a", "1": "b"}, "off": {"0": "c", "1": "d"}},
        "defaultVariant": "on",
    },
}


def put(place: object, definition: dict[str, Any]) -> None:
    """Store the definition unchanged, as a person would."""
    match place:
        case FlagdFilePlace():
            place.put(definition)
        case RealtimeDatabasePlace():
            place.fake.set("flags/new-checkout", definition)
        case FirestorePlace():
            place.put(definition)
        case _:
            raise NotImplementedError


@pytest.fixture(params=["flagd-file", "firestore", "rtdb"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    async with at_place(request.param, tmp_path) as made:
        yield made


def soon() -> float:
    return time.monotonic() + 60


@pytest.mark.parametrize("definition", ODD.values(), ids=ODD)
async def test_an_odd_flag_is_flipped_and_restored_as_it_was(place: Place, definition: dict[str, Any]) -> None:
    put(place, definition)
    before, backend = await place.content(), place.backend
    assert (await backend.health([(REF, "off")], deadline=soon())).ok
    snapshot = await backend.snapshot(REF, deadline=soon())
    operation = str(uuid.uuid4())
    flipped = await backend.apply(REF, "off", expect=snapshot.state.version, op_id=operation, deadline=soon())
    assert flipped.outcome is Outcome.APPLIED
    now = await backend.read(REF, deadline=soon())
    assert now.variant == "off"
    restored = await backend.restore(snapshot, expect=now.version, op_id=f"{operation}.restore", deadline=soon())
    assert restored.outcome is Outcome.APPLIED
    assert await place.content() == before
    assert (await backend.read(REF, deadline=soon())).version == snapshot.state.version


@pytest.mark.parametrize("absent", [{}, {"targeting": None}, {"targeting": {}}], ids=json.dumps)
async def test_a_flag_whose_targeting_is_absent_in_any_spelling_is_told_and_not_written_once_more(
    place: Place, absent: dict[str, Any]
) -> None:
    put(place, {"state": "ENABLED", "variants": VARIANTS, "defaultVariant": "off", **absent})
    before = await place.content()
    state = await place.backend.read(REF, deadline=soon())
    assert state.variant == "off"
    result = await place.backend.apply(REF, "off", expect=state.version, op_id="1", deadline=soon())
    assert result.outcome is Outcome.ALREADY
    assert await place.content() == before
