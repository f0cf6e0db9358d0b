"""Which templates Remote Config accepts, and the form in which servers get conditions.

Limits: https://firebase.google.com/docs/remote-config/parameters; expressions: .../remote-config/condition-reference.
This checks only percentages and the form of `&&`; a server template may have no other expressions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

MOST_PARAMETERS = 3_000
MOST_CONDITIONS = 2_000
MOST_CHARACTERS = 1_000_000
MOST_DESCRIPTION = 1_024
MOST_CONDITION_NAME = 100

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")
_TYPES = ("STRING", "BOOLEAN", "NUMBER", "JSON", "PARAMETER_VALUE_TYPE_UNSPECIFIED")
_MEMBERS = {"conditions", "parameters", "parameterGroups", "version"}
_PERCENT = re.compile(
    r"""percent\s*(?:\(\s*['"](?P<seed>[-_.0-9a-zA-Z]{0,32})['"]\s*\))?\s*"""
    r"""(?:(?P<operator><=|>)\s*(?P<limit>[0-9.]+)|between\s+(?P<lower>[0-9.]+)\s+and\s+(?P<upper>[0-9.]+))"""
)


def problem(template: Any, known: Mapping[str, Any], *, server: bool) -> str | None:
    """Return why a template is refused, None if it is not. Members of `known`, the present template, are accepted."""
    if not isinstance(template, dict):
        return "Invalid JSON payload received: it is no object"
    for name in template.keys() - _MEMBERS - known.keys():
        return f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.'
    conditions = template.get("conditions") or []
    names = [condition.get("name") for condition in conditions]
    return (
        next(_condition_problems(conditions, server), None)
        or next(_parameter_problems(parameters(template), set(names)), None)
        or _size_problem(template, len(conditions))
    )


def parameters(template: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return all parameters, including those of groups."""
    groups = (template.get("parameterGroups") or {}).values()
    maps = [template.get("parameters") or {}, *(group.get("parameters") or {} for group in groups)]
    return [item for found in maps for item in found.items()]


def for_servers(template: Mapping[str, Any]) -> dict[str, Any]:
    """Return the template as servers get it: conditions in their structured form, no groups."""
    conditions = [
        {"name": condition["name"], "condition": _structured(condition["expression"])}
        for condition in template.get("conditions") or []
    ]
    return {"parameters": dict(parameters(template)), "conditions": conditions, "version": template.get("version")}


def _condition_problems(conditions: list[dict[str, Any]], server: bool) -> Iterator[str]:
    names = set()
    for condition in conditions:
        name, expression = condition.get("name"), condition.get("expression")
        if not isinstance(name, str) or not 0 < len(name) <= MOST_CONDITION_NAME:
            yield f"[VALIDATION_ERROR]: a condition has no name, or one longer than {MOST_CONDITION_NAME}"
        if name in names:
            yield f"[VALIDATION_ERROR]: condition {name} is there twice"
        names.add(name)
        if not isinstance(expression, str) or not expression.strip():
            yield f"[VALIDATION_ERROR]: condition {name} has no expression"
        elif "&&" in expression.replace(" && ", ""):
            yield f"[VALIDATION_ERROR]: condition {name}: && needs a space before and after"
        else:
            for part in map(str.strip, expression.split(" && ")):
                if _atom(part) is None and (server or part.startswith("percent")):
                    yield f"[VALIDATION_ERROR]: condition {name}: {part} cannot be evaluated"


def _parameter_problems(found: list[tuple[str, dict[str, Any]]], conditions: set[Any]) -> Iterator[str]:
    keys = set()
    for key, parameter in found:
        if key in keys:
            yield f"[VALIDATION_ERROR]: parameter {key} is there twice"
        keys.add(key)
        if not _KEY.fullmatch(key):
            yield f"[VALIDATION_ERROR]: {key!r} is no parameter key"
        kind = parameter.get("valueType", "STRING")
        if kind not in _TYPES:
            yield f"Invalid value at {key} (type.googleapis.com/ParameterValueType), {kind!r}"
        conditional = parameter.get("conditionalValues") or {}
        for name in conditional.keys() - conditions:
            yield f"[VALIDATION_ERROR]: parameter {key} names condition {name}, which is not there"
        values = [*([parameter["defaultValue"]] if "defaultValue" in parameter else []), *conditional.values()]
        if not values:
            yield f"[VALIDATION_ERROR]: parameter {key} has no value"
        for value in values:
            yield from _value_problems(key, kind, value)


def _value_problems(key: str, kind: str, value: Any) -> Iterator[str]:
    # A value of an unknown kind is accepted: Remote Config may get new kinds.
    if not isinstance(value, dict) or len(value) != 1:
        yield f"[VALIDATION_ERROR]: a value of parameter {key} is not of exactly one kind"
    elif "value" in value:
        text = value["value"]
        if not isinstance(text, str):
            yield f"Invalid value at {key} (TYPE_STRING), {text!r}"
        elif (kind == "BOOLEAN" and text not in ("true", "false")) or (kind in ("NUMBER", "JSON") and not _json(text)):
            yield f"[VALIDATION_ERROR]: {text!r} of parameter {key} is not {kind}"


def _size_problem(template: Mapping[str, Any], conditions: int) -> str | None:
    found = parameters(template)
    if len(found) > MOST_PARAMETERS:
        return f"[VALIDATION_ERROR]: more than {MOST_PARAMETERS} parameters"
    if conditions > MOST_CONDITIONS:
        return f"[VALIDATION_ERROR]: more than {MOST_CONDITIONS} conditions"
    if sum(_characters(parameter) for _, parameter in found) > MOST_CHARACTERS:
        return f"[VALIDATION_ERROR]: values of more than {MOST_CHARACTERS} characters"
    if len((template.get("version") or {}).get("description", "")) > MOST_DESCRIPTION:
        return f"[VALIDATION_ERROR]: a description of more than {MOST_DESCRIPTION} characters"
    return None


def _characters(parameter: Mapping[str, Any]) -> int:
    values = [parameter.get("defaultValue") or {}, *(parameter.get("conditionalValues") or {}).values()]
    return sum(len(value.get("value", "")) for value in values)


def _json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _structured(expression: str) -> dict[str, Any]:
    # An expression that cannot be evaluated on a server is false for all of its subjects.
    atoms = [_atom(part.strip()) or {"false": {}} for part in expression.split(" && ")]
    return {"orCondition": {"conditions": [{"andCondition": {"conditions": atoms}}]}}


def _atom(part: str) -> dict[str, Any] | None:
    """Return one part of an expression in its structured form, None if this fake does not know it."""
    if part in ("true", "false"):
        return {part: {}}
    match = _PERCENT.fullmatch(part)
    if match is None:
        return None
    limits = {name: _micro(match[name]) for name in ("limit", "lower", "upper") if match[name] is not None}
    if not all(0 <= limit <= 100_000_000 for limit in limits.values()):
        return None
    percent: dict[str, Any] = {"seed": match["seed"]} if match["seed"] else {}
    if match["operator"] is None:
        percent["percentOperator"] = "BETWEEN"
        percent["microPercentRange"] = {
            "microPercentLowerBound": limits["lower"],
            "microPercentUpperBound": limits["upper"],
        }
    else:
        percent["percentOperator"] = "LESS_OR_EQUAL" if match["operator"] == "<=" else "GREATER_THAN"
        percent["microPercent"] = limits["limit"]
    return {"percent": percent}


def _micro(text: str) -> int:
    try:
        return round(float(text) * 1_000_000)
    except ValueError:
        return -1
