"""Unit tests of triggers: input series in promtool's notation, and the state that each trigger must have at a time.

A file:

    config: flipback.yaml
    tests:
      - name: half of the requests of the new path fail
        interval: 1s
        input_series:
          - series: requests{service="recommendations"}
            values: 50x300
          - series: errors{service="recommendations"}
            values: 0x10 25x290
        trigger_test:
          - {eval_time: 2m30s, trigger: errors, exp_state: firing}

Value k of a series counts the requests that ended in second k * interval. The evaluation at t sees the seconds before
t, so the first second is evaluated at 1s. Series with the same labels describe the same requests: `requests`, and of
them `errors`, `timeouts` and `unavailable` (both are errors too), `cache_hits`, `cache_lookups`, their `latency_ms`,
and `measure.NAME`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from agent.config.load import load
from agent.config.model import Config
from agent.config.yaml_text import read_yaml
from agent.errors import ConfigError
from agent.offline.promtool_series import COUNTS, parse_series, parse_values
from agent.offline.replay import Evaluated, Hindered, lines
from agent.telemetry.recorded import unmatched
from detectors.conditions.durations import parse_span
from streams.replay import Replay, ReplaySettings

START = 1_700_000_000
"""Event time of second 0 of every test, in Unix seconds."""

LONGEST_S = 24 * 3600
"""The latest eval_time of a test, in seconds: each second before it is evaluated."""

STATES = ("ok", "pending", "firing", "unknown")

_EXPECTED = "expected `config: FILE` and a list `tests` of at least one test with input_series and trigger_test"


class InputSeries(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    series: str
    values: str


class Expectation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The state that a trigger must have at `eval_time`. `flag` is needed if several flags have one."""

    eval_time: str
    trigger: str
    exp_state: str
    flag: str | None = None
    exp_value: float | None = None


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    input_series: list[InputSeries]
    trigger_test: list[Expectation]
    name: str = ""
    interval: str = "1s"


class CaseFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    config: str
    tests: list[Case]


@dataclass(frozen=True, slots=True)
class TriggerTestResult:
    """The failures of a test, a sentence each; empty if it passed.

    `notes` lists firings without a command, and names that no series has.
    """

    name: str
    failures: tuple[str, ...]
    notes: tuple[str, ...] = ()


def run(path: Path) -> Iterator[TriggerTestResult]:
    """Run the tests of a file. Raises ConfigError if the file or its configuration cannot be used."""
    content = read_yaml(path)
    if content is None:
        raise ConfigError(f"{path}: it is empty; {_EXPECTED}")
    try:
        file = msgspec.convert(content, CaseFile)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {error}; {_EXPECTED}") from None
    if not file.tests:
        raise ConfigError(f"{path}: it has no tests; {_EXPECTED}")
    config = load(path.parent / file.config)
    for number, test in enumerate(file.tests):
        name = test.name or f"test {number + 1}"
        try:
            notes: list[str] = []
            yield TriggerTestResult(name, tuple(_failures(config, test, notes)), tuple(notes))
        except ConfigError as error:
            raise ConfigError(f"{path}: {name}: {error}") from None


def _failures(config: Config, test: Case, notes: list[str]) -> Iterator[str]:
    """Yield the failures of a test, and append to `notes`."""
    interval = _seconds(test.interval, "interval")
    ends = [_seconds(wanted.eval_time, "eval_time") for wanted in test.trigger_test]
    records = list(_records(test.input_series, interval, max(ends, default=0)))
    specs = config.trigger_specs()
    run = Replay(
        [records],
        specs,
        ReplaySettings(
            format="json",
            max_scopes=config.max_scopes,
            max_lateness=config.max_lateness,
            evaluate_every=int(config.evaluate_every),
        ),
    )
    evaluated: dict[tuple[str, str, int], Evaluated] = {}
    for line in lines(run, config, evaluations=True):
        if isinstance(line, Evaluated):
            evaluated[line.flag, line.trigger, line.time - START] = line
        elif isinstance(line, Hindered):
            notes.append(f"{line.flag}/{line.trigger} fires at {line.time - START} s without a command: {line.reason}")
    wanted_specs = [spec for spec in specs if any(spec.name == one.trigger for one in test.trigger_test)]
    notes += unmatched(wanted_specs, run.tally.counts)
    for wanted, at in zip(test.trigger_test, ends, strict=True):
        yield from _compare(wanted, at, [s.flag for s in specs if s.name == wanted.trigger], evaluated)


