"""`flipback replay`: how a configuration would have judged recorded telemetry, as lines."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from agent.config.model import Config
from agent.offline.recordings import read
from agent.offline.rehearsal import Hindrance, Rehearsal
from detectors.conditions.spec import TriggerSpec
from detectors.triggers.evaluation import Transition
from streams.decoders.sources import INSTANCE
from streams.monitor.evaluated_second import EvaluatedSecond
from streams.monitor.evidence import FiringEvidence
from streams.replay import BATCH, Replay, ReplaySettings
from streams.settings import Format


class Change(msgspec.Struct, tag_field="type", tag="change", frozen=True):
    """A trigger's verdict changed. `time` is the evaluation in Unix seconds."""

    time: int
    trigger: str
    flag: str
    scope: str
    from_: str = msgspec.field(name="from")
    to: str
    value: float | None
    threshold: float | None
    samples: int
    reason: str


class Evaluated(msgspec.Struct, tag_field="type", tag="evaluation", frozen=True):
    """A trigger's verdict at one evaluation."""

    time: int
    trigger: str
    flag: str
    scope: str
    state: str
    value: float | None
    samples: int


class Commanded(msgspec.Struct, tag_field="type", tag="command", frozen=True):
    """The command that would have been sent. After it the flag is safe and gets no further command.

    `shadow`: in shadow mode the command would only have been published, and the flag stays as it is.
    """

    time: int
    trigger: str
    flag: str
    environment: str
    target: str
    value: float
    threshold: float
    samples: int
    sources: int
    shadow: bool = False


class Hindered(msgspec.Struct, tag_field="type", tag="hindered", frozen=True):
    """A trigger fired without a command, for `reason`; once per firing and kind of reason."""

    time: int
    trigger: str
    flag: str
    environment: str
    reason: str


class Drifted(msgspec.Struct, tag_field="type", tag="drift", frozen=True):
    """A service's habit changed: the mean residual of the last half minute is `residual`, and was `before`, in units of
    chance (`streams.monitor.drift`).
    """

    time: int
    service: str
    metric: str
    worse: bool
    residual: float
    before: float


Line = Change | Evaluated | Commanded | Hindered | Drifted


def replay(
    config: Config, files: Sequence[Path], format: Format, *, evaluations: bool = False, batch: int = BATCH
) -> tuple[Replay, Iterator[Line]]:
    """Make a replay and the iterator of its lines. The replay's tally is complete when the iterator is exhausted."""
    specs = config.trigger_specs()
    run = Replay(
        [read(path, format) for path in files],
        specs,
        ReplaySettings(
            format=format,
            source=_source(config),
            max_scopes=config.max_scopes,
            max_lateness=config.max_lateness,
            evaluate_every=int(config.evaluate_every),
        ),
        batch=batch,
        names=[str(path) for path in files],
        drift_targets=config.drift_targets(),
    )
    return run, lines(run, config, evaluations=evaluations)


def _source(config: Config) -> str:
    """Return what counts as one source, if all topics agree; else an instance."""
    rules = {telemetry.source for telemetry in config.telemetry}
    return rules.pop() if len(rules) == 1 else INSTANCE


def lines(run: Replay, config: Config, *, evaluations: bool) -> Iterator[Line]:
    """Yield for each second the changes, then the commands and hindrances, the drifts, and the evaluations.

    Changes and evaluations are in the order of the triggers.
    """
    specs, rehearsal = config.trigger_specs(), Rehearsal(config)
    for second in run.seconds():
        for spec, change in second.transitions:
            yield _change(spec, change)
        for found in rehearsal.judge(second):
            yield _hindered(found) if isinstance(found, Hindrance) else _command(found)
        for habit, drift in second.drifts:
            name = f"{habit.environment}/{habit.service}"
            residual, before = round(drift.residual, 3), round(drift.before, 3)
            yield Drifted(second.time, name, habit.metric, drift.worse, residual, before)
        if evaluations:
            yield from _evaluations(run, second, specs)


def text(line: Line) -> str:
    """Return the line as text: the time in UTC, the trigger, what happened."""
    clock = datetime.fromtimestamp(line.time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    match line:
        case Change():
            shown = f"{line.from_} -> {line.to}"
            numbers = f"value={_number(line.value)} threshold={_number(line.threshold)} samples={line.samples}"
            return f"{clock}  {line.flag}/{line.trigger}  {line.scope}  {shown}  {numbers}  {line.reason}".rstrip()
        case Commanded():
            does = "SHADOW would set" if line.shadow else "COMMAND set"
            return (
                f"{clock}  {line.flag}/{line.trigger}  {does} {line.environment}/{line.flag} to {line.target}  "
                f"value={_number(line.value)} threshold={_number(line.threshold)} samples={line.samples} "
                f"sources={line.sources}"
            )
        case Hindered():
            return f"{clock}  {line.flag}/{line.trigger}  NO COMMAND  {line.reason}"
        case Drifted():
            way = "worse" if line.worse else "better"
            return f"{clock}  {line.service}  {line.metric} drifts, {way}  {line.before:.3g} -> {line.residual:.3g}"
        case Evaluated():
            return (
                f"{clock}  {line.flag}/{line.trigger}  {line.scope}  {line.state}  "
                f"value={_number(line.value)} samples={line.samples}"
            )


def _change(spec: TriggerSpec, change: Transition) -> Change:
    return Change(
        time=change.t,
        trigger=spec.name,
        flag=spec.flag,
        scope=str(spec.scope),
        from_=change.from_.name.lower(),
        to=change.to.name.lower(),
        value=finite(change.value),
        threshold=finite(change.threshold),
        samples=change.samples,
        reason=change.reason,
    )


def _command(evidence: FiringEvidence) -> Commanded:
    spec = evidence.spec
    return Commanded(
        time=evidence.t,
        trigger=spec.name,
        flag=spec.flag,
        environment=spec.environment,
        target=spec.safe_variant,
        value=evidence.value,
        threshold=evidence.threshold,
        samples=evidence.samples,
        sources=evidence.sources,
        shadow=spec.shadow,
    )


def _hindered(found: Hindrance) -> Hindered:
    spec = found.evidence.spec
    return Hindered(
        time=found.evidence.t, trigger=spec.name, flag=spec.flag, environment=spec.environment, reason=found.reason
    )


def _evaluations(run: Replay, second: EvaluatedSecond, specs: Sequence[TriggerSpec]) -> Iterator[Evaluated]:
    for spec, row in zip(specs, run.shard.triggers(), strict=True):
        yield Evaluated(second.time, spec.name, spec.flag, str(spec.scope), row.state, row.value, row.samples)


def finite(value: float) -> float | None:
    """Return the value, None if it is not a number."""
    return None if math.isnan(value) else value


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"
