"""Resolves the triggers of the file to the ones that are evaluated, with every default filled in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from agent.config.baseline import Baseline
from agent.config.flags import Flag, Mode, Trigger
from agent.config.min_samples import with_auto
from detectors.conditions.metric_table import METRIC_TABLE
from detectors.conditions.spec import Condition, TriggerSpec
from streams.settings import WholeSeconds


class TriggerTimes(NamedTuple):
    """The durations that a trigger takes from the whole file unless it sets its own."""

    max_window: WholeSeconds
    false_alarms: WholeSeconds
    unknown_grace: WholeSeconds
    unknown_alert: WholeSeconds

    def of(self, trigger: Trigger) -> TriggerTimes:
        """Return the durations of one trigger; `self` is the whole file's."""
        return TriggerTimes(
            max_window=self.max_window if trigger.max_window is None else trigger.max_window,
            false_alarms=self.false_alarms if trigger.false_alarms is None else trigger.false_alarms,
            unknown_grace=self.unknown_grace if trigger.unknown_grace is None else trigger.unknown_grace,
            unknown_alert=self.unknown_alert if trigger.unknown_alert is None else trigger.unknown_alert,
        )


def resolve(flags: Iterable[Flag], mode: Mode, times: TriggerTimes, baseline: Baseline) -> list[TriggerSpec]:
    """Return the triggers of all flags in the file's order.

    `mode` and `times` are the whole file's. The most cautious mode wins: shadow in the whole file, at the flag or at
    the trigger. Raises SpecError if the configuration was not checked.
    """
    return [_spec(flag, trigger, mode, times.of(trigger), baseline) for flag in flags for trigger in flag.triggers]


def _spec(flag: Flag, trigger: Trigger, mode: Mode, times: TriggerTimes, baseline: Baseline) -> TriggerSpec:
    condition, least = trigger.when.condition, trigger.min_samples
    stored = baseline.value(flag.environment, flag.service, condition.label)
    spec = TriggerSpec(
        name=trigger.name,
        flag=flag.flag,
        environment=flag.environment,
        service=flag.service,
        condition=condition,
        safe_variant=flag.safe,
        min_samples=condition.default_min_samples if least == "auto" else least,
        unknown_grace=int(times.unknown_grace),
        unknown_alert=int(times.unknown_alert),
        keep_for=int(trigger.keep_for),
        guard=trigger.guard == "control",
        action=trigger.action,
        shadow="shadow" in (mode, flag.mode, trigger.mode),
        control_variant=(flag.control or flag.safe) if condition.relative == "control" else None,
        baseline=stored if condition.relative == "baseline" else None,
        fast=is_fast(trigger),
        false_alarms=int(times.false_alarms),
    )
    return with_auto(spec, stored, int(times.max_window)) if least == "auto" else spec


def is_fast(trigger: Trigger) -> bool:
    """Return whether the fast tier evaluates a trigger too: its own setting, else the default of its condition."""
    return fast_by_default(trigger.when.condition) if trigger.fast is None else trigger.fast


def fast_by_default(condition: Condition) -> bool:
    """Return whether the fast tier evaluates a condition whose trigger does not set `fast`."""
    return condition.counts_bad and condition.relative is None and METRIC_TABLE[condition.metric].fast
