"""Edits a flag's definition in a flagd file as text, so that everything else stays byte for byte.

The rules of a definition are those of https://flagd.dev/schema/v0/flags.json.
"""

from __future__ import annotations

import hashlib
from copy import copy
from typing import Any, NamedTuple

from agent.backends import flag_definition
from agent.backends.contract import FlagState
from agent.backends.flag_definition import problem
from agent.backends.flagd import readers as flagd_readers
from agent.backends.json_scan import Scan
from agent.backends.json_text import blank, parse, with_members
from agent.backends.shown import nearest, shown
from agent.errors import Invalid, NotFound

_DIFFER = "readers differ on which one counts; delete one of them"


class _Span(NamedTuple):
    """The position of a flag: where its key begins, and the span of its definition."""

    key: int
    start: int
    end: int


class FlagdDocument:
    """The text of a flagd file, which errors call `where`. Raises Invalid if it is no JSON object of flags.

    `values` are the flags' definitions.
    """

    def __init__(self, content: bytes, where: str = "the file") -> None:
        self.content = content
        self.where = where
        self.values: dict[str, Any] = {}
        self._spans: dict[str, _Span] = {}
        self._ambiguous: set[str] = set()
        """Flags whose definition has a duplicate name."""
        self._duplicates: dict[str, list[int]] = {}
        """For flags that the file has more than once, where each of their keys begins."""
        self._top: dict[str, Any] = {}
        self._top_duplicates: list[tuple[str, int]] = []
        """Duplicate names outside the flags, and where the second key begins."""
        try:
            self.text = content.decode()
            scan = Scan(self.text)
            begin = blank(self.text, 0)
            if self.text[begin : begin + 1] == "{":
                scan.end(scan.members(begin, lambda *member: self._member(scan, *member)))
            else:
                scan.end(scan.value(begin)[1])
        except RecursionError:
            raise Invalid(f"{where} cannot be used: JSON nested too deeply") from None
        except ValueError as error:
            raise Invalid(flagd_readers.unreadable(content, where, error)) from None
        if self._top.get("flags") is not self.values:
            raise Invalid(flagd_readers.no_flags(self._top, where))

    def definition(self, flag: str) -> str:
        """Return the text of the flag's definition. Raises NotFound, or Invalid if it is not exactly one object."""
        span = self._spans.get(flag)
        if span is None:
            raise NotFound(f"{self.where} has no flag {flag!r}; it has {nearest(flag, self._spans)}")
        if flag in self._duplicates:
            lines = " and ".join(str(self._line(at)) for at in self._duplicates[flag][:2])
            raise Invalid(f"{self.where}: flag {flag!r} stands twice, in lines {lines}; {_DIFFER}")
        if flag in self._ambiguous:
            raise Invalid(f"{self.where}: flag {flag!r}: {self._duplicate_name(span.start)}; {_DIFFER}")
        if not isinstance(self.values[flag], dict):
            raise Invalid(f"{self.where}: flag {flag!r} is no object")
        return self.text[span.start : span.end]

    def replaced(self, flag: str, definition: str) -> FlagdDocument:
        """Return the file with another definition of `flag`, unchecked. Raises Invalid if that is no JSON."""
        value, span = parse(definition), self._spans[flag]
        # One whole value replaces another: all other values stay, and only their positions move.
        after = copy(self)
        after.text = self.text[: span.start] + definition + self.text[span.end :]
        after.content = after.text.encode()
        after.values = {**self.values, flag: value}
        by = len(definition) - (span.end - span.start)
        after._spans = {
            name: _Span(other.key + by, other.start + by, other.end + by) if other.key > span.key else other
            for name, other in self._spans.items()
        }
        after._spans[flag] = _Span(span.key, span.start, span.end + by)
        after._duplicates = {
            name: [place + by if place > span.key else place for place in places]
            for name, places in self._duplicates.items()
        }
        after._top_duplicates = [
            (name, place + by if place > span.key else place) for name, place in self._top_duplicates
        ]
        return after

    def check(self, flag: str, definition: str) -> None:
        """Raise Invalid if this definition of the flag would not give its default variant."""
        broken = problem(parse(definition))
        if broken:
            raise Invalid(f"{self.where}: flag {flag!r}: {broken}")

    def refused(self, but: str | None = None) -> list[str]:
        """Return why readers refuse the whole file, without the flag `but`; they keep their last copy then."""
        top = flagd_readers.refused_file(self._top)
        flags = (
            f"flag {shown(name)} (line {self._line(self._spans[name].key)}): {what}"
            for name, value in self.values.items()
            if name != but and (what := flagd_readers.refused(value))
        )
        return [*top, *flags]

    def doubts(self) -> list[str]:
        """Return why some readers may refuse the file, or read it in another way than others."""
        found = [
            f"the name {shown(name)} stands twice, again in line {self._line(at)}; {_DIFFER}"
            for name, at in self._top_duplicates
        ]
        for name, places in self._duplicates.items():
            lines = " and ".join(str(self._line(at)) for at in places[:2])
            found.append(f"flag {shown(name)} stands twice, in lines {lines}; {_DIFFER}")
        found += [
            f"flag {shown(name)}: {self._duplicate_name(self._spans[name].start)}; {_DIFFER}"
            for name in sorted(self._ambiguous)
        ]
        for name, value in self.values.items():
            what = flagd_readers.doubted(value)
            if what is not None:
                found.append(f"flag {shown(name)} (line {self._line(self._spans[name].key)}): {what}")
        return found

    def _member(self, scan: Scan, name: str, key: int, start: int) -> int:
        """Record a member of the file's top object; return where it ends."""
        if name == "flags" and "flags" in self._top:
            raise ValueError(f'the name "flags" stands twice, again in line {scan.line(key)}; {_DIFFER}')
        if name in self._top:
            self._top_duplicates.append((name, key))
        if name == "flags" and self.text[start : start + 1] == "{":
            self._top[name] = self.values
            return scan.members(start, lambda *flag: self._flag(scan, *flag))
        scan.twice = False
        self._top[name], end = scan.value(start)
        if scan.twice and (found := scan.repeated(start)) is not None:
            self._top_duplicates.append(found)
        return end

    def _flag(self, scan: Scan, name: str, key: int, start: int) -> int:
        scan.twice = False
        value, end = scan.value(start)
        if scan.twice:
            self._ambiguous.add(name)
        if name in self._spans:
            self._duplicates.setdefault(name, [self._spans[name].key]).append(key)
        self.values[name], self._spans[name] = value, _Span(key, start, end)
        return end

    def _duplicate_name(self, at: int) -> str:
        """Name the duplicate within the value that begins at `at`, which has one."""
        found = Scan(self.text).repeated(at)
        if found is None:
            return "a name stands twice"
        return f"the name {shown(found[0])} stands twice, again in line {self._line(found[1])}"

    def _line(self, at: int) -> int:
        return self.text.count("\n", 0, at) + 1


def version(definition: str) -> str:
    """Return a hash of the definition's text: of this flag only, so that edits to other flags do not conflict."""
    return hashlib.sha256(definition.encode()).hexdigest()[:16]


def state(definition: str) -> FlagState:
    """Return what subjects get by the definition."""
    value = parse(definition)
    return FlagState(
        variant=flag_definition.variant(value),
        percent=flag_definition.percent(value),
        version=version(definition),
        raw=definition,
    )


def all_to(definition: str, target: str) -> str:
    """Return the definition that gives every subject `target`; unchanged if it already does."""
    if flag_definition.variant(parse(definition)) == target:
        return definition
    return with_members(definition, flag_definition.all_to(target))


def percent_to(definition: str, variant: str, rest: str, percent: float) -> str:
    """Return the definition that gives `percent` of the subjects `variant` and the others `rest`.

    Raises Unsupported if the flag has rules of another kind, which would be lost.
    """
    return with_members(definition, flag_definition.percent_to(parse(definition), variant, rest, percent))
