"""The values of metrics in the units of a condition: 11.2 %, 45 s, 812 ms, 12.5/s."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from detectors.conditions.metric_table import METRIC_TABLE, Unit

_DIGITS, _MOST_DIGITS = 4, 15


def shown(metric: str, value: float) -> str:
    """Return a value of a metric as a person writes it, with four digits.

    `metric` is a metric's name or the label of a condition, with or without `@variant`. `value` is in the unit of
    `detectors.conditions.spec.Condition.value`: a ratio 0..1, milliseconds, requests a second, or the measure's own
    unit.
    """
    return _format_of(metric)(value, _DIGITS)


def compared(metric: str, value: float, op: str, limit: float) -> str:
    """Return `VALUE OP LIMIT` with enough digits to show that two different numbers differ."""
    write = _format_of(metric)
    for digits in range(_DIGITS, _MOST_DIGITS):
        left, right = write(value, digits), write(limit, digits)
        if left != right or value == limit:
            break
    return f"{left} {op} {right}"


def _format_of(metric: str) -> Callable[[float, int], str]:
    name = metric.partition("@")[0]
    return _FORMATS[_UNITS.get(name, "latency" if name.startswith("latency") else "plain")]


def _percent(ratio: float, digits: int) -> str:
    return f"{100 * ratio:.{digits}g} %"


def _latency(ms: float, digits: int) -> str:
    return f"{ms:.{digits}g} ms" if abs(ms) < 1000 else f"{ms / 1000:.{digits}g} s"


def _rate(per_second: float, digits: int) -> str:
    return f"{_plain(per_second, digits)}/s"


def _plain(value: float, digits: int) -> str:
    # `g` would write 12,300 as 1.23e+04; a count of requests is read as a whole number.
    return f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:,.0f}"


_UNITS: Mapping[str, Unit] = {name: row.unit for name, row in METRIC_TABLE.items()}
_FORMATS: Mapping[Unit, Callable[[float, int], str]] = {
    "ratio": _percent,
    "latency": _latency,
    "rate": _rate,
    "plain": _plain,
}
