"""What a flagd definition means as a value: the shape of a flag in a flagd file, a Firestore document, a database node.

The members are those of https://flagd.dev/schema/v0/flags.json: `state`, `variants`, `defaultVariant`, `targeting`,
`metadata`. A flag that everybody gets has no targeting; a percentage is a `fractional` rule alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.errors import Invalid, Unsupported

WEIGHTS = 10_000
"""Sum of the weights of a percentage rule: weights are whole numbers, so a percentage is kept to 0.01."""


def variant(value: Mapping[str, Any]) -> str | None:
    """The variant that every subject gets, None where they differ or it cannot be told.

    A disabled flag gives subjects the default of their own code, which cannot be told from here.
    """
    default = value.get("defaultVariant")
    if value.get("state") == "ENABLED" and value.get("targeting", {}) == {} and isinstance(default, str):
        return default
    return None


def percent(value: Mapping[str, Any]) -> float | None:
    """The percentage that gets the first variant of a rule as `percent_to` writes it, None without such a rule."""
    if value.get("state") != "ENABLED":
        return None
    return _percent(value.get("targeting", {}), value.get("defaultVariant"))


def all_to(target: str) -> dict[str, Any]:
    """The members by which every subject gets `target`.

    Not by disabling the flag: then every subject would get the default in its own code, whatever that is.
    """
    return {"state": "ENABLED", "defaultVariant": target, "targeting": {}}


def percent_to(value: Mapping[str, Any], variant: str, rest: str, percent: float) -> dict[str, Any]:
    """The members by which `percent` of the subjects get `variant` and the others `rest`.

    Raises Unsupported where the flag has rules of another kind, which would be lost. The variant stands first: flagd
    gives out buckets from the front, so a subject that has it keeps it when its share grows.
    """
    targeting = value.get("targeting", {})
    if targeting != {} and _percent(targeting, value.get("defaultVariant")) is None:
        raise Unsupported("the flag has targeting rules of its own, which a percentage would replace")
    if variant not in value.get("variants", {}):
        raise Invalid(f"{variant!r} is not one of the flag's variants")
    weight = round(percent / 100 * WEIGHTS)
    rule = {"fractional": [[variant, weight], [rest, WEIGHTS - weight]]}
    return {"state": "ENABLED", "defaultVariant": rest, "targeting": rule}


def problem(value: object) -> str | None:
    """What the schema finds wrong with a definition, None if nothing. Targeting rules are not looked into."""
    if not isinstance(value, dict):
        return "it is no object"
    if value.get("state") not in ("ENABLED", "DISABLED"):
        return 'its state is neither "ENABLED" nor "DISABLED"'
    variants = value.get("variants")
    if not isinstance(variants, dict) or not variants:
        return "it has no variants"
    kinds = {_kind(variant) for variant in variants.values()}
    if len(kinds) > 1 or None in kinds:
        return "its variants are not all booleans, all strings, all numbers or all objects"
    default = value.get("defaultVariant")
    if default is not None and not (isinstance(default, str) and default in variants):
        # The default of a definition that is about to be written is the safe variant of the configuration.
        known = ", ".join(map(repr, variants))
        todo = "mend its defaultVariant, or `safe` in the configuration"
        return f"{default!r} is not one of the flag's variants ({known}): {todo}"
    if not isinstance(value.get("targeting", {}), dict):
        return "its targeting is no object"
    return None


def _percent(targeting: Any, default: object) -> float | None:
    match targeting:
        case {"fractional": [[str(), int(weight)], [str(rest), int(others)]]} if (
            len(targeting) == 1 and rest == default
        ):
            return 100 * weight / (weight + others) if weight + others > 0 else None
    return None


def _kind(variant: object) -> str | None:
    match variant:
        case bool():
            return "boolean"
        case str():
            return "string"
        case int() | float():
            return "number"
        case dict():
            return "object"
    return None
