"""The values of a Remote Config parameter: which variant subjects get, and how to change it.

The resource is https://firebase.google.com/docs/reference/remote-config/rest/v1/RemoteConfig. A subject gets the value
of the first condition, in the order of the template, that is true for it and for which the parameter has a value; else
the default value. So a flag is safe if every value is.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from agent.backends.contract import FlagState
from agent.backends.flag_definition import is_text
from agent.backends.json_text import Edit, compact, edited, elements, members, parse, with_members
from agent.backends.shown import listed, shown
from agent.errors import Invalid, Unsupported

_MOST_CONDITION = 100
"""Characters that the name of a condition may have."""
_MOST_SEED = 32
"""Characters of a seed, from [-_.0-9a-zA-Z] (reference of PercentCondition)."""

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_PERCENT = re.compile(
    r"""(\s*percent\s*(?:\(\s*(?:'[^']*'|"[^"]*")?\s*\)\s*)?(?:<=|between\s+0(?:\.0+)?\s+and)\s*)([0-9]+(?:\.[0-9]+)?)\s*"""
)
"""A share of the subjects from 0 up, in an order that the seed determines: who is in it stays in it when it grows."""

_PAIRS = [("true", "false"), ("on", "off"), ("1", "0"), ("yes", "no"), ("enabled", "disabled"), ("enable", "disable")]
_STYLES = (str.lower, str.upper, str.title)
_BOOLEANS = {"on": "true", "off": "false", "true": "true", "false": "false"}
_ON_OFF = {"true": "on", "false": "off"}


def parameter_name(flag: str) -> str:
    """Return the name of a flag's parameter if the settings name none: `_` for each character that is not allowed."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", flag)
    return f"_{name[1:]}" if name[:1].isdigit() else name


class ParameterDefinition(NamedTuple):
    """A parameter and the conditions that it uses, in the template's order, each as compact JSON text."""

    parameter: str
    conditions: tuple[str, ...] = ()

    @property
    def raw(self) -> str:
        return f'{{"parameter":{self.parameter},"conditions":[{",".join(self.conditions)}]}}'

    @classmethod
    def of(cls, raw: str) -> ParameterDefinition:
        """Return the definition with this `raw`."""
        top = {member.name: member for member in members(raw, 0)}
        parameter, conditions = top["parameter"], top["conditions"]
        spans = elements(raw, conditions.value_start)
        return cls(raw[parameter.value_start : parameter.value_end], tuple(raw[start:end] for start, end in spans))

    @property
    def version(self) -> str:
        """Return a hash of the content that does not depend on the order and layout in which a server writes it."""
        canonical = json.dumps(parse(self.raw), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def same_parameter(self, other: ParameterDefinition) -> bool:
        return bool(parse(self.parameter) == parse(other.parameter))


def state(definition: ParameterDefinition) -> FlagState:
    """Return what subjects get by the definition."""
    parameter = parse(definition.parameter)
    given = [_variant(parameter, value) for _, value in _values(parameter)]
    alike = len(set(given)) == 1 and "defaultValue" in parameter
    percent = None
    # If both values are alike, the condition makes no difference, and there is no percentage.
    if len(definition.conditions) == 1 and len(given) == 2 and None not in given and not alike:
        match = _percentage(definition.conditions[0])
        percent = None if match is None else float(match[2])
    return FlagState(
        variant=given[0] if alike else None, percent=percent, version=definition.version, raw=definition.raw
    )


def all_to(definition: ParameterDefinition, target: str) -> ParameterDefinition:
    """Return the definition that gives every subject `target`, as the default value and every conditional one.

    Raises Invalid if the parameter cannot have such a value, Unsupported if flipback may not change its values.
    """
    parameter = parse(definition.parameter)
    value = _value(parameter, target)
    wanted = {name: value for name, old in conditional_values(parameter).items() if not _alike(parameter, old, value)}
    return ParameterDefinition(_with_values(definition.parameter, parameter, value, wanted), definition.conditions)


def percent_to(
    definition: ParameterDefinition,
    name: str,
    condition: Callable[[str], str | None],
    variant: str,
    rest: str,
    percent: float,
) -> ParameterDefinition:
    """Return the definition that gives `percent` of the subjects `variant` and the others `rest`.

    This changes the number in the parameter's percentage condition and keeps its seed. A parameter without conditions
    gets one, `flipback_<name>`. `condition` returns the text of a condition of the template, which may be one that
    flipback made earlier. Raises Unsupported if the parameter has conditions of another kind.
    """
    parameter = parse(definition.parameter)
    chosen, others = _value(parameter, variant), _value(parameter, rest)
    if not 0 <= percent <= 100:
        raise Invalid(f"{percent:g} is no percentage; expected 0 to 100")
    named = conditional_values(parameter)
    if len(named) > 1:
        raise Unsupported(
            f"parameter {name!r} has the conditions {listed(named)}, which a percentage would not respect"
        )
    used = next(iter(named), _cut(f"flipback_{name}", _MOST_CONDITION))
    found = condition(used)
    if found is None:
        made = {"name": used, "expression": f"percent('{_cut(name, _MOST_SEED)}') <= 0"}
        found = compact(json.dumps(made))
    match = _percentage(found)
    if match is None:
        raise Unsupported(
            f"condition {used!r} of parameter {name!r} is not a percentage alone, and would not be respected; "
            "expected such as percent('seed') <= 10"
        )
    if float(match[2]) != percent:
        number = f"{percent:.6f}".rstrip("0").rstrip(".")
        found = compact(with_members(found, {"expression": f"{match[1]}{number}"}))
    wanted = {} if _alike(parameter, named.get(used), chosen) else {used: chosen}
    return ParameterDefinition(_with_values(definition.parameter, parameter, others, wanted), (found,))


def doubt(definition: ParameterDefinition, target: str) -> str | None:
    """Return why a flip to `target` may give applications a text that they do not know; None if there is no such sign.

    A STRING parameter accepts any text, so a typo in the configuration is not an error.
    """
    parameter = parse(definition.parameter)
    if _type(parameter) != "STRING":
        return None
    used = sorted({variant for _, value in _values(parameter) if (variant := _variant(parameter, value)) is not None})
    # The other of a pair is a plausible target although no value has it: "false" if all subjects get "true".
    opposites = {
        style(word) for pair in _PAIRS for style in _STYLES for word in pair if used and {*used} <= {*map(style, pair)}
    }
    if not used or target in used or target in opposites:
        return None
    return (
        f"{shown(target)} is none of the values that the STRING parameter has now ({listed(used)}), and a flip gives "
        "it to every application; do they accept it as the safe one?"
    )


def conditional_values(parameter: Mapping[str, Any]) -> dict[str, Any]:
    """Return the conditional values of a parameter by the names of their conditions.

    Raises Unsupported if they are no object.
    """
    found = parameter.get("conditionalValues", {})
    if not isinstance(found, dict):
        raise Unsupported("the parameter's conditional values are of an unknown kind")
    return found


def _with_values(
    text: str, parameter: Mapping[str, Any], default: dict[str, str], conditional: Mapping[str, object]
) -> str:
    """Return the parameter with another default value and with some conditional values replaced or added."""
    if not _alike(parameter, parameter.get("defaultValue"), default):
        text = with_members(text, {"defaultValue": default})
    if conditional and not conditional_values(parameter):
        text = with_members(text, {"conditionalValues": conditional})
    elif conditional:
        span = next(member for member in members(text, 0) if member.name == "conditionalValues")
        inner = with_members(text[span.value_start : span.value_end], conditional)
        text = edited(text, [Edit(span.value_start, span.value_end, inner)])
    return compact(text)


def _values(parameter: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield all values, each with a description of its place."""
    if "defaultValue" in parameter:
        yield "default value", parameter["defaultValue"]
    for name, value in conditional_values(parameter).items():
        yield f"value under condition {shown(name)}", value


def _type(parameter: Mapping[str, Any]) -> str:
    kind = parameter.get("valueType", "STRING")
    return "STRING" if kind == "PARAMETER_VALUE_TYPE_UNSPECIFIED" else str(kind)


def _variant(parameter: Mapping[str, Any], value: Any) -> str | None:
    """Return the variant that a value stands for; None if it is not a plain value."""
    match value:
        case {"value": str(text)} if len(value) == 1:
            variant = _ON_OFF.get(text.lower(), text) if _type(parameter) == "BOOLEAN" else text
            return variant if is_text(variant) else None
    return None


def _alike(parameter: Mapping[str, Any], value: Any, other: Any) -> bool:
    """Do two plain values stand for the same variant, in whatever spelling?"""
    variant = _variant(parameter, value)
    return variant is not None and variant == _variant(parameter, other)


def _value(parameter: Mapping[str, Any], target: str) -> dict[str, str]:
    """Return the value that stands for `target`.

    Raises Invalid if the parameter cannot have it, and Unsupported if the parameter has values that are not plain.
    """
    for where, value in _values(parameter):
        match value:
            case {"value": str()} | {"useInAppDefault": bool()} if len(value) == 1:
                continue
            case dict():
                kinds = listed(sorted(value.keys() - {"value", "useInAppDefault"}) or ["mixture"])
            case _:
                kinds = type(value).__name__
        raise Unsupported(
            f"the parameter's {where} is no plain value ({kinds}): a change would end what the Firebase console runs "
            "there; end it there first"
        )
    kind = _type(parameter)
    if kind == "BOOLEAN":
        if target not in _BOOLEANS:
            raise Invalid(f"{target!r} is no value of a BOOLEAN parameter; expected on or off")
        return {"value": _BOOLEANS[target]}
    if kind == "NUMBER" and not _NUMBER.fullmatch(target):
        raise Invalid(f"{target!r} is no value of a NUMBER parameter")
    if kind == "JSON":
        try:
            parse(target)
        except Invalid as error:
            raise Invalid(f"{target!r} is no value of a JSON parameter: {error}") from error
    if kind not in ("STRING", "NUMBER", "JSON"):
        raise Unsupported(f"the parameter is of type {shown(kind)}, which flipback does not know")
    return {"value": target}


def _percentage(condition: str) -> re.Match[str] | None:
    expression = parse(condition).get("expression")
    return _PERCENT.fullmatch(expression) if isinstance(expression, str) else None


def _cut(name: str, most: int) -> str:
    """Return a name of at most `most` characters: a hash if it is longer, so that different names stay different."""
    return name if len(name) <= most else hashlib.sha256(name.encode()).hexdigest()[:most]
