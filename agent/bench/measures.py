"""A measured figure, its target, and how both are shown."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np


class Measure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One figure. `ratio` is `value` divided by `baseline`, which was measured in the same run.

    The `value` of a latency is its p99; it also has `p50`, `p99`, `max` and `count`. `backend` is the kind of the flag
    system in which flips were measured.
    """

    measure: str
    value: float
    unit: str
    # Without defaults, so that every line of JSON has them.
    baseline: float | None
    ratio: float | None
    method: str
    p50: float | None = None
    p99: float | None = None
    max: float | None = None
    count: int | None = None
    backend: str | None = None


def figure(measure: str, value: float, unit: str, method: str, *, baseline: float | None = None) -> Measure:
    """A single figure; with a baseline, more is better."""
    ratio = None if baseline is None else _rounded(value / baseline)
    base = None if baseline is None else _rounded(baseline)
    return Measure(measure=measure, value=_rounded(value), unit=unit, baseline=base, ratio=ratio, method=method)


def spread(measure: str, values: Sequence[float], unit: str, method: str, *, backend: str | None = None) -> Measure:
    """The distribution of at least one value; its `value` is the p99, the smallest that 99 % do not exceed."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    p50, p99 = (_rounded(float(np.quantile(ordered, q, method="inverted_cdf"))) for q in (0.5, 0.99))
    return Measure(
        measure=measure,
        value=p99,
        unit=unit,
        baseline=None,
        ratio=None,
        method=method,
        p50=p50,
        p99=p99,
        max=_rounded(float(ordered[-1])),
        count=len(ordered),
        backend=backend,
    )


@dataclass(frozen=True, slots=True)
class Target:
    """The value, or ratio, that a measure must reach (`must`), and the better one that it should reach (`strive`)."""

    must: float
    strive: float
    better: Literal["more", "less"] = "less"
    of: Literal["value", "ratio"] = "value"

    def judge(self, measure: Measure) -> Literal["reached", "must", "missed"]:
        """`reached` for `strive`, `must` if only that is reached, else `missed`."""
        value = measure.value if self.of == "value" else measure.ratio
        if value is None:
            return "missed"
        sign = 1 if self.better == "more" else -1
        if sign * value >= sign * self.strive:
            return "reached"
        return "must" if sign * value >= sign * self.must else "missed"


FLIP_TARGETS = {
    "flagd-file": Target(100, 60),
    "firestore": Target(150, 75),
    "rtdb": Target(150, 75),
    "remote-config": Target(150, 75),
    "unleash": Target(300, 150),
}
"""The targets of `flip_latency`, by the kind of the backend."""

TARGETS = {
    "ingest_json": Target(20, 45, "more", "ratio"),
    "ingest_columnar": Target(3e6, 6e6, "more"),
    "evaluate": Target(100, 30),
    "evaluate_memory": Target(40, 15),
    "evaluate_all": Target(150, 75),
    "command_latency": Target(250, 50),
    "restart": Target(5, 2),
    "start_help": Target(0.4, 0.2),
    "start_ready": Target(5, 3),
    "idle_memory": Target(160, 110),
}
"""Targets in the unit of the measure, or as a ratio. A measure without one only explains another."""


def lines(measure: Measure) -> list[str]:
    """A measure as text: its figures and target, then the method."""
    value = f"{_text(measure.value)} {measure.unit}"
    if measure.p50 is not None and measure.max is not None:
        value = f"p50 {_text(measure.p50)}  p99 {_text(measure.value)}  max {_text(measure.max)} {measure.unit}"
        value += f"  ({measure.count} times)"
    if measure.baseline is not None and measure.ratio is not None:
        value += f", {_text(measure.ratio)} times the baseline of {_text(measure.baseline)}"
    target = TARGETS.get(measure.measure)
    if measure.measure == "flip_latency":
        target = FLIP_TARGETS.get(measure.backend or "")
    if target is not None:
        word = {"reached": "reached", "must": "ok", "missed": "MISSED"}[target.judge(measure)]
        unit = " times" if target.of == "ratio" else ""
        side = "at least" if target.better == "more" else "at most"
        value += f"   [{word}: {side} {_text(target.must)}{unit}, better {_text(target.strive)}{unit}]"
    name = measure.measure if measure.backend is None else f"{measure.measure} ({measure.backend})"
    return [f"{name:26} {value}", f"{'':26} {measure.method}"]


def machine() -> str:
    """The machine in one line: processor, cores that this process may use, memory, system, Python."""
    return ", ".join(
        [
            _field("/proc/cpuinfo", "model name") or platform.machine(),
            f"{len(os.sched_getaffinity(0))} cores",
            f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
            f"{platform.system()} {platform.release()}",
            f"{platform.python_implementation()} {platform.python_version()}",
        ]
    )


def _field(path: str, name: str) -> str | None:
    """The first value of a field in a file of `name: value` lines."""
    try:
        for line in Path(path).read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    except OSError:
        pass
    return None


def kib_of(pid: int, field: str, file: str = "status") -> int:
    """A field of /proc/PID/FILE, in kB."""
    found = _field(f"/proc/{pid}/{file}", field)
    if found is None:
        raise OSError(f"/proc/{pid}/{file} has no {field}: memory can be measured on Linux only")
    return int(found.split()[0])


def cpu_seconds(pid: int) -> float:
    """Seconds of processor time that all threads of a process have used, on Linux."""
    # The name of the program may contain any character, and ends with the last parenthesis. User and system time are
    # the 12th and 13th fields after it (proc_pid_stat(5)).
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rounded(value: float) -> float:
    """Round to four digits: further ones would be noise."""
    return float(f"{value:.4g}")


def _text(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"
