"""Edits JSON as text, so that everything else in it stays byte for byte.

Serialising the parsed value would lose the number formats, escapes and layout that people and reviews rely on. The
decoder of the standard library returns where each value ends, which is enough to find the span of a member.
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
    """Replace the text from `start` to `end` by `text`."""

    start: int
    end: int
    text: str


def parse(text: str) -> Any:
    """Return the value of a text. Raises Invalid, also if an object has a name twice, or it is nested too deeply."""
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
    """Is a value nested so deeply that a walk through it could fail? Flag systems hold 32 levels at most."""
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
    """Yield the members of the object that begins at `at` in a text that has been parsed before."""
    at = blank(text, at + 1)
    while text[at] != "}":
        key_start = at
        name, key_end = _decoder.raw_decode(text, at)
        value_start = blank(text, blank(text, key_end) + 1)
        _, value_end = _decoder.raw_decode(text, value_start)
        yield JsonMember(name, key_start, key_end, value_start, value_end)
        at = _next(text, value_end)


def elements(text: str, at: int) -> Iterator[tuple[int, int]]:
    """Yield the spans of the elements of the array that begins at `at` in a text that has been parsed before."""
    at = blank(text, at + 1)
    while text[at] != "]":
        _, end = _decoder.raw_decode(text, at)
        yield at, end
        at = _next(text, end)


def edited(text: str, edits: Iterable[Edit]) -> str:
    """Apply edits to a text; their spans do not overlap."""
    # From the back, so that the spans before an edit stay valid.
    for edit in sorted(edits, reverse=True):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text


def with_members(text: str, wanted: Mapping[str, object]) -> str:
    """Set members of an object; return its text.

    A member that already has the value keeps its spelling. An empty object is not added as a new member.
    """
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
    """Remove the white space between the tokens of a text that has been parsed before."""
    return _STRING_OR_WHITE.sub(r"\1", text)


def blank(text: str, at: int) -> int:
    """Return where the white space that begins at `at` ends."""
    return _WHITE.match(text, at).end()  # type: ignore[union-attr]  # matches the empty string too


def no_constant(name: str) -> NoReturn:
    """Refuse a constant, as a decoder's `parse_constant`: JSON has no NaN and no Infinity."""
    raise ValueError(f"{name} is no JSON number")


def _dumped(value: object) -> str:
    # Without escapes, as people write it: the text is UTF-8.
    return json.dumps(value, ensure_ascii=False)


def _next(text: str, at: int) -> int:
    """Return where, after a value that ends at `at`, the next member or element begins, or the object or array ends."""
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
