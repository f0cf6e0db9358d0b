"""JSON edited as text, so that all that is not meant to change stays byte by byte.

Re-serialising would lose the order of keys, number formats, escapes and layout that people and reviews rely on. The
decoder of the standard library says where each value ends, which is all that is needed to find a member's span.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

from agent.errors import Invalid


class JsonMember(NamedTuple):
    """A member of a JSON object: its name and the spans of its key and value in the text."""

    name: str
    key_start: int
    key_end: int
    value_start: int
    value_end: int


class Edit(NamedTuple):
    """`text` in the place of what stands from `start` to `end`."""

    start: int
    end: int
    text: str


def parse(text: str) -> Any:
    """The value of a text. Raises Invalid, also where a name stands twice in one object, or it is nested too deeply."""
    try:
        value = _decoder.decode(text)
    except RecursionError as error:
        raise Invalid("JSON nested too deeply") from error
    except ValueError as error:
        raise Invalid(f"as JSON: {error}") from error
    if too_deep(value):
        raise Invalid("JSON nested too deeply")
    return value


def too_deep(value: object) -> bool:
    """Is a value nested so deeply that what walks through it could fail? Flag systems hold 32 levels at most."""
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


def members(text: str, at: int) -> Iterator[JsonMember]:
    """The members of the object that starts at `at` of a text that has been parsed already."""
    at = blank(text, at + 1)
    while text[at] != "}":
        key_start = at
        name, key_end = _decoder.raw_decode(text, at)
        value_start = blank(text, blank(text, key_end) + 1)
        _, value_end = _decoder.raw_decode(text, value_start)
        yield JsonMember(name, key_start, key_end, value_start, value_end)
        at = _next(text, value_end)


def elements(text: str, at: int) -> Iterator[tuple[int, int]]:
    """The spans of the elements of the array that starts at `at` of a text that has been parsed already."""
    at = blank(text, at + 1)
    while text[at] != "]":
        _, end = _decoder.raw_decode(text, at)
        yield at, end
        at = _next(text, end)


def edited(text: str, edits: Iterable[Edit]) -> str:
    """The text with all edits, whose spans do not overlap."""
    # From the back, so that the spans before an edit stay true.
    for edit in sorted(edits, reverse=True):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text


def with_members(text: str, wanted: Mapping[str, object]) -> str:
    """The object with members set to values. One that says so already keeps its spelling; an empty one is not added."""
    value = parse(text)
    found = list(members(text, 0))
    if not found:
        raise Invalid("the flag's definition is empty")
    last = found[-1]
    before = text[: last.key_start]
    opening = before[len(before.rstrip(BLANKS)) :]
    colon = text[last.key_end : last.value_start]
    added = "".join(
        f",{opening}{_dumped(name)}{colon}{_dumped(content)}"
        for name, content in wanted.items()
        if name not in value and content != {}
    )
    changed = [
        Edit(member.value_start, member.value_end, _dumped(wanted[member.name]))
        for member in found
        if member.name in wanted and value[member.name] != wanted[member.name]
    ]
    return edited(text[: last.value_end] + added + text[last.value_end :], changed)


def compact(text: str) -> str:
    """The same tokens without white space between them, for a text that has been parsed already."""
    return _STRING_OR_WHITE.sub(r"\1", text)


def blank(text: str, at: int) -> int:
    """Where the white space that begins at `at` ends."""
    return _WHITE.match(text, at).end()  # type: ignore[union-attr]  # matches the empty string too


def no_constant(name: str) -> NoReturn:
    """For a decoder: JSON has no NaN and no Infinity."""
    raise ValueError(f"{name} is no JSON number")


def _dumped(value: object) -> str:
    # As people write it: a file of ours is UTF-8, and needs no escapes.
    return json.dumps(value, ensure_ascii=False)


def _next(text: str, at: int) -> int:
    """Where the next member or element begins, or the object or array ends, behind a value that ends at `at`."""
    at = blank(text, at)
    return blank(text, at + 1) if text[at] == "," else at


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice!r} stands twice in one object, and readers differ on which one counts")
    return found


_DEEPEST = 100
BLANKS = " \t\n\r"
_WHITE = re.compile(f"[{BLANKS}]*")
_STRING_OR_WHITE = re.compile(rf'("(?:[^"\\]|\\.)*")|[{BLANKS}]+')
_decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=no_constant)