def _compare(
    wanted: Expectation, at: int, flags: Sequence[str], evaluated: Mapping[tuple[str, str, int], Evaluated]
) -> Iterator[str]:
    if wanted.exp_state not in STATES:
        raise ConfigError(f"exp_state {wanted.exp_state!r}: expected one of {', '.join(STATES)}")
    chosen = [flag for flag in flags if wanted.flag in (None, flag)]
    if not chosen:
        raise ConfigError(f"no trigger {wanted.trigger!r}" + (f" of flag {wanted.flag!r}" if wanted.flag else ""))
    if len(chosen) > 1:
        raise ConfigError(f"trigger {wanted.trigger!r} belongs to {', '.join(chosen)}: name the flag too")
    found = evaluated.get((chosen[0], wanted.trigger, at))
    where = f"{chosen[0]}/{wanted.trigger} at {wanted.eval_time}"
    if found is None:
        raise ConfigError(f"{where}: nothing is evaluated then; evaluations are at whole multiples of evaluate_every")
    if found.state != wanted.exp_state:
        value = "no value" if found.value is None else f"value {found.value:.6g}"
        yield f"{where}: expected {wanted.exp_state}, found {found.state} ({value}, {found.samples} samples)"
    expected = wanted.exp_value
    if expected is not None and (found.value is None or not math.isclose(found.value, expected, rel_tol=1e-6)):
        yield f"{where}: expected value {expected:g}, found {found.value}"


def _records(series: Sequence[InputSeries], interval: int, until: int) -> Iterator[bytes]:
    """Yield the samples of all seconds before `until`, in the order of time."""
    tables: dict[tuple[tuple[str, str], ...], dict[str, list[float | None]]] = {}
    for one in series:
        name, labels = parse_series(one.series)
        table = tables.setdefault(labels, {})
        if name in table:
            raise ConfigError(f"series {one.series!r} stands twice")
        table[name] = parse_values(one.values)
    for second in range(until):
        # A sample of an unwatched service, so that silent seconds are evaluated too.
        yield json.dumps({"ts": START + second + 0.5, "service": "flipback-test-clock"}).encode()
        number, rest = divmod(second, interval)
        if rest:
            continue
        for labels, table in tables.items():
            row = {name: values[number] if number < len(values) else None for name, values in table.items()}
            for sample in _samples(dict(labels), row):
                yield json.dumps({"ts": START + second + 0.5, **sample}).encode()


def _samples(labels: Mapping[str, str], row: Mapping[str, float | None]) -> Iterator[dict[str, Any]]:
    """Yield the requests of one second, cut where the outcome or the cache result changes. The two are spread over the
    requests independently.
    """
    if row.get("requests") is None and any(row.get(name) for name in COUNTS[1:]):
        raise ConfigError("a series counts parts of requests, and none counts the `requests` of the same labels")
    counts = {name: _count(name, row.get(name)) for name in COUNTS}
    bad = max(counts["errors"], counts["timeouts"] + counts["unavailable"])
    lookups = max(counts["cache_lookups"], counts["cache_hits"])
    if max(bad, lookups) > counts["requests"]:
        raise ConfigError(f"{max(bad, lookups)} of {counts['requests']} requests: a part is more than the whole")
    outcomes = _spans([("timeout", counts["timeouts"]), ("unavailable", counts["unavailable"]), ("error", bad)])
    caches = _spans([("hit", counts["cache_hits"]), ("miss", lookups)])
    latency = row.get("latency_ms")
    common: dict[str, Any] = {name: labels[name] for name in ("service", "environment", "instance") if name in labels}
    if "flag" in labels:
        common["flags"] = {labels["flag"]: labels.get("variant", "on")}
    if latency is not None:
        common["latency_ms"] = latency
    measures = {name.removeprefix("measure."): value for name, value in row.items() if name.startswith("measure.")}
    if any(value is not None for value in measures.values()):
        common["measures"] = {name: value for name, value in measures.items() if value is not None}
    cuts = sorted({0, counts["requests"], *(end for _, end in outcomes), *(end for _, end in caches)})
    for start, end in pairwise(cuts):
        cache = _at(caches, start)
        yield {
            **common,
            "outcome": _at(outcomes, start) or "ok",
            **({"cache": cache} if cache else {}),
            "n": end - start,
        }


def _spans(parts: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Return names with the ends of their spans. The last count is a total that includes the counts before it."""
    ends, at = [], 0
    for name, count in parts[:-1]:
        at += count
        ends.append((name, at))
    name, total = parts[-1]
    return [*ends, (name, max(at, total))]


def _at(spans: Sequence[tuple[str, int]], place: int) -> str | None:
    return next((name for name, end in spans if place < end), None)


def _count(name: str, value: float | None) -> int:
    if value is None:
        return 0
    if value < 0 or value != int(value):
        raise ConfigError(f"{name} of a second is {value:g}; a count is a whole number of at least 0")
    return int(value)


def _seconds(text: str, what: str) -> int:
    span = parse_span(text)
    if span is None or span % 1000 or (what == "interval" and not span):
        raise ConfigError(f"{what} {text!r}: expected whole seconds such as 30s or 2m30s")
    if span > 1000 * LONGEST_S:
        raise ConfigError(f"{what} {text!r}: expected at most {LONGEST_S // 3600}h; make the test shorter")
    return int(span / 1000)
