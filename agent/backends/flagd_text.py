"""A flag's definition inside a flagd file, edited as text, so that all that is not meant to change stays byte by byte.

The rules of a definition are those of https://flagd.dev/schema/v0/flags.json.
"""

from __future__ import annotations

import hashlib
from typing import Any

from agent.backends import flag_definition
from agent.backends.contract import FlagState
from agent.backends.flag_definition import problem
from agent.backends.json_text import blank, members, parse, with_members
from agent.errors import Invalid, NotFound


class Document:
    """The text of a flagd file, which errors call `where`. Raises Invalid where it is no JSON object of flags."""

    def __init__(self, content: bytes, where: str = "the file") -> None:
        self.content = content
        self.where = where
        try:
            self.text = content.decode()
            value = parse(self.text)
        except (UnicodeDecodeError, Invalid) as error:
            raise Invalid(f"{where} cannot be used: {error}") from error
        if not isinstance(value, dict) or not isinstance(value.get("flags"), dict):
            raise Invalid(
                f'{where} has no object "flags" at its top; flipback edits flagd files in JSON with a map of flags'
            )
        self.values: dict[str, Any] = value["flags"]
        top = {member.name: member for member in members(self.text, blank(self.text, 0))}
        self._spans = {member.name: member for member in members(self.text, top["flags"].value_start)}

    def definition(self, flag: str) -> str:
        """The text of the flag's own definition. Raises NotFound, or Invalid where it is no object."""
        span = self._spans.get(flag)
        if span is None:
            raise NotFound(f"{self.where} has no flag {flag!r}; it has {', '.join(sorted(self._spans)) or 'none'}")
        if not isinstance(self.values[flag], dict):
            raise Invalid(f"{self.where}: flag {flag!r} is no object")
        return self.text[span.value_start : span.value_end]

    def replaced(self, flag: str, definition: str) -> Document:
        """The file with another definition of `flag`. Raises Invalid where that would not be a valid one."""
        self.check(flag, definition)
        span = self._spans[flag]
        content = (self.text[: span.value_start] + definition + self.text[span.value_end :]).encode()
        after = Document(content, self.where)
        if {**after.values, flag: None} != {**self.values, flag: None} or after.values[flag] != parse(definition):
            raise Invalid(f"{self.where}: an edit of flag {flag!r} would change another flag, and was not made")
        return after

    def check(self, flag: str, definition: str) -> None:
        """Raises Invalid where this would not be a valid definition of the flag."""
        broken = problem(parse(definition))
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
    value = parse(definition)
    return FlagState(
        variant=flag_definition.variant(value),
        percent=flag_definition.percent(value),
        version=version(definition),
        raw=definition,
    )


def all_to(definition: str, target: str) -> str:
    """The definition by which every subject gets `target`."""
    return with_members(definition, flag_definition.all_to(target))


def percent_to(definition: str, variant: str, rest: str, percent: float) -> str:
    """The definition by which `percent` of the subjects get `variant` and the others `rest`.

    Raises Unsupported where the flag has rules of another kind, which would be lost.
    """
    return with_members(definition, flag_definition.percent_to(parse(definition), variant, rest, percent))
