"""The grammar of conditions: `METRIC[@variant] OP VALUE [over WINDOW] [for DURATION]`, `METRIC@variant OP control`,
`absence@variant`.

`parse` reads a condition and points at the first wrong token; `format_condition` writes one. Each is the inverse of the
other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from functools import lru_cache
from typing import cast, get_args

from detectors.conditions.durations import NUMBER, format_seconds, parse_span
from detectors.conditions.metric_table import LATENCIES, METRIC_TABLE, RATIOS, Metric, Op
from detectors.conditions.spec import LONGEST_SPAN, PROOF_WINDOW, Condition, Reference, percent
from detectors.conditions.tokens import Token, TokenReader

METRIC_NAMES: tuple[str, ...] = (
    *(name for name, row in METRIC_TABLE.items() if not row.written),
    "latency_p50",
    "latency_p90",
    "latency_p95",
    "latency_p99",
    "latency_p99.9",
)
"""Names a condition may start with, besides any other `latency_pNN` and `measure.NAME`."""

SHORTEST_WINDOW, LONGEST_DEFAULT_WINDOW = 10, 60

_VALUE = re.compile(rf"(-?{NUMBER})(\D.*)?", re.ASCII)
_NAME = re.compile(r"[^\s<>=!≤≥@]+")


@dataclass(frozen=True, slots=True)
class _Subject:
    metric: Metric
    quantile: float | None = None
    measure: str | None = None


# Hundreds of flags share a few conditions, and each is parsed at load, for the hash of the rules and in every role.
@lru_cache(maxsize=1024)
def parse(text: str) -> Condition:
    """Read a condition. Raises GrammarError at the first token that does not fit, saying what was expected there."""
    reader = TokenReader(text)
    subject, variant = _subject(reader)
    if subject.metric == "absence":
        return _absence(reader, variant)
    op = _op(reader)
    if reader.peek() == "control":
        return _proof(reader, subject, variant, op)
    value, relative = _value(reader, subject.metric, op)
    over, hold = _spans(reader)
    return Condition(
        metric=subject.metric,
        op=op,
        value=value,
        over=over,
        hold=hold,
        quantile=subject.quantile,
        measure=subject.measure,
        variant=variant,
        relative=relative,
    )


def format_condition(condition: Condition) -> str:
    """Return the text of a condition, which always names its window. Equal conditions have equal texts."""
    words = [condition.label + (f"@{condition.variant}" if condition.variant is not None else ""), condition.op]
    if condition.sequential:
        return " ".join([*words, "control"] if condition.proof else words[:1])
    value = condition.value
    if condition.relative is not None:
        words += [f"{_plain(value)}x", condition.relative]
    elif condition.metric in RATIOS:
        words.append(f"{percent(value)}%")
    elif condition.metric in LATENCIES:
        words.append(f"{_plain(value / 1000)}s" if value and value % 1000 == 0 else f"{_plain(value)}ms")
    else:
        words.append(_plain(value) + ("/s" if METRIC_TABLE[condition.metric].unit == "rate" else ""))
    words += ["over", format_seconds(condition.over)]
    if condition.hold:
        words += ["for", format_seconds(condition.hold)]
    return " ".join(words)


def default_over(hold: int) -> int:
    """Return the seconds of the default window: half of the hold, at least 10 s and at most 60 s."""
    return min(max(hold // 2, SHORTEST_WINDOW), LONGEST_DEFAULT_WINDOW)


def _plain(number: float) -> str:
    text = format(Decimal(repr(number)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _close(token: str, known: tuple[str, ...]) -> str:
    near = get_close_matches(token, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def _subject(reader: TokenReader) -> tuple[_Subject, str | None]:
    """Read `METRIC[@variant]`."""
    token = reader.take("a metric, such as error_rate")
    name, at, variant = token.text.partition("@")
    metric = Token(name, token.start)
    if not name:
        reader.fail("expected a metric before the variant, such as error_rate@on", token)
    subject = _metric(reader, metric)
    if at and not _NAME.fullmatch(variant):
        reader.fail("expected the name of one variant after @, such as error_rate@on", token, len(name))
    return subject, variant if at else None


def _metric(reader: TokenReader, token: Token) -> _Subject:
    """Return what the name of a metric means: its row of the table, with a quantile or the name of a measure."""
    name = token.text
    if name in METRIC_NAMES and not name.startswith("latency_p"):
        return _Subject(cast("Metric", name))
    if name.startswith("measure"):
        if not name.startswith("measure.") or name == "measure.":
            reader.fail("expected the name of a measure, such as measure.recommendation_quality", token)
        return _Subject("measure", measure=name.removeprefix("measure."))
    if match := re.fullmatch(rf"latency_p({NUMBER})", name, re.ASCII):
        quantile = float(Decimal(match[1]).scaleb(-2))
        if 0 < quantile < 1:
            return _Subject("latency_quantile", quantile=quantile)
        reader.fail(f"expected a percentile between 0 and 100, such as latency_p95, found {name}", token)
    hint = _close(name, METRIC_NAMES) or f"; known are {', '.join(METRIC_NAMES)}, any latency_pNN and measure.NAME"
    reader.fail(f"{name!r} is not a metric{hint}", token)


def _op(reader: TokenReader) -> Op:
    """Read the comparison, `>` or `<`."""
    token = reader.take("> or <")
    if token.text in (">", "<"):
        return cast("Op", token.text)
    if token.text[0] in "<>=!≤≥":
        reader.fail(f"expected > or <, found {token.text}: comparison is strict", token)
    reader.fail(f"expected > or <, found {token.text!r}", token)


def _absence(reader: TokenReader, variant: str | None) -> Condition:
    """Build `absence@variant`, which takes no value and no time."""
    token = reader.tokens[0]
    if variant is None:
        reader.fail("absence needs a variant, such as absence@on", token)
    _alone(reader, "a variant is absent or not: there is no value to compare with", "absence")
    return Condition("absence", ">", 0.0, SHORTEST_WINDOW, variant=variant, relative="control")


def _proof(reader: TokenReader, subject: _Subject, variant: str | None, op: Op) -> Condition:
    """Read `control` and build `METRIC@variant OP control`, which takes no time."""
    sign, token = reader.tokens[1], reader.take("control")
    worse = METRIC_TABLE[subject.metric].worse
    if worse is None:
        *names, last = (row.written or name for name, row in METRIC_TABLE.items() if row.worse is not None)
        hint = f"control alone asks for a proof, which exists for {', '.join(names)} and {last}"
        reader.fail(f"{hint}; write a factor for others, such as 1.5x control", token)
    if op != worse:
        reader.fail(f"a proof is that the variant is worse: expected {worse}, found {op}", sign)
    _alone(reader, "expected the end", "a proof")
    return Condition(
        metric=subject.metric,
        op=op,
        value=1.0,
        over=PROOF_WINDOW,
        quantile=subject.quantile,
        variant=variant,
        relative="control",
        proof=True,
    )


def _alone(reader: TokenReader, instead: str, what: str) -> None:
    """Fail if anything follows."""
    if reader.peek() is None:
        return
    rest = reader.take("nothing")
    if rest.text in ("over", "for"):
        reader.fail(f"{what} gathers its evidence second by second: leave out `{rest.text}`", rest)
    reader.fail(f"{instead}, found {rest.text!r}", rest)


def _value(reader: TokenReader, metric: Metric, op: Op) -> tuple[float, Reference | None]:
    """Read the value: a number with its unit, or `FACTORx control` or `FACTORx baseline`."""
    example = _example(metric)
    token = reader.take(f"a value, such as {example}")
    match = _VALUE.fullmatch(token.text)
    if match is None:
        reader.fail(f"expected a value, such as {example}, found {token.text!r}", token)
    number, unit = Decimal(match[1]), match[2] or ""
    if unit == "x":
        return _relative(reader, token, number)
    if reader.peek() in ("%", "ms", "s", "m", "h", "x", "/s"):
        apart = reader.take("a unit")
        reader.fail(f"write the unit without a blank: {token.text}{apart.text}", apart)
    value = _absolute(reader, token, metric, number, unit)
    never = (op == "<" and value <= 0) if metric != "measure" else False
    if never or (op == ">" and metric in RATIOS and value >= 1):
        reader.fail(f"{_kind(metric)} is never {op} {token.text}: the condition could never be true", token)
    return value, None


def _relative(reader: TokenReader, token: Token, factor: Decimal) -> tuple[float, Reference]:
    """Read what a factor multiplies: `control` or `baseline`."""
    if factor <= 0:
        reader.fail("expected a factor above 0, such as 3x", token)
    expected = f"control or baseline after {token.text}"
    of = reader.take(expected)
    if of.text not in get_args(Reference):
        reader.fail(f"expected {expected}, found {of.text!r}{_close(of.text, get_args(Reference))}", of)
    return float(factor), cast("Reference", of.text)


def _absolute(reader: TokenReader, token: Token, metric: Metric, number: Decimal, unit: str) -> float:
    """Return a number in the unit of `Condition.value`, and fail if the written unit does not fit the metric."""
    example = _example(metric)
    if metric == "measure":
        if unit:
            reader.fail(f"a measure is compared with a plain number, such as {example}, found {token.text!r}", token)
        return float(number)
    if number < 0:
        reader.fail(f"{_kind(metric)} is never negative; expected a value such as {example}", token)
    if metric in LATENCIES:
        span = parse_span(token.text)
        if span is None:
            problem = "needs a unit: ms, s or m" if not unit else "is measured in ms, s or m"
            reader.fail(f"a latency {problem}, such as {example}, found {token.text!r}", token)
        return float(span)
    if METRIC_TABLE[metric].unit == "rate":
        if unit not in ("", "/s"):
            reader.fail(f"a throughput is counted per second, such as {example}, found {token.text!r}", token)
        return float(number)
    if unit not in ("", "%"):
        reader.fail(
            f"a ratio is written in per cent or between 0 and 1, such as {example}, found {token.text!r}", token
        )
    ratio = number.scaleb(-2) if unit else number
    if ratio > 1:
        hint = f"; did you mean {token.text}%?" if not unit and number <= 100 else ""
        reader.fail(f"a ratio is at most 100% or 1, found {token.text}{hint}", token)
    return float(ratio)


def _spans(reader: TokenReader) -> tuple[int, int]:
    """Read `[over WINDOW] [for DURATION]`; return both in seconds, with the default window."""
    over = hold = None
    if reader.peek() == "over":
        over = _seconds(reader, reader.take("over"))
    if reader.peek() == "for":
        hold = _seconds(reader, reader.take("for"))
    if reader.peek() is not None:
        rest = reader.take("nothing")
        if rest.text in ("over", "for"):
            twice = (over if rest.text == "over" else hold) is not None
            reader.fail(f"`{rest.text}` stands twice" if twice else "`over` comes before `for`", rest)
        expected = "the end" if hold is not None else "`for`" if over is not None else "`over` or `for`"
        reader.fail(f"expected {expected}, found {rest.text!r}{_close(rest.text, ('over', 'for'))}", rest)
    return over if over is not None else default_over(hold or 0), hold or 0


def _seconds(reader: TokenReader, keyword: Token) -> int:
    """Read the whole seconds after `over` or `for`."""
    token = reader.take(f"a duration after `{keyword.text}`, such as 30s or 2m")
    span = parse_span(token.text)
    if span is None:
        reader.fail(f"expected a duration such as 30s, 2m or 1m30s after `{keyword.text}`, found {token.text!r}", token)
    if span < 1000 or span % 1000:
        instead = "; without `for` the trigger fires at once" if keyword.text == "for" and span == 0 else ""
        reader.fail(f"`{keyword.text}` counts whole seconds, 1s at least, found {token.text}{instead}", token)
    if span > LONGEST_SPAN * 1000:
        reader.fail(f"`{keyword.text}` lasts at most {format_seconds(LONGEST_SPAN)}, found {token.text}", token)
    return int(span / 1000)


def _example(metric: Metric) -> str:
    """Return a valid value of a metric, for error messages."""
    if metric in RATIOS:
        return "2%"
    if metric in LATENCIES:
        return "800ms"
    return "100/s" if METRIC_TABLE[metric].unit == "rate" else "0.8"


def _kind(metric: Metric) -> str:
    return "a ratio" if metric in RATIOS else "a latency" if metric in LATENCIES else f"a {metric}"
