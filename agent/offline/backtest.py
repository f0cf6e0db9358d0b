"""`flipback backtest`: how the triggers of a configuration judge recordings whose faults are known.

Labels are a list of faults in YAML or JSON. Each has `at` and optionally `until` (Unix seconds or ISO 8601), `name`,
`service` and `environment`. A trigger detects a fault if it begins to fire between `at` and `until` plus `within`;
every other beginning is a false alarm. Healthy time is the time outside of these spans in which the trigger could
judge.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from agent.config.model import Config
from agent.config.yaml_text import read_yaml
from agent.errors import ConfigError
from agent.offline.replay import Change, Evaluated, Hindered, replay, text
from agent.telemetry.recorded import lost, matches_nothing, unmatched
from agent.telemetry.unread_fields import unread_fields
from detectors.conditions.grammar import format_condition
from detectors.conditions.spec import TriggerSpec
from streams.settings import Format

MOST_NOTES = 20
"""The most firings without a command that are listed in the notes."""


class LabelledFault(msgspec.Struct, frozen=True, kw_only=True):
    """A labelled fault. Times are Unix seconds; an empty service or environment means any."""

    at: float
    until: float
    name: str = ""
    service: str = ""
    environment: str = ""

    def concerns(self, spec: TriggerSpec) -> bool:
        return self.service in ("", spec.service) and self.environment in ("", spec.environment)


class Detection(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a trigger detected a fault: `delay` in seconds, None if not.

    `already`: the trigger was firing when the fault began, so it could not detect the fault.
    """

    fault: LabelledFault
    delay: float | None
    already: bool = False


class TriggerReport(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one trigger on all recordings.

    `firing` and `unknown` are the spans [from, to) in Unix seconds in which the trigger fired or could not judge.
    """

    trigger: str
    flag: str
    scope: str
    condition: str
    detections: list[Detection]
    false_alarms: list[float]
    healthy_hours: float
    unknown_hours: float
    firing: list[tuple[float, float]]
    unknown: list[tuple[float, float]]

    @property
    def detected(self) -> int:
        return sum(one.delay is not None for one in self.detections)

    @property
    def delays(self) -> list[float]:
        """The delays of the detected faults in seconds, ascending."""
        return sorted(one.delay for one in self.detections if one.delay is not None)

    @property
    def false_alarms_per_hour(self) -> float | None:
        """False alarms per hour of healthy time, None if there was no healthy time."""
        return len(self.false_alarms) / self.healthy_hours if self.healthy_hours else None


class Backtest(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a backtest. `begin` and `end` are the first and the last evaluation, in Unix seconds.

    `notes` lists what the figures do not show: firings without a command, samples that did not count, names that no
    sample had. `matched` is False if no sample is of a watched service.
    """

    begin: float
    end: float
    faults: list[LabelledFault]
    triggers: list[TriggerReport]
    notes: list[str] = []
    matched: bool = True


def read_labels(path: Path) -> list[LabelledFault]:
    """Read the faults of a file, in the order of time. Raises ConfigError if the file is not a list of faults."""
    rows = read_yaml(path)
    if not isinstance(rows, list):
        raise ConfigError(f"{path}: expected a list of faults, such as `- {{at: 1700000000, name: slow database}}`")
    return sorted((_fault(row, f"{path}: fault {number + 1}") for number, row in enumerate(rows)), key=lambda f: f.at)


def unwatched(config: Config, faults: Sequence[LabelledFault]) -> list[str]:
    """Return a sentence for each fault that no trigger can see, such as one with a misspelt service."""
    specs = config.trigger_specs()
    known = ", ".join(sorted({f"{spec.environment}/{spec.service}" for spec in specs}))
    return [
        f"fault {fault.name or format(fault.at, 'g')!r} is of {fault.environment or 'any environment'}/"
        f"{fault.service or 'any service'}, which no trigger watches; watched are {known}"
        for fault in faults
        if not any(fault.concerns(spec) for spec in specs)
    ]


def backtest(
    config: Config, files: Sequence[Path], format: Format, faults: Sequence[LabelledFault], *, within: float
) -> Backtest:
    """Replay the recordings and compare firings with faults; `within` is in seconds.

    Raises ConfigError if nothing in the recordings can be evaluated.
    """
    specs = config.trigger_specs()
    changes: dict[tuple[str, str], list[Change]] = {(spec.flag, spec.name): [] for spec in specs}
    begin = end = None
    run, lines = replay(config, files, format, evaluations=True)
    hindered: list[str] = []
    for line in lines:
        if isinstance(line, Change):
            changes[line.flag, line.trigger].append(line)
        elif isinstance(line, Hindered):
            hindered.append(text(line))
        elif isinstance(line, Evaluated):
            begin = line.time if begin is None else begin
            end = line.time
    if begin is None or end is None:
        raise ConfigError("the recordings hold nothing that could be evaluated")
    more = [f"and {len(hindered) - MOST_NOTES} more without a command"] if len(hindered) > MOST_NOTES else []
    return Backtest(
        notes=[
            *hindered[:MOST_NOTES],
            *more,
            *lost(run.tally.counts),
            *unread_fields(specs, run.tally.counts, run.tally.unread),
            *unmatched(specs, run.tally.counts),
        ],
        matched=not matches_nothing(specs, run.tally.counts),
        begin=begin,
        end=end,
        faults=list(faults),
        triggers=[_report(spec, changes[spec.flag, spec.name], faults, begin, end, within) for spec in specs],
    )


def _report(
    spec: TriggerSpec,
    changes: Sequence[Change],
    faults: Sequence[LabelledFault],
    begin: float,
    end: float,
    within: float,
) -> TriggerReport:
    firing = list(_spans(changes, "firing", end))
    # A trigger is unknown until its first change.
    unknown = [(begin, changes[0].time if changes else end), *_spans(changes, "unknown", end)]
    own = [fault for fault in faults if fault.concerns(spec)]
    detections, explained = [], set()
    for fault in own:
        hit = next((at for at, _ in firing if fault.at <= at < fault.until + within and at not in explained), None)
        if hit is not None:
            explained.add(hit)
        already = hit is None and any(start < fault.at < stop for start, stop in firing)
        detections.append(Detection(fault=fault, delay=None if hit is None else hit - fault.at, already=already))
    disturbed = _union([*((f.at, f.until + within) for f in own), *unknown], begin, end)
    return TriggerReport(
        trigger=spec.name,
        flag=spec.flag,
        scope=str(spec.scope),
        condition=format_condition(spec.condition),
        detections=detections,
        false_alarms=[at for at, _ in firing if not any(f.at <= at < f.until + within for f in own)],
        healthy_hours=(end - begin - sum(stop - start for start, stop in disturbed)) / 3600,
        unknown_hours=sum(stop - start for start, stop in unknown) / 3600,
        firing=firing,
        unknown=unknown,
    )


def _spans(changes: Iterable[Change], state: str, end: float) -> Iterator[tuple[float, float]]:
    begun = None
    for change in changes:
        if change.to == state:
            begun = change.time if begun is None else begun
        elif begun is not None:
            yield begun, change.time
            begun = None
    if begun is not None and begun < end:
        yield begun, end


def _union(spans: Iterable[tuple[float, float]], begin: float, end: float) -> list[tuple[float, float]]:
    """Spans without overlaps, cut to [begin, end)."""
    joined: list[tuple[float, float]] = []
    for start, stop in sorted((max(start, begin), min(stop, end)) for start, stop in spans):
        if start >= stop:
            continue
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], stop))
        else:
            joined.append((start, stop))
    return joined


