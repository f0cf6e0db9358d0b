"""Fields of a request that could not be read: the request counts, and its value of that field is missing.

Their number is sent as the count of a measure, under a name that no sample can have, in every scope of the request. A
variant that cannot be read belongs to no scope of the flag, so it is counted in the scope of the service.
"""

from __future__ import annotations

from typing import Final, Literal

from detectors.conditions.metric_table import METRIC_TABLE
from detectors.conditions.spec import Condition

Field = Literal["latency", "cache", "variant", "measure"]

PREFIX: Final = "\0unreadable "

VARIANT: Final = 'it must be the name of the variant, such as "on"'

_NAME: Final = 60


def unreadable(field: Field, name: str = "") -> str:
    """Return the name of the measure that counts unreadable values; `name` is that of the flag or of the measure.

    It is not printable, so samples cannot use it.
    """
    return f"{PREFIX}{field} {name}"


def unreadable_of(condition: Condition) -> str | None:
    """Return the measure that counts the unreadable values of a condition's metric; None if it reads no such field."""
    field = METRIC_TABLE[condition.metric].unreadable
    if field is None or (field == "measure" and condition.measure is None):
        return None
    return unreadable(field, condition.measure or "")


def what_is_unreadable(condition: Condition) -> tuple[str, str]:
    """Return, for people, the field that a condition's metric reads, and what its value must be."""
    row = METRIC_TABLE[condition.metric]
    if condition.measure is not None:
        return f"measure {shortened(condition.measure)!r}", row.must
    return row.unreadable or "", row.must


def shortened(name: str) -> str:
    """Return a name from a sample or a configuration, cut to a length for people."""
    return name if len(name) <= _NAME else name[: _NAME - 3] + "..."
