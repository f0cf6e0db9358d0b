"""Edits some parameters of a Remote Config template, and the conditions that they use.

Everything else stays byte for byte, also members that flipback does not know: a publication replaces the whole
template, and deletes what it leaves out. A client that wrote only the members it knew ended running rollouts
(firebase/firebase-admin-java, issue 1092).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from agent.backends.json_text import Edit, JsonMember, blank, compact, edited, elements, members, parse, with_members
from agent.backends.remote_config.parameter import ParameterDefinition, conditional_values
from agent.errors import Invalid, NotFound, Unsupported

MOST_DESCRIPTION = 1024
"""Characters that the description of a version may have."""
_LONGEST_NUMBER = 19


class Template:
    """The text of a template. Raises Invalid if it is not a template."""

    def __init__(self, content: bytes) -> None:
        try:
            self.text = content.decode()
            value = parse(self.text)
        except (UnicodeDecodeError, Invalid) as error:
            raise Invalid(f"the template cannot be used: {error}") from error
        if not isinstance(value, dict):
            raise Invalid("the template is no JSON object")
        self._value: dict[str, Any] = value
        self._top = {member.name: member for member in members(self.text, blank(self.text, 0))}
        for name, kind in (("parameters", dict), ("parameterGroups", dict), ("conditions", list), ("version", dict)):
            if not isinstance(value.get(name, kind()), kind):
                raise Invalid(f"the template's {name} are of another kind than the reference says")
        self._conditions: dict[str, int] = {
            condition["name"]: place
            for place, condition in enumerate(value.get("conditions", ()))
            if isinstance(condition, dict) and isinstance(condition.get("name"), str)
        }
        self._spans: dict[str, JsonMember] = {}

    @property
    def number(self) -> int:
        """Return the number of the version, which rises with every publication; 0 if nothing was published yet."""
        try:
            return number_of(self._value.get("version", {}).get("versionNumber", 0))
        except ValueError:
            return 0

    @property
    def description(self) -> str:
        """Return the description that its publisher gave this version."""
        description = self._value.get("version", {}).get("description", "")
        return description if isinstance(description, str) else ""

    def definition(self, parameter: str) -> ParameterDefinition:
        """Return the definition of a parameter.

        Raises NotFound if there is no such parameter, Invalid if there are two or it is no object.
        """
        span = self._span(parameter)
        text = self.text[span.value_start : span.value_end]
        named = conditional_values(parse(text))
        spans = list(self._condition_spans()) if named else []
        places = sorted(self._conditions[name] for name in named if name in self._conditions)
        return ParameterDefinition(compact(text), tuple(compact(self.text[slice(*spans[place])]) for place in places))

    def condition(self, name: str) -> str | None:
        """Return a condition as compact text, None if there is none of this name."""
        place = self._conditions.get(name)
        return None if place is None else compact(self.text[slice(*list(self._condition_spans())[place])])

    def replaced(self, definitions: Mapping[str, ParameterDefinition], description: str) -> bytes:
        """Return the template with new definitions of some parameters, and a description of its version.

        Raises Unsupported if a condition would have to change that another parameter uses too.
        """
        value = parse(self.text)
        edits = []
        for parameter, definition in definitions.items():
            span = self._span(parameter)
            if definition.parameter != compact(self.text[span.value_start : span.value_end]):
                edits.append(Edit(span.value_start, span.value_end, definition.parameter))
                next(_places(value, parameter))[parameter] = parse(definition.parameter)
        edits += self._condition_edits(definitions, value)
        top = self._top.get("version")
        if top is None:
            version = json.dumps({"description": description})
            edits.append(self._added("version", version))
        else:
            version = with_members(self.text[top.value_start : top.value_end], {"description": description})
            edits.append(Edit(top.value_start, top.value_end, version))
        value["version"] = parse(version)
        text = edited(self.text, edits)
        if parse(text) != value:
            raise Invalid("an edit would change more of the template than the flag, and was not made")
        return text.encode()

    def _condition_edits(self, definitions: Mapping[str, ParameterDefinition], value: dict[str, Any]) -> Iterator[Edit]:
        """Yield edits of the conditions that differ, and make the same changes in `value`."""
        wanted = {parse(text)["name"]: text for found in definitions.values() for text in found.conditions}
        changed = {name: text for name, text in wanted.items() if not self._holds(name, text)}
        if not changed:
            return
        for name in changed:
            others = [other for other in self._users(name) if other not in definitions]
            if others:
                raise Unsupported(
                    f"condition {name!r} would have to change, and parameter {others[0]!r} uses it too; "
                    "give the flag a condition of its own"
                )
        spans = list(self._condition_spans())
        conditions = value.setdefault("conditions", [])
        fresh = []
        for name, text in changed.items():
            place = self._conditions.get(name)
            if place is None:
                conditions.append(parse(text))
                fresh.append(text)
            else:
                conditions[place] = parse(text)
                yield Edit(*spans[place], text)
        if fresh and spans:
            yield Edit(spans[-1][1], spans[-1][1], "".join(f",{text}" for text in fresh))
        elif fresh and "conditions" in self._top:
            top = self._top["conditions"]
            yield Edit(top.value_start, top.value_end, f"[{','.join(fresh)}]")
        elif fresh:
            yield self._added("conditions", f"[{','.join(fresh)}]")

    def _holds(self, name: str, text: str) -> bool:
        place = self._conditions.get(name)
        return place is not None and bool(self._value["conditions"][place] == parse(text))

    def _users(self, condition: str) -> Iterator[str]:
        """Yield the parameters that use the condition."""
        for found in _maps(self._value):
            for name, parameter in found.items():
                named = parameter.get("conditionalValues") if isinstance(parameter, dict) else None
                if isinstance(named, dict) and condition in named:
                    yield name

    def _added(self, name: str, text: str) -> Edit:
        """Add a member at the front of the template, so that its span cannot overlap with an edit at the end."""
        at = blank(self.text, 0) + 1
        return Edit(at, at, f'"{name}":{text},')

    def _condition_spans(self) -> Iterator[tuple[int, int]]:
        top = self._top.get("conditions")
        return elements(self.text, top.value_start) if top is not None else iter(())

    def _span(self, parameter: str) -> JsonMember:
        """Return the position of a parameter, under `parameters` or in a group."""
        known = self._spans.get(parameter)
        if known is not None:
            return known
        count = sum(1 for _ in _places(self._value, parameter))
        if count == 0:
            raise NotFound(
                f"the template has no parameter {parameter!r}; make it in the Firebase console, or name another one "
                "under `parameters` of the backend"
            )
        if count > 1:
            raise Invalid(f"parameter {parameter!r} stands in the template twice")
        for maps in self._map_spans():
            for member in members(self.text, maps):
                if member.name == parameter:
                    self._spans[parameter] = member
                    if self.text[member.value_start] != "{":
                        raise Invalid(f"parameter {parameter!r} is no object")
                    return member
        raise AssertionError("the parameter exists: it was counted above")

    def _map_spans(self) -> Iterator[int]:
        """Yield where each map of parameters begins."""
        if "parameters" in self._top:
            yield self._top["parameters"].value_start
        if "parameterGroups" in self._top:
            for group in members(self.text, self._top["parameterGroups"].value_start):
                if self.text[group.value_start] != "{":
                    continue
                for member in members(self.text, group.value_start):
                    if member.name == "parameters" and self.text[member.value_start] == "{":
                        yield member.value_start


def number_of(number: object) -> int:
    """Return the number of a version, an int64 that Google writes as text. Raises ValueError if it is none."""
    text = str(number) if isinstance(number, int) else number
    if not isinstance(text, str) or not (text.isascii() and text.isdigit() and len(text) <= _LONGEST_NUMBER):
        raise ValueError("no number of a version")
    return int(text)


def _maps(value: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the maps of parameters: the one at the top, and one for each group."""
    yield value.get("parameters", {})
    for group in value.get("parameterGroups", {}).values():
        if isinstance(group, dict) and isinstance(group.get("parameters"), dict):
            yield group["parameters"]


def _places(value: Mapping[str, Any], parameter: str) -> Iterator[dict[str, Any]]:
    return (found for found in _maps(value) if parameter in found)
