"""Field transforms of a write to Firestore: server time, increment, maximum, minimum, union and removal of elements.

As google.firestore.v1.DocumentTransform.FieldTransform describes them.
"""

from __future__ import annotations

from typing import Any

from google.cloud.firestore_v1 import types

Value = types.Value.pb()

_LEAST, _MOST = -(2**63), 2**63 - 1


def transformed(transform: Any, current: Any, now: Any) -> tuple[Any, Any]:
    """The new value of the field, and what the answer says of it: null for the transforms of arrays.

    `current` is the value that there is, None without one; `now` is the time of the commit.
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
            held = _elements(current)
            wanted = _distinct(transform.append_missing_elements.values)
            return _array([*held, *(value for value in wanted if value not in held)]), Value(null_value=0)
        case _:
            gone = transform.remove_all_from_array.values
            return _array([value for value in _elements(current) if value not in gone]), Value(null_value=0)
    return new, new


def _sum(current: Any, increment: Any) -> Any:
    """A field that is no number becomes the increment; whole numbers stop at the ends of their range."""
    held = _number(current)
    if held is None:
        return increment
    total = held + _number(increment)
    if isinstance(total, float):
        return Value(double_value=total)
    return Value(integer_value=max(_LEAST, min(_MOST, total)))


def _extreme(current: Any, operand: Any, sign: int) -> Any:
    """The greater of two numbers, or the smaller where `sign` is -1; of equal ones that which is there."""
    held = _number(current)
    return operand if held is None or sign * (_number(operand) - held) > 0 else current


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
