"""The flagd definition of a flag as a value: its form in a flagd file, a Firestore document and a database node.

The members are those of https://flagd.dev/schema/v0/flags.json: `state`, `variants`, `defaultVariant`, `targeting`,
`metadata`. A flag that gives every subject one variant has no targeting; a percentage is a single `fractional` rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.backends.shown import listed, shown
from agent.errors import Invalid, Unsupported

WEIGHTS = 10_000
"""Sum of the weights of a percentage rule. Weights are whole numbers, so a percentage has a precision of 0.01."""
_MOST_WEIGHT = 2**31 - 1
"""The greatest weight that flagd accepts."""


def variant(value: Mapping[str, Any]) -> str | None:
    """Return the variant that every subject gets, None if they differ or it is unknown.

    A disabled flag gives subjects the default of their own code, which is unknown here.
    """
    default = value.get("defaultVariant")
    if value.get("state") == "ENABLED" and _rules(value) == {} and isinstance(default, str):
        return default if is_text(default) else None
    return None


def is_text(name: str) -> bool:
    """Can the name be written as UTF-8? JSON can escape lone surrogates (half a character), which UTF-8 cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def percent(value: Mapping[str, Any]) -> float | None:
    """Return the percentage that gets the first variant of a rule as `percent_to` writes it, None without one."""
    if value.get("state") != "ENABLED":
        return None
    return _percent(_rules(value), value.get("defaultVariant"))


def all_to(target: str) -> dict[str, Any]:
    """Return the members that give every subject `target`.

    The flag is not disabled: then every subject would get the default of its own code, whatever that is.
    """
    return {"state": "ENABLED", "defaultVariant": target, "targeting": {}}


def percent_to(value: Mapping[str, Any], variant: str, rest: str, percent: float) -> dict[str, Any]:
    """Return the members that give `percent` of the subjects `variant` and the others `rest`.

    Raises Unsupported if the flag has rules of another kind, which would be lost, and Invalid if it has no such
    variant. The variant is the first of the rule: flagd assigns buckets from the front, so a subject that has it keeps
    it when its share grows.
    """
    targeting = _rules(value)
    if targeting != {} and _percent(targeting, value.get("defaultVariant")) is None:
        raise Unsupported("the flag has targeting rules of its own, which a percentage would replace")
    variants = value.get("variants")
    if not isinstance(variants, dict) or variant not in variants:
        raise Invalid(f"{variant!r} is not one of the flag's variants")
    weight = round(percent / 100 * WEIGHTS)
    rule = {"fractional": [[variant, weight], [rest, WEIGHTS - weight]]}
    return {"state": "ENABLED", "defaultVariant": rest, "targeting": rule}


def problem(value: object) -> str | None:
    """Return what keeps a definition from giving its default variant, None if nothing does.

    This checks only what a flip needs. A flip does not fail because of other errors that the definition had before.
    """
    if not isinstance(value, dict):
        return "it is no object"
    variants = value.get("variants")
    if not isinstance(variants, dict) or not variants:
        return "it has no variants"
    default = value.get("defaultVariant")
    if not isinstance(default, str) or default not in variants:
        # In a definition that is about to be written, the default is the safe variant of the configuration.
        todo = "mend its variants, or `safe` in the configuration"
        return f"{shown(default)} is not one of the flag's variants ({listed(variants)}): {todo}"
    return None


def _rules(value: Mapping[str, Any]) -> Any:
    """Return the targeting. Tools that write all members write null for none, and flagd reads it so (json.go)."""
    rules = value.get("targeting")
    return {} if rules is None else rules


def _percent(targeting: Any, default: object) -> float | None:
    match targeting:
        case {"fractional": [[str(), int(weight)], [str(rest), int(others)]]} if (
            len(targeting) == 1 and rest == default and 0 <= weight <= _MOST_WEIGHT and 0 <= others <= _MOST_WEIGHT
        ):
            return 100 * weight / (weight + others) if weight + others > 0 else None
    return None
