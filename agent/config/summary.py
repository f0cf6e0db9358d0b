"""How each trigger of a configuration will be evaluated: its samples, windows, durations and suspicious limits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from agent.config.baseline import NO_BASELINE, read_baseline
from agent.config.model import Config
from agent.config.slips import slip
from detectors.conditions.durations import format_seconds
from detectors.conditions.grammar import format_condition
from detectors.conditions.spec import TriggerSpec


@dataclass(frozen=True, slots=True)
class TriggerSummary:
    """A trigger as it is evaluated.

    `rate` is the requests per second of its service, None if unknown. `note` asks whether a suspicious limit was meant
    otherwise, None for any other limit.
    """

    spec: TriggerSpec
    rate: float | None
    note: str | None

    @property
    def samples_take(self) -> float | None:
        """Seconds until a window has `min_samples` at this rate; None without a rate or if no samples are needed."""
        return None if self.rate is None or not self.spec.min_samples else self.spec.min_samples / self.rate

    def as_json(self) -> dict[str, Any]:
        """Return the trigger as an item of `flipback config check --json`."""
        spec = self.spec
        return {
            "environment": spec.environment,
            "service": spec.service,
            "flag": spec.flag,
            "name": spec.name,
            "when": format_condition(spec.condition),
            "over": spec.condition.over,
            "for": spec.condition.hold,
            "min_samples": spec.min_samples,
            "windows": list(spec.windows),
            "samples_take_s": self.samples_take,
            "fast": spec.fast,
            "false_alarms": spec.false_alarms,
            "unknown_grace": spec.unknown_grace,
            "unknown_alert": spec.unknown_alert,
            "threshold": spec.threshold,
            "action": spec.action,
            "shadow": spec.shadow,
            "safe": spec.safe_variant,
            "control": spec.control_variant,
            "note": self.note,
        }


def summarize(config: Config, rate: float | None) -> list[TriggerSummary]:
    """Summarize all triggers in the file's order. `rate` replaces the stored throughput of every service."""
    written = {
        (flag.environment, flag.service, flag.flag, trigger.name): trigger.when
        for flag in config.flags
        for trigger in flag.triggers
    }
    rates = _rates(config, rate)
    found = []
    for spec in config.trigger_specs():
        known = rates.get((spec.environment, spec.service))
        when = written[spec.environment, spec.service, spec.flag, spec.name]
        found.append(TriggerSummary(spec, known, slip(when, spec, known)))
    return found


def summary_lines(triggers: Iterable[TriggerSummary]) -> Iterator[str]:
    """Yield the summaries as text: a line for each flag, then two or three for each of its triggers."""
    before = None
    for trigger in triggers:
        spec = trigger.spec
        place = (spec.environment, spec.service, spec.flag)
        if place != before:
            yield f"{spec.environment}/{spec.service}: {spec.flag}, safe {spec.safe_variant!r}"
        before = place
        does = f"{spec.action} (shadow)" if spec.shadow else spec.action
        baseline = "" if spec.baseline is None else f", baseline {spec.baseline:g}"
        yield f"  {spec.name}: {format_condition(spec.condition)} -> {does}"
        grace, alert = format_seconds(spec.unknown_grace), format_seconds(spec.unknown_alert)
        fast = f", fast: a false alarm in {format_seconds(spec.false_alarms)} at most" if spec.fast else ""
        yield f"      {_samples(trigger)}, unknown_grace {grace}, unknown_alert {alert}{baseline}{fast}"
        if trigger.note is not None:
            yield f"      note: {trigger.note}"


def _samples(trigger: TriggerSummary) -> str:
    spec, takes = trigger.spec, trigger.samples_take
    auto = "" if spec.max_window is None else f" (auto, windows up to {format_seconds(spec.windows[-1])})"
    if takes is None:
        return f"min_samples {spec.min_samples}{auto}"
    never = ": longer than any window, so unknown" if takes > spec.windows[-1] else ""
    return f"min_samples {spec.min_samples}{auto}, in {max(takes, 1):.0f}s at {trigger.rate:g}/s{never}"


def _rates(config: Config, rate: float | None) -> dict[tuple[str, str], float]:
    """Return the requests per second by (environment, service), given or stored; a service without one is absent."""
    stored = read_baseline(config.baseline) if config.baseline is not None and rate is None else NO_BASELINE
    places = {(flag.environment, flag.service) for flag in config.flags}
    known = {place: stored.value(*place, "throughput") if rate is None else rate for place in places}
    return {place: found for place, found in known.items() if found}
