"""Decodes plain data to settings and reports every problem. msgspec stops at the first."""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Meta

from agent.backends.shown import meant
from agent.config.document import Mark, Problem, join
from agent.config.flags import When
from agent.config.wrong import WRONG
from detectors.conditions.durations import parse_span
from detectors.conditions.grammar import parse
from detectors.errors import GrammarError
from streams.settings import Seconds, WholeSeconds

# msgspec resolves the types at each call, which takes half a second for 700 flags.
_fields = cache(msgspec.structs.fields)


class _Mismatch(Exception):
    """A value does not fit the type of its setting."""

    def __init__(self, message: str, todo: str, excerpt: str | None = None) -> None:
        super().__init__(message)
        self.message, self.todo, self.excerpt = message, todo, excerpt


@dataclass(slots=True)
class Decoding:
    """One pass over a file's data. `base` is the directory against which paths are resolved, `marks` give the lines."""

    base: Path
    marks: Mapping[str, Mark]
    problems: list[Problem] = field(default_factory=list)

    def note(self, path: str, message: str, todo: str, excerpt: str | None = None) -> None:
        """Add a problem, with the line of its path. A missing setting gets the line of the settings that lack it."""
        at = path
        while at and at not in self.marks:
            at = at[: max(at.rfind("."), at.rfind("["), 0)]
        mark = self.marks.get(at)
        self.problems.append(Problem(path, message, todo, mark.line if mark else None, excerpt))

    def fields(self, raw: Any, struct: type[msgspec.Struct], path: str) -> dict[str, Any] | None:
        """Decode all fields of a struct, defaults included; a field that cannot be decoded is WRONG.

        Returns None if `raw` is no mapping.
        """
        if not isinstance(raw, dict):
            self.note(
                path, f"expected settings, found {self._shown(raw, path)}", "write `name: value` lines beneath it"
            )
            return None
        known = {info.encode_name: info for info in _fields(struct)}
        tag = struct.__struct_config__.tag_field
        for key in raw:
            if key not in known and key != tag:
                names = [*known, *([tag] if tag else [])]
                todo = meant(str(key), names) or f"known here: {', '.join(names)}"
                self.note(join(path, str(key)), "unknown setting", todo)
        decoded = {}
        for name, info in known.items():
            if name in raw:
                decoded[info.name] = self.value(raw[name], info.type, join(path, name))
            elif info.default is not msgspec.NODEFAULT:
                decoded[info.name] = info.default
            elif info.default_factory is not msgspec.NODEFAULT:
                decoded[info.name] = info.default_factory()
            else:
                self.note(join(path, name), f"missing; expected {_expected(info.type)}", f"add `{name}`")
                decoded[info.name] = WRONG
        return decoded

    def value(self, raw: Any, kind: Any, path: str) -> Any:
        """Decode `raw` as `kind`, the type of a setting. Returns WRONG, and adds a problem, if it does not fit."""
        bare, metas = _unwrap(kind)
        if get_origin(bare) in (Union, types.UnionType):
            choices = [choice for choice in get_args(bare) if choice is not type(None)]
            if raw is None and len(choices) < len(get_args(bare)):
                return None
            if len(choices) > 1 and any(get_origin(_unwrap(choice)[0]) is Literal for choice in choices):
                return self._number_or_word(raw, choices, path)
            if len(choices) > 1:
                return self._tagged(raw, choices, path)
            bare, inner = _unwrap(choices[0])
            metas += inner
        if isinstance(bare, type) and issubclass(bare, msgspec.Struct):
            return (
                self._tagged(raw, [bare], path) if bare.__struct_config__.tag_field else self._struct(raw, bare, path)
            )
        if get_origin(bare) is list:
            return self._list(raw, bare, metas, path)
        if get_origin(bare) is dict:
            return self._dict(raw, bare, metas, path)
        try:
            return self._leaf(raw, bare, metas, path)
        except _Mismatch as mismatch:
            self.note(path, mismatch.message, mismatch.todo, mismatch.excerpt)
            return WRONG

    def _struct(self, raw: Any, struct: type[msgspec.Struct], path: str) -> Any:
        decoded = self.fields(raw, struct, path)
        # A struct's constructor does not check types, so a field may be WRONG.
        return WRONG if decoded is None else struct(**decoded)

    def _tagged(self, raw: Any, structs: list[type[msgspec.Struct]], path: str) -> Any:
        """Decode one of several structs, which the tag selects."""
        by_tag = {struct.__struct_config__.tag: struct for struct in structs}
        name = str(structs[0].__struct_config__.tag_field)
        if not isinstance(raw, dict):
            return self._struct(raw, structs[0], path)
        where, expected = join(path, name), _one_of([str(tag) for tag in by_tag])
        if name not in raw:
            self.note(where, f"missing; expected {expected}", f"add `{name}`")
            return WRONG
        struct = by_tag.get(raw[name]) if isinstance(raw[name], str) else None
        if struct is None:
            self.note(where, f"expected {expected}, found {self._shown(raw[name], where)}", "name one of them")
            return WRONG
        return self._struct(raw, struct, path)

    def _number_or_word(self, raw: Any, choices: list[Any], path: str) -> Any:
        """Decode a setting that is either one of some words or a value of another type, such as `auto` or a number."""
        words = [word for choice in choices for word in get_args(choice) if get_origin(choice) is Literal]
        if raw in words:
            return raw
        (other,) = (choice for choice in choices if get_origin(choice) is not Literal)
        bare, metas = _unwrap(other)
        try:
            return self._leaf(raw, bare, metas, path)
        except _Mismatch as mismatch:
            expected = f"expected {' or '.join(words)}, or {_expected(other)}, found {self._shown(raw, path)}"
            self.note(path, expected, meant(str(raw), words) or mismatch.todo)
            return WRONG

    def _list(self, raw: Any, kind: Any, metas: list[Meta], path: str) -> Any:
        if not isinstance(raw, list):
            self.note(path, f"expected a list, found {self._shown(raw, path)}", "write one `- ` line for each item")
            return WRONG
        self._not_empty(raw, metas, path)
        return [self.value(item, get_args(kind)[0], f"{path}[{index}]") for index, item in enumerate(raw)]

    def _dict(self, raw: Any, kind: Any, metas: list[Meta], path: str) -> Any:
        if not isinstance(raw, dict):
            self.note(path, f"expected names with settings, found {self._shown(raw, path)}", "write `name: ...` lines")
            return WRONG
        self._not_empty(raw, metas, path)
        decoded = {}
        for key, item in raw.items():
            if not isinstance(key, str):
                message = f"expected text as name, found {self._shown(key, '')}"
                self.note(join(path, str(key)), message, "put the name in quotes")
            decoded[str(key)] = self.value(item, get_args(kind)[1], join(path, str(key)))
        return decoded

    def _not_empty(self, raw: Any, metas: list[Meta], path: str) -> None:
        if not raw and any(meta.min_length for meta in metas):
            self.note(path, "is empty; expected one at least", "add one")

    def _leaf(self, raw: Any, kind: Any, metas: list[Meta], path: str) -> Any:
        found = f"found {self._shown(raw, path)}"
        expected = _expected(kind, metas)
        is_text = kind is str or kind in _READERS or get_origin(kind) is Literal
        if is_text and not isinstance(raw, str):
            raise _Mismatch(f"expected {expected}, {found}", self._quote(raw, kind, path))
        if reader := _READERS.get(kind):
            return reader(raw, self.base, f"expected {expected}, {found}")
        try:
            return msgspec.convert(raw, Annotated[(kind, *metas)] if metas else kind)
        except msgspec.ValidationError:
            raise _Mismatch(f"expected {expected}, {found}", _instead(raw, kind)) from None

    def _shown(self, raw: Any, path: str) -> str:
        """Return a value as a person who reads the file knows it: as it is written, and how YAML reads it."""
        mark = self.marks.get(path)
        if isinstance(raw, dict | list):
            return "settings" if isinstance(raw, dict) else "a list"
        if raw is None:
            return "nothing"
        if isinstance(raw, str):
            return repr(raw)
        word = "true" if raw is True else "false" if raw is False else str(raw)
        if mark is not None and mark.written not in (None, word):
            return f"{mark.written}, which YAML reads as {word}"
        return word

    def _quote(self, raw: Any, kind: Any, path: str) -> str:
        """Return what to do about a value that should be text."""
        if kind in (Seconds, WholeSeconds) and isinstance(raw, int | float) and not isinstance(raw, bool):
            return f"name the unit: {raw}s"
        if raw is None or isinstance(raw, dict | list):
            return "write a text there"
        mark = self.marks.get(path)
        return f'put it in quotes: "{mark.written if mark else str(raw).lower()}"'


