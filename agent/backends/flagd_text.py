"""A flag's definition inside a flagd file, edited as text, so that all that is not meant to change stays byte by byte.

Re-serialising JSON would lose the order of keys, number formats, escapes and layout that people and reviews rely on.
The decoder of the standard library says where each value ends, which is all that is needed to find a member's span.
The rules of a definition are those of https://flagd.dev/schema/v0/flags.json.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

from agent.backends import flag_definition
from agent.backends.contract import FlagState
from agent.backends.flag_definition import problem
from agent.errors import Invalid, NotFound


class Member(NamedTuple):
    """A member of a JSON object: its name and the spans of its key and value in the text."""

    name: str
    key_start: int
    key_end: int
    value_start: int
    value_end: int


class Document:
    """The text of a flagd file, which errors call `where`. Raises Invalid where it is no JSON object of flags."""

    def __init__(self, content: bytes, where: str = "the file") -> None:
        self.where = where
        try:
            self.text = content.decode()
            value = _parse(self.text)
        except (UnicodeDecodeError, Invalid) as error:
            raise Invalid(f"{where} cannot be used: {error}") from error
        if not isinstance(value, dict) or not isinstance(value.get("flags"), dict):
            raise Invalid(
                f'{where} has no object "flags" at its top; flipback edits flagd files in JSON with a map of flags'
            )
        self.values: dict[str, Any] = value["flags"]
        top = {member.name: member for member in _members(self.text, _blank(self.text, 0))}
        self._spans = {member.name: member for member in _members(self.text, top["flags"].value_start)}

    def definition(self, flag: str) -> str:
        """The text of the flag's own definition. Raises NotFound, or Invalid where it is no object."""
        span = self._spans.get(flag)
        if span is None:
            raise NotFound(f"{self.where} has no flag {flag!r}; it has {', '.join(sorted(self._spans)) or 'none'}")
        if not isinstance(self.values[flag], dict):
            raise Invalid(f"{self.where}: flag {flag!r} is no object")
        return self.text[span.value_start : span.value_end]

    def replaced(self, flag: str, definition: str) -> bytes:
        """The file with another definition of `flag`. Raises Invalid where that would not be a valid one."""
        self.check(flag, definition)
        span = self._spans[flag]
        content = (self.text[: span.value_start] + definition + self.text[span.value_end :]).encode()
        after = Document(content).values
        if {**after, flag: None} != {**self.values, flag: None} or after[flag] != _parse(definition):
            raise Invalid(f"{self.where}: an edit of flag {flag!r} would change another flag, and was not made")
        return content

    def check(self, flag: str, definition: str) -> None:
        """Raises Invalid where this would not be a valid definition of the flag."""
        broken = problem(_parse(definition))
        if broken:
            raise Invalid(f"{self.where}: flag {flag!r}: {broken}")

    def doubts(self, flag: str) -> str:
        """What is wrong with other flags; clients that check the whole file may keep their last good copy."""
        broken = ((name, problem(value)) for name, value in self.values.items() if name != flag)
        return "; ".join(f"flag {name!r}: {what}" for name, what in broken if what)


def version(definition: str) -> str:
    """Names the definition's text: the flag judged and nothing else, so that edits to other flags do not conflict."""
    return hashlib.sha256(definition.encode()).hexdigest()[:16]


def state(definition: str) -> FlagState:
    """What subjects get."""
    value = _parse(definition)
    return FlagState(
        variant=flag_definition.variant(value),
        percent=flag_definition.percent(value),
        version=version(definition),
        raw=definition,
    )


def all_to(definition: str, target: str) -> str:
    """The definition by which every subject gets `target`."""
    return _edited(definition, flag_definition.all_to(target))


def percent_to(definition: str, variant: str, rest: str, percent: float) -> str:
    """The definition by which `percent` of the subjects get `variant` and the others `rest`.

    Raises Unsupported where the flag has rules of another kind, which would be lost.
    """
    return _edited(definition, flag_definition.percent_to(_parse(definition), variant, rest, percent))


def _edited(definition: str, wanted: Mapping[str, object]) -> str:
    """Set members to values. One that means it already keeps its spelling; an empty one is not added."""
    value = _parse(definition)
    found = list(_members(definition, 0))
    if not found:
        raise Invalid("the flag's definition is empty")
    last = found[-1]
    before = definition[: last.key_start]
    opening = before[len(before.rstrip(_BLANKS)) :]
    colon = definition[last.key_end : last.value_start]
    # From the back, so that the spans before an edit stay true.
    text = definition[: last.value_end]
    for name, content in wanted.items():
        if name not in value and content != {}:
            text += f",{opening}{json.dumps(name)}{colon}{json.dumps(content)}"
    text += definition[last.value_end :]
    for member in reversed(found):
        if member.name in wanted and value[member.name] != wanted[member.name]:
            text = text[: member.value_start] + json.dumps(wanted[member.name]) + text[member.value_end :]
    return text


def _parse(text: str) -> Any:
    try:
        return _decoder.decode(text)
    except RecursionError as error:
        raise Invalid("JSON nested too deeply") from error
    except ValueError as error:
        raise Invalid(f"as JSON: {error}") from error


def _members(text: str, at: int) -> Iterator[Member]:
    """The members of the object that starts at `at` of a text that has been parsed already."""
    at = _blank(text, at + 1)
    while text[at] != "}":
        key_start = at
        name, key_end = _decoder.raw_decode(text, at)
        value_start = _blank(text, _blank(text, key_end) + 1)
        _, value_end = _decoder.raw_decode(text, value_start)
        yield Member(name, key_start, key_end, value_start, value_end)
        at = _blank(text, value_end)
        if text[at] == ",":
            at = _blank(text, at + 1)


def _blank(text: str, at: int) -> int:
    """Where the white space that begins at `at` ends."""
    return _WHITE.match(text, at).end()  # type: ignore[union-attr]  # matches the empty string too


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice!r} stands twice in one object, and readers differ on which one counts")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


_BLANKS = " \t\n\r"
_WHITE = re.compile(f"[{_BLANKS}]*")
_decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
