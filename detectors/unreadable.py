"""Fields that came with a request and could not be read: the request counts, and this value of it is missing.

How many there were travels as the count of a measure whose name no sample can have, in every scope of the request. A
variant that cannot be read belongs to no scope of the flag, so it is counted in the scope of the service.
"""

from __future__ import annotations

from typing import Literal

Field = Literal["latency", "cache", "variant", "measure"]


def unreadable(field: Field, name: str = "") -> str:
    """The name of the measure that counts unreadable values; `name` is that of the flag or of the measure.

    It does not print, so samples cannot name it.
    """
    return f"\0unreadable {field} {name}"
