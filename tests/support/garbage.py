"""Answers that no flag system should give, for tests of its clients."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**30, -1, 2**63, 0.5, 1e300, float("inf"), float("nan")])
    | st.text(max_size=5)
    # Text that JSON can write but UTF-8 cannot, digits that are not ASCII, and names with a meaning.
    | st.sampled_from(["\ud800", "²", "on", "off", "9" * 5000, "x" * 2000, "ENABLED", "{}", "[[1]]", "nan", "-1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
"""Any JSON value."""

_PIECES = [b"", b"\xff", b'{"variant": "caf\xe9"}', b"[" * 200_000, b'{"variant": ' + b"[" * 200_000, b'{"a":' * 5_000]
_PIECES += [b"[" * depth + b"]" * depth for depth in (150, 400, 900)]

HEADERS = st.dictionaries(
    st.sampled_from(["ETag", "Retry-After", "Idempotent-Replayed", "Location", "Content-Type"]),
    st.sampled_from(
        ["", "\u00b2", "9" * 5000, "-1", "1e9", "\udce9", "W/x", '"1"', "true", "Mon, 99 Jan 99999999999 0:0 GMT"]
    )
    | st.text(max_size=10),
    max_size=3,
)
STATUS = st.sampled_from([200] * 12 + [204, 301, 400, 401, 403, 404, 408, 409, 412, 418, 429, 500, 501, 502, 503, 504])


@st.composite
def damaged(draw: st.DrawFn, value: Any) -> Any:
    """Draw a value in which some parts are missing or replaced."""
    if draw(st.integers(0, 9)) == 0:
        return draw(junk)
    if isinstance(value, Mapping):
        members = {name: draw(damaged(member)) for name, member in value.items() if draw(st.integers(0, 9))}
        return {**members, **draw(st.just({}) | st.dictionaries(st.sampled_from([*value, "x"]), junk, max_size=1))}
    if isinstance(value, list):
        return [draw(damaged(item)) for item in value if draw(st.integers(0, 9))]
    return value


def bodies(sound: list[Any]) -> st.SearchStrategy[bytes]:
    """Draw the bytes of an answer: any bytes, any JSON, or a valid answer of a system, damaged or not."""
    values = junk | st.sampled_from(sound).flatmap(damaged) | st.sampled_from(sound)
    return st.binary(max_size=40) | st.sampled_from(_PIECES) | values.map(lambda value: json.dumps(value).encode())
