"""The file of stored values that a condition such as `latency_p99 > 1.5x baseline` compares with.

    {"apiVersion": "flipback/v1", "baseline": {"production/recommendations": {"latency_p99": 812.0}}}

Keys are `environment/service`; latencies are in milliseconds, ratios between 0 and 1, throughput per second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from agent.errors import ConfigError
from detectors.conditions.grammar import parse
from detectors.conditions.metric_table import RATIOS
from detectors.errors import GrammarError


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    api_version: Literal["flipback/v1"] = msgspec.field(name="apiVersion")
    baseline: dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True)
class Baseline:
    """Stored values by `environment/service` and metric."""

    values: Mapping[str, Mapping[str, float]]

    def value(self, environment: str, service: str, label: str) -> float | None:
        """Return the stored value of a metric, None if there is none. `label` is like `Condition.label`."""
        return self.values.get(f"{environment}/{service}", {}).get(label)


NO_BASELINE = Baseline({})


def read_baseline(path: Path) -> Baseline:
    """Read a baseline file. Raises ConfigError, which names every wrong value."""
    try:
        file = msgspec.json.decode(path.read_bytes(), type=_File)
    except OSError as error:
        raise ConfigError(f"the baseline {path} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the baseline {path} is not as expected: {error}") from error
    problems: list[str] = []
    values: dict[str, dict[str, float]] = {}
    for service, stored in file.baseline.items():
        environment, slash, name = service.partition("/")
        if not (environment and slash and name):
            problems.append(f"{service!r}: expected environment/service, such as production/recommendations")
        values[service] = {}
        for metric, value in stored.items():
            problem, label = _check(metric, value)
            if problem:
                problems.append(f"{service!r}, {metric!r}: {problem}")
            values[service][label] = value
    if problems:
        raise ConfigError(f"the baseline {path} is not as expected: " + "; ".join(problems))
    return Baseline(values)


def _check(metric: str, value: float) -> tuple[str | None, str]:
    """Return what is wrong with a stored value, None if nothing is, and the metric as `Condition.label` has it."""
    try:
        condition = parse(f"{metric} > 1x baseline")
    except GrammarError as error:
        return error.message, metric
    if condition.variant is not None:
        return "a baseline is of a whole service; leave out the variant", metric
    if condition.metric in RATIOS and not 0 <= value <= 1:
        return f"expected a ratio between 0 and 1, found {value}", metric
    if condition.metric != "measure" and value < 0:
        return f"expected a number that is not negative, found {value}", metric
    return None, condition.label
