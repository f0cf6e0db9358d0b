"""Checks of the settings as a whole: how they fit together, and the entry to all other checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.backends.shown import meant
from agent.config.baseline import NO_BASELINE, Baseline, read_baseline
from agent.config.document import Note
from agent.config.validate_files import check_addresses
from agent.config.validate_flags import check_flags
from agent.config.validate_kafka import check_kafka, check_telemetry
from agent.config.validate_triggers import check_trigger, check_window_and_alarms
from agent.config.wrong import WRONG, decoded_items
from agent.errors import ConfigError
from detectors.conditions.durations import format_seconds
from detectors.conditions.spec import LONGEST_SPAN

_FLIP_BUDGET = 5
"""Seconds that a flip may take. A command with a shorter lifetime could expire during its flip."""


def check_settings(settings: Mapping[str, Any], note: Note) -> None:
    """Check the fields of a Config. Fields that are WRONG are in the problems already, and are skipped."""
    kafka, backends = settings["kafka"], settings["backends"]
    if kafka is not WRONG:
        check_kafka(kafka, note)
    check_telemetry(settings["telemetry"], kafka.prefix if kafka is not WRONG else WRONG, note)
    _times(settings, note)
    check_addresses(backends, note)
    baseline = _baseline(settings["baseline"], note)
    flags = list(decoded_items(settings["flags"]))
    for index, flag in flags:
        path = f"flags[{index}]"
        if backends is not WRONG and flag.backend is not WRONG and flag.backend not in backends:
            todo = meant(flag.backend, backends) or f"known are: {', '.join(backends)}"
            note(f"{path}.backend", f"no backend is named {flag.backend!r}", todo)
        for number, trigger in decoded_items(flag.triggers):
            check_trigger(flag, trigger, settings["evaluate_every"], baseline, f"{path}.triggers[{number}]", note)
    check_flags(flags, settings, note)


def _times(settings: Mapping[str, Any], note: Note) -> None:
    every, lateness = settings["evaluate_every"], settings["max_lateness"]
    behind, grace, command = settings["catching_up_after"], settings["unknown_grace"], settings["command"]
    if every is not WRONG and every < 1:
        note("evaluate_every", "expected 1s at least", "statistics are kept by the second")
    if grace is not WRONG and grace > LONGEST_SPAN:
        note("unknown_grace", f"expected {format_seconds(LONGEST_SPAN)} at most", "0s clears a timer at once")
    alert = settings["unknown_alert"]
    if alert is not WRONG and alert > LONGEST_SPAN:
        note("unknown_alert", f"expected {format_seconds(LONGEST_SPAN)} at most", "shorten it: meanwhile nobody knows")
    check_window_and_alarms(settings["max_window"], settings["false_alarms"], "", note)
    if not any(time is WRONG for time in (every, lateness, behind)) and behind <= lateness + every:
        least = f"max_lateness and evaluate_every, together {lateness + every:g}s"
        note("catching_up_after", f"expected more than {least}, or it would always be catching up", "raise it")
    if command is not WRONG and command.expires is not WRONG and command.expires < _FLIP_BUDGET:
        note("command.expires", f"expected {_FLIP_BUDGET}s at least, the time a flip may take", "raise it")


def _baseline(path: Any, note: Note) -> Baseline | None:
    """Return the stored values, none if no file is named; None if the file cannot be read."""
    if path is WRONG:
        return None
    try:
        return read_baseline(path) if path is not None else NO_BASELINE
    except ConfigError as error:
        note("baseline", str(error), "correct the file, or leave the setting out")
        return None
