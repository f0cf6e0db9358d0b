"""The table that maps keys to rows."""

from __future__ import annotations

import pytest

from detectors.cells import Scope
from detectors.windows.slots import Slots


def assign(slots: Slots[str], second: int, *tables: str, silent_before: int = 0) -> list[list[int]]:
    return [found.tolist() for found in slots.assign([list(t) for t in tables], second, silent_before)]


def test_a_key_keeps_its_slot() -> None:
    slots: Slots[str] = Slots(4)
    first = assign(slots, 1, "ab")
    assert assign(slots, 2, "ba", "b") == [first[0][::-1], first[0][1:]]
    assert slots.key(first[0][0]) == "a"


def test_reserved_keys_come_first_and_are_never_evicted() -> None:
    slots: Slots[str] = Slots(3, reserved=["r", "s", "r"])
    assert (slots.get("r"), slots.get("s"), slots.reserved) == (0, 1, 2)
    assign(slots, 1, "x")
    assert assign(slots, 100, "y", silent_before=100) == [[2]]
    assert (slots.get("r"), slots.get("s"), slots.get("x")) == (0, 1, -1)


def test_reserved_keys_beyond_the_capacity_have_no_slot() -> None:
    slots: Slots[Scope] = Slots(1, reserved=[Scope("e", "b"), Scope("e", "a")])
    assert (slots.get(Scope("e", "b")), slots.get(Scope("e", "a"))) == (0, -1)


def test_only_silent_keys_make_room() -> None:
    slots: Slots[str] = Slots(2)
    assign(slots, 1, "a")
    assign(slots, 5, "b")
    assert assign(slots, 9, "c", silent_before=1) == [[-1]]
    assert assign(slots, 9, "c", silent_before=5) == [[0]]
    assert slots.get("a") == -1
    assert slots.get("b") == 1


def test_a_key_that_speaks_again_is_not_evicted_for_a_newcomer_of_the_same_second() -> None:
    slots: Slots[str] = Slots(1)
    assign(slots, 1, "a")
    assert assign(slots, 100, "b", "a", silent_before=100) == [[-1], [0]]


def test_no_key_is_evicted_while_there_is_room() -> None:
    slots: Slots[str] = Slots(3)
    assign(slots, 1, "a")
    assign(slots, 100, "b", silent_before=100)
    assert slots.get("a") == 0


def test_a_slot_given_up_is_used_again_and_only_once() -> None:
    slots: Slots[str] = Slots(3)
    assign(slots, 1, "abc")
    found = assign(slots, 9, "defgh", silent_before=9)[0]
    assert sorted(found) == [-1, -1, 0, 1, 2]
    assert slots.refused == 2


def test_who_is_refused_does_not_depend_on_the_order() -> None:
    for tables in (("zyxw", "vy"), ("vy", "wxyz"), ("vwxyz",)):
        slots: Slots[str] = Slots(3)
        assign(slots, 1, *tables)
        assert slots.seen(1) == ["v", "w", "x"]
        assert slots.refused == 2


def test_seen_lists_the_recent_keys_sorted() -> None:
    slots: Slots[str] = Slots(5, reserved=["silent"])
    assign(slots, 1, "b")
    assign(slots, 2, "ca")
    assert slots.seen(2) == ["a", "c"]
    assert slots.seen(1) == ["a", "b", "c"]


def test_a_slot_without_a_key_is_an_error() -> None:
    slots: Slots[str] = Slots(2)
    with pytest.raises(KeyError):
        slots.key(0)
    with pytest.raises(KeyError):
        slots.key(-1)