def _fault(row: object, where: str) -> LabelledFault:
    if not isinstance(row, dict) or "at" not in row:
        raise ConfigError(f"{where}: expected at, and perhaps until, name, service, environment")
    unknown = sorted(set(row) - {"at", "until", "name", "service", "environment"})
    if unknown:
        raise ConfigError(f"{where}: unknown {unknown[0]!r}; known are at, until, name, service, environment")
    at = _time(row["at"], where)
    until = _time(row["until"], where) if "until" in row else at
    if until < at:
        raise ConfigError(f"{where}: it ends before it begins")
    return LabelledFault(
        at=at,
        until=until,
        name=str(row.get("name", "")),
        service=str(row.get("service", "")),
        environment=str(row.get("environment", "")),
    )


def _time(value: object, where: str) -> float:
    match value:
        case bool():
            pass
        case int() | float() if math.isfinite(value):
            return float(value)
        case datetime():
            return _moment(value, where)
        case str():
            try:
                moment = datetime.fromisoformat(value)
            except ValueError:
                pass
            else:
                return _moment(moment, where)
    raise ConfigError(f"{where}: {value!r} is no time; expected Unix seconds or such as 2026-01-31T12:00:00Z")


def _moment(moment: datetime, where: str) -> float:
    """Return Unix seconds. Raises ConfigError for a time without a zone: it may be hours off, which no result shows."""
    if moment.tzinfo is None:
        shown = moment.isoformat()
        raise ConfigError(f"{where}: {shown} has no zone; write {shown}Z for UTC, or an offset such as {shown}+02:00")
    return moment.timestamp()
