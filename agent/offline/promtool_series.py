"""Parse series in the notation of promtool's unit tests: a name with labels, and values in a short form.

https://prometheus.io/docs/prometheus/latest/configuration/unit_testing_rules/#series
"""

from __future__ import annotations

import re

from agent.errors import ConfigError

COUNTS = ("requests", "errors", "timeouts", "unavailable", "cache_hits", "cache_lookups")
LABELS = ("service", "environment", "flag", "variant", "instance")

MAX_VALUES = 1_000_000
"""The most values of a series: eleven days of seconds."""

_SERIES = re.compile(r"\s*([a-z_]+(?:\.[^\s{]+)?)\s*\{(.*)\}\s*", re.DOTALL)
_LABEL = re.compile(r'\s*([a-z_]+)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(,|$)')
_NUMBER = r"[+-]?\d+(?:\.\d+)?"
_TERM = re.compile(rf"(?:(_|stale)|({_NUMBER})(?:([+-]\d+(?:\.\d+)?))?)(?:x(\d+))?")


def parse_series(text: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Parse `name{label="value", ...}`. Return the name and the labels, sorted.

    Labels are some of `LABELS`; service is required. Raises ConfigError that says what is wrong.
    """
    match = _SERIES.fullmatch(text)
    if match is None:
        raise ConfigError(f'series {text!r}: expected NAME{{service="..."}}')
    name, inside, labels = match[1], match[2], {}
    if name not in (*COUNTS, "latency_ms") and not name.startswith("measure."):
        raise ConfigError(f"series {text!r}: known are {', '.join(COUNTS)}, latency_ms and measure.NAME")
    at = 0
    while at < len(inside.rstrip()):
        label = _LABEL.match(inside, at)
        if label is None or label[1] not in LABELS:
            raise ConfigError(f'series {text!r}: expected LABEL="VALUE" with one of {", ".join(LABELS)}')
        labels[label[1]] = label[2].replace('\\"', '"').replace("\\\\", "\\")
        at = label.end()
    if "service" not in labels:
        raise ConfigError(f"series {text!r}: it has no service")
    return name, tuple(sorted(labels.items()))


def parse_values(text: str) -> list[float | None]:
    """Parse values: `a` is one value, `axn` a and n more of it, `a+bxn` rises by b n times, `_` and `stale` are gaps.

    Raises ConfigError that says what is wrong.

    >>> parse_values("1 2x2 0+5x3 _x2 stale 7")
    [1.0, 2.0, 2.0, 2.0, 0.0, 5.0, 10.0, 15.0, None, None, None, 7.0]
    """
    values: list[float | None] = []
    for term in text.split():
        match = _TERM.fullmatch(term)
        if match is None:
            raise ConfigError(f"values {term!r}: expected such as 5, 5x10, 0+2x10, _, _x3 or stale")
        # int() raises ValueError for more than 4300 digits.
        digits = (match[4] or "0").lstrip("0")
        times = int(digits or 0) if len(digits) <= len(str(MAX_VALUES)) else MAX_VALUES
        if len(values) + times >= MAX_VALUES:
            raise ConfigError(f"values {term!r}: a series of more than {MAX_VALUES:,} values; write a shorter one")
        if match[1]:
            # `_xn` means n gaps; `axn` means a and n more.
            values += [None] * max(times, 1)
            continue
        first, step = float(match[2]), float(match[3] or 0)
        values += [first + step * k for k in range(times + 1)]
    return values
