"""Durations as conditions and the configuration write them: `800ms`, `30s`, `1m30s`, `1.5h`."""

from __future__ import annotations

import re
from decimal import Decimal

# Bounded, so that no number is read as infinite and no duration leaves the 28 digits of decimal arithmetic.
NUMBER = r"(?:\d{1,15}(?:\.\d{0,30})?|\.\d{1,30})"
"""A regular expression of a number without a sign."""

_SPAN = re.compile(rf"(?:{NUMBER}(?:ms|d|h|m|s))+", re.ASCII)
_SPAN_PART = re.compile(rf"({NUMBER})(ms|d|h|m|s)", re.ASCII)
_MILLISECONDS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def parse_span(text: str) -> Decimal | None:
    """Return the exact milliseconds of a duration such as `800ms`, `30s`, `1.5m` or `1m30s`; None if it is none."""
    if not _SPAN.fullmatch(text):
        return None
    return sum((Decimal(n) * _MILLISECONDS[unit] for n, unit in _SPAN_PART.findall(text)), Decimal(0))


def format_seconds(seconds: int) -> str:
    """Return whole seconds as `30d`, `1h`, `1m30s`, `45s`."""
    parts = [
        (seconds // 86_400, "d"),
        (seconds % 86_400 // 3600, "h"),
        (seconds % 3600 // 60, "m"),
        (seconds % 60, "s"),
    ]
    return "".join(f"{n}{unit}" for n, unit in parts if n) or "0s"
