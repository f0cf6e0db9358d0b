"""Field transforms of a write to Firestore: server time, increment, maximum, minimum, union and removal of elements.

google.firestore.v1.DocumentTransform.FieldTransform describes them.
"""

from __future__ import annotations

from typing import Any

from google.cloud.firestore_v1 import types

Value = types.Value.pb()

_LEAST, _MOST = -(2**63), 2**63 - 1


def transformed(transform: Any, current: Any, now: Any) -> tuple[Any, Any]:
    """Return the new value of the field, and the transform's result: null for the transforms of arrays.

    `current` is the present value, None without one; `now` is the time of the commit.
    """
    match transform.WhichOneof("transform_type"):
        case "set_to_server_value":
            new = Value(timestamp_value=now)
        case "increment":
            new = _sum(current, transform.increment)
        case "maximum":
            new = _extreme(current, transform.maximum, 1)
        case "minimum":
            new = _extreme(current, transform.minimum, -1)
        case "append_missing_elements":
            present = _elements(current)
            added = _distinct(transform.append_missing_elements.values)
            return _array([*present, *(value for value in added if value not in present)]), Value(null_value=0)
        case _:
            removed = transform.remove_all_from_array.values
            return _array([value for value in _elements(current) if value not in removed]), Value(null_value=0)
    return new, new


def _sum(current: Any, increment: Any) -> Any:
    """Add to a number. A field that is no number becomes the increment; integers are limited to 64 bits."""
    number = _number(current)
    if number is None:
        return increment
    total = number + _number(increment)
    if isinstance(total, float):
        return Value(double_value=total)
    return Value(integer_value=max(_LEAST, min(_MOST, total)))


def _extreme(current: Any, operand: Any, sign: int) -> Any:
    """Return the greater of two numbers, or the smaller if `sign` is -1; `current` if they are equal."""
    number = _number(current)
    return operand if number is None or sign * (_number(operand) - number) > 0 else current


def _number(value: Any) -> Any:
    kind = None if value is None else value.WhichOneof("value_type")
    return getattr(value, kind) if kind in ("integer_value", "double_value") else None


def _elements(value: Any) -> list[Any]:
    return [] if value is None or value.WhichOneof("value_type") != "array_value" else list(value.array_value.values)


def _distinct(values: Any) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found


def _array(values: list[Any]) -> Any:
    return Value(array_value={"values": values})
