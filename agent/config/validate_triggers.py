"""Checks of one trigger: its durations, its variant, its stored value, its samples and its fast tier."""

from __future__ import annotations

from typing import Any

from agent.config.baseline import NO_BASELINE, Baseline
from agent.config.document import Note
from agent.config.flags import Flag, Trigger
from agent.config.min_samples import with_auto
from agent.config.wrong import WRONG
from detectors.conditions.durations import format_seconds
from detectors.conditions.metric_table import RATIOS
from detectors.conditions.spec import LONGEST_SPAN, Condition, TriggerSpec
from detectors.errors import GrammarError, SpecError

_SHORTEST_FALSE_ALARMS = 3600
"""The shortest `false_alarms` that is accepted, in seconds."""


def check_trigger(flag: Flag, trigger: Trigger, every: Any, baseline: Baseline | None, path: str, note: Note) -> None:
    """Check a trigger at `path`. `every` is `evaluate_every`; `baseline` is None if the file could not be read."""
    _durations(trigger, every, path, note)
    _variant(flag, trigger, f"{path}.when", note)
    _fast(trigger, path, note)
    if baseline is not None:
        _stored(flag, trigger, baseline, f"{path}.when", note)
        _auto_samples(flag, trigger, baseline, path, note)


def check_window_and_alarms(window: Any, alarms: Any, path: str, note: Note) -> None:
    """Check `max_window` and `false_alarms` of the trigger at `path`, or of the whole file if `path` is empty."""
    at = f"{path}." if path else ""
    if window not in (WRONG, None) and not 1 <= window <= LONGEST_SPAN:
        note(
            f"{at}max_window",
            f"expected 1s to {format_seconds(LONGEST_SPAN)}, found {format_seconds(window)}",
            "state is kept as long",
        )
    if alarms not in (WRONG, None) and alarms < _SHORTEST_FALSE_ALARMS:
        least = format_seconds(_SHORTEST_FALSE_ALARMS)
        note(f"{at}false_alarms", f"expected {least} at least", "more often nobody would believe an alarm")


def _durations(trigger: Trigger, every: Any, path: str, note: Note) -> None:
    grace = trigger.unknown_grace
    if grace is not WRONG and grace is not None and grace > LONGEST_SPAN:
        note(f"{path}.unknown_grace", f"expected {format_seconds(LONGEST_SPAN)} at most", "0s clears the timer at once")
    alert = trigger.unknown_alert
    if alert is not WRONG and alert is not None and alert > LONGEST_SPAN:
        note(f"{path}.unknown_alert", f"expected {format_seconds(LONGEST_SPAN)} at most", "shorten it")
    if trigger.keep_for is not WRONG and trigger.keep_for > LONGEST_SPAN:
        note(f"{path}.keep_for", f"expected {format_seconds(LONGEST_SPAN)} at most", "shorten it")
    check_window_and_alarms(trigger.max_window, trigger.false_alarms, path, note)
    if trigger.when is WRONG or every is WRONG:
        return
    over = trigger.when.condition.over
    if every > over and not trigger.when.condition.sequential:
        message = f"its window of {over}s is shorter than evaluate_every ({every}s), so seconds would be skipped"
        note(f"{path}.when", message, f"write `over {format_seconds(every)}` or more")


def _fast(trigger: Trigger, path: str, note: Note) -> None:
    if WRONG in (trigger.when, trigger.fast) or not trigger.fast:
        return
    condition = trigger.when.condition
    if condition.relative == "control":
        message = "the fast tier wants a fixed limit, not one that moves with the control"
    elif not condition.counts_bad:
        message = f"the fast tier counts bad requests, which {condition.label} {condition.op} does not"
    else:
        return
    note(f"{path}.fast", message, "leave it out", _carets(trigger, condition))


def _auto_samples(flag: Flag, trigger: Trigger, baseline: Baseline, path: str, note: Note) -> None:
    """Check that some number of samples distinguishes a healthy service from one at the limit."""
    if WRONG in (trigger.when, trigger.min_samples, flag.environment, flag.service) or trigger.min_samples != "auto":
        return
    condition = trigger.when.condition
    stored = baseline.value(flag.environment, flag.service, condition.label)
    if condition.relative == "control" or (condition.relative == "baseline" and (stored is None or stored <= 0)):
        return
    spec = TriggerSpec(
        name=str(trigger.name),
        flag=str(flag.flag),
        environment=flag.environment,
        service=flag.service,
        condition=condition,
        safe_variant=str(flag.safe),
        min_samples=0,
        baseline=stored,
    )
    limit = spec.bad_limit
    if limit is not None and not 0 <= limit < 1:
        return
    try:
        with_auto(spec, stored, LONGEST_SPAN)
    except (SpecError, ValueError) as error:
        note(
            f"{path}.when", str(error), "set `min_samples` to a number, or move the limit", _carets(trigger, condition)
        )


def _variant(flag: Flag, trigger: Trigger, path: str, note: Note) -> None:
    if trigger.when is WRONG:
        return
    condition = trigger.when.condition
    carets = _carets(trigger, condition)
    if condition.relative == "control" and condition.variant is None:
        message = "the control is compared with a variant, not with the whole service"
        note(path, message, f"name the variant, such as {condition.label}@on", carets)
    if WRONG in (flag.safe, flag.control) or condition.variant is None:
        return
    if condition.relative == "control" and condition.variant == (flag.control or flag.safe):
        message = f"{condition.variant!r} is the control: it would be compared with itself"
        note(path, message, "judge another variant, or set `control`", carets)
    elif condition.variant == flag.safe and trigger.action == "rollback":
        message = f"{flag.safe!r} is the safe variant: when it fails, a rollback to it does not help"
        note(path, message, "judge another variant, or set `action: alert`", carets)


def _stored(flag: Flag, trigger: Trigger, baseline: Baseline, path: str, note: Note) -> None:
    if WRONG in (trigger.when, flag.environment, flag.service):
        return
    condition = trigger.when.condition
    if condition.relative != "baseline":
        return
    wanted = f"{condition.label} of {flag.environment}/{flag.service}"
    value = baseline.value(flag.environment, flag.service, condition.label)
    if baseline is NO_BASELINE:
        note(
            path, f"compares with the stored {wanted}, but no file of them is named", "set `baseline` at the top level"
        )
    elif value is None:
        note(path, f"compares with the stored {wanted}, which the baseline file lacks", "add it to the file")
    elif value <= 0:
        note(path, f"the stored {wanted} is {value:g}, of which no multiple helps", "write an absolute value")
    elif condition.metric in RATIOS and condition.op == ">" and condition.value * value >= 1:
        times = f"{condition.value:g} times the stored {wanted} is {condition.value * value:g}"
        note(path, f"{times}, and no ratio is greater than 1", "lower the factor, or write an absolute value")


def _carets(trigger: Trigger, condition: Condition) -> str:
    """Return the condition with carets below its metric."""
    text = str(trigger.when)
    length = len(text.lstrip().split(condition.op)[0].rstrip())
    return GrammarError("", text, len(text) - len(text.lstrip()), length).pointed.split("\n", 1)[1]