def _seconds(raw: str, base: Path, problem: str) -> Seconds:
    span = parse_span(raw)
    if span is None:
        raise _Mismatch(problem, "write a number and ms, s, m or h")
    return Seconds(span / 1000)


def _whole_seconds(raw: str, base: Path, problem: str) -> WholeSeconds:
    span = parse_span(raw)
    if span is None or span % 1000:
        raise _Mismatch(problem, "write a whole number and s, m or h")
    return WholeSeconds(span / 1000)


def _path(raw: str, base: Path, problem: str) -> Path:
    if not raw or "\0" in raw:
        raise _Mismatch(problem, "name a file")
    return base / raw


def _when(raw: str, base: Path, problem: str) -> When:
    try:
        parse(raw)
    except GrammarError as error:
        excerpt = error.pointed.split("\n", 1)[1]
        raise _Mismatch(
            error.message, "the form is METRIC[@variant] OP VALUE [over WINDOW] [for DURATION]", excerpt
        ) from None
    return When(raw)


_READERS: dict[Any, Callable[[str, Path, str], Any]] = {
    Seconds: _seconds,
    WholeSeconds: _whole_seconds,
    Path: _path,
    When: _when,
}

_WORDS: dict[Any, str] = {
    Seconds: "a duration such as 30s, 1.5s or 2m",
    WholeSeconds: "a duration of whole seconds such as 30s or 2m",
    Path: "the path of a file",
    When: "a condition such as error_rate > 2% for 2m",
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


def _unwrap(kind: Any) -> tuple[Any, list[Meta]]:
    """Return a type without `Annotated`, and its annotations."""
    if get_origin(kind) is not Annotated:
        return kind, []
    bare, *metas = get_args(kind)
    inner, more = _unwrap(bare)
    return inner, [*more, *metas]


def _one_of(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"one of {', '.join(words)}"


def _expected(kind: Any, metas: list[Meta] | None = None) -> str:
    """Return what a type accepts, in words."""
    bare, own = _unwrap(kind)
    metas = [*(metas or []), *own]
    for meta in metas:
        if meta.extra and "expected" in meta.extra:
            return str(meta.extra["expected"])
    if get_origin(bare) is Literal:
        return _one_of([str(choice) for choice in get_args(bare)])
    if get_origin(bare) in (list, dict) or (isinstance(bare, type) and issubclass(bare, msgspec.Struct)):
        return "a list" if get_origin(bare) is list else "settings"
    low = max((meta.ge for meta in metas if meta.ge is not None), default=-math.inf)
    high = min((meta.le for meta in metas if meta.le is not None), default=math.inf)
    span = f" from {low} to {high}" if high < math.inf else f" of at least {low}" if low > -math.inf else ""
    filled = ", not empty" if bare is str and any(meta.min_length for meta in metas) else ""
    return f"{_WORDS[bare]}{span}{filled}"


def _instead(raw: Any, kind: Any) -> str:
    """Return what to do about a value of the wrong type."""
    if get_origin(kind) is Literal:
        return meant(str(raw), [str(choice) for choice in get_args(kind)]) or "name one of them"
    if isinstance(raw, str) and kind in (int, bool):
        return "leave out the quotes" if raw.lstrip("-").isdigit() or raw in ("true", "false") else "correct it"
    return "correct it"
