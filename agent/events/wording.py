"""Events in words: the one place that puts an event of the audit log in a sentence for a person."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from agent.events import cloudevents as events
from agent.events.cloudevents import Event
from detectors.conditions.units import shown

_PREFIX = "flipback."


def sentence(event: Event) -> str:
    """Return the event as a sentence without the subject. Fields that are missing read as not known."""
    words = _SENTENCES.get(event.type)
    if words is not None:
        return words(_EventData(event.data))
    if event.type.startswith(events.trigger_type("")):
        data = _EventData(event.data)
        reason = f": {data['reason']}" if data.get("reason") else ""
        return f"trigger {data['trigger']} is {data['to']}{reason} ({data['samples']} samples of {data['scope']})"
    rest = ", ".join(f"{name} {value}" for name, value in event.data.items() if isinstance(value, str | int | float))
    return f"{event.type.removeprefix(_PREFIX)}: {rest}"


def log_line(event: str, fields: Mapping[str, Any]) -> str | None:
    """Return the log line of an audit event, whose data and subject are the `fields`; None for other log events."""
    if not event.startswith(_PREFIX) or "subject" not in fields:
        return None
    data = {name: value for name, value in fields.items() if name != "subject"}
    subject = str(fields["subject"])
    return f"{subject}: {sentence(Event(type=event, subject=subject, data=data, id='', time=0.0))}"


def halt_in_force(halt: Event) -> str:
    """Return why flipback does nothing by itself: the event of a halt that has not ended."""
    return (
        f"the automation was halted by {halt.data['by']}: {halt.data['reason']}; it stays so until "
        "`flipback resume -c FILE --reason REASON`"
    )


MADE_SAFE: Final = {
    events.FLAG_VERIFIED: "rolled back",
    events.FLAG_UNVERIFIED: "rolled back, by the word of the backend; it cannot be read back",
    events.FLAG_ALREADY: "safe already",
}
"""What `flipback rollback` prints for the last event of a command that left the flag safe, by the event's type."""

ORDER_OUTCOMES: Final = {
    events.FLAG_VERIFIED: "rolled back",
    events.FLAG_UNVERIFIED: "acknowledged, not read back",
    events.FLAG_ALREADY: "was safe already",
    events.FLAG_CONFLICT: "refused: somebody changed the flag meanwhile",
    events.FLAG_AMBIGUOUS: "it is not known whether it was written",
    events.COMMAND_REJECTED: "refused",
}
"""The outcome of a person's order in `flipback status`, by the type of the newest of these events."""


def _number(value: object, digits: int = 6) -> str:
    return f"{value:.{digits}g}" if isinstance(value, int | float) else "not known"


def _shown(metric: object, value: object) -> str:
    return shown(str(metric), value) if isinstance(value, int | float) else "not known"


def _took(value: object) -> str:
    return f"{value:.3f} s" if isinstance(value, int | float) else "a time that was not told"


def _variant(value: object) -> str:
    return repr(value) if value else "different variants"


def given(variant: object, percent: object) -> str:
    """Return what users get: the variant of all, or the percentage that gets the first variant of the flag's rule."""
    if not variant and isinstance(percent, int | float):
        return f"{percent:g} %"
    return _variant(variant)


def _command(data: Mapping[str, Any]) -> str:
    evidence = data["command"].get("evidence", {}) if isinstance(data.get("command"), dict) else {}
    by = f" by {evidence['by']}: {evidence.get('reason')}" if evidence.get("by") else ""
    return f"command: set {data['flag']} to {data['target']!r}, because of {data['trigger']}{by}"


def _with(head: str, rest: object) -> str:
    """Return `head: rest`, or the head alone if the rest is empty."""
    return f"{head}: {rest}" if rest else head


def _inability(data: Mapping[str, Any]) -> str:
    """Return an inability in words. One with a state lasts: it has an event for its beginning, with what would happen,
    and one for its end.
    """
    reason = data.get("reason")
    if data.get("state") == "ended":
        return _with("able again", reason)
    if data.get("status") == events.NOTICE:
        return _with("note", reason or "no reason given")
    if data.get("state") != "begun":
        return _with("nothing was done", reason or "no reason given")
    head = _STANDING.get(str(data.get("status")), "unable")
    return _with(head, reason or "no reason given")


_STANDING: Final = {
    "unable": "a flip would fail",
    "not-armed": "a flip would fail",
    "unknown": "nothing can be judged",
    "unknown in part": "not all can be judged",
    "catching_up": "nothing can be judged",
    "outage": "nothing was done",
    "unwritable": "not published",
}


class _EventData(dict[str, Any]):
    """Data of an event. A field that another version of flipback did not write reads as not known."""

    def __missing__(self, name: str) -> str:
        return "not known"


def _done(data: Mapping[str, Any]) -> str:
    """Return the end of an incident in words, with the outcome of each flag of its group."""
    flags = data.get("flags")
    outcomes = [f"{flag} {outcome}" for flag, outcome in flags.items()] if isinstance(flags, dict) else []
    head = "the incident is over, not all flags are safe" if data.get("partial") is True else "the incident is over"
    return _with(head, ", ".join(outcomes))


_SENTENCES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    events.COMMAND_RECEIVED: _command,
    events.COMMAND_REJECTED: lambda d: f"command refused, {d['reason']}: {d['detail']}",
    events.COMMAND_SHADOWED: lambda d: f"shadow mode: {d['target']!r} would have been commanded",
    events.FLAG_SNAPSHOT: lambda d: f"the flag gave {_variant(d.get('variant'))}; kept to be restored",
    events.FLAG_WRITTEN: lambda d: _with(f"written, attempt {d['attempts']}", d.get("detail")),
    events.FLAG_VERIFIED: lambda d: (
        f"read back: {_variant(d.get('variant'))} for everyone, {_took(d.get('took_s'))} after the command"
    ),
    events.FLAG_UNVERIFIED: lambda d: f"not read back: {d['detail']}; {_took(d.get('took_s'))} after the command",
    events.FLAG_ALREADY: lambda d: "the flag was safe already",
    events.FLAG_CONFLICT: lambda d: (
        f"not the version that was judged: it gives {_variant(d.get('variant'))}, and was left alone"
    ),
    events.FLAG_AMBIGUOUS: lambda d: f"it cannot be told whether the write landed: {d['detail']}",
    events.FLAG_UNRESOLVED: lambda d: f"given up: {d['detail']}; {d['todo']}",
    events.FLAG_NOT_WRITTEN: lambda d: f"the flag was not written, and will not be by this command: {d['detail']}",
    events.FLAG_CHANGED: lambda d: (
        f"changed in the flag system: {given(d.get('was'), d.get('was_percent'))} before, "
        f"{given(d.get('variant'), d.get('percent'))} since"
    ),
    events.FLAG_RESTORED: lambda d: f"put back by {d['by']}: {d.get('reason') or 'no reason given'}",
    events.FLAG_EFFECTIVE: lambda d: (
        f"effective: {_number(d.get('before_rps'), 3)} requests/s of it became {_number(d.get('after_rps'), 3)}"
    ),
    events.FLAG_INEFFECTIVE: lambda d: f"without effect: {d['reason']}; {d['check']}",
    events.FLAG_EFFECT_UNKNOWN: lambda d: f"it is not known whether the flip took effect: {d['reason']}",
    events.FLAG_RECOVERED: lambda d: (
        f"recovered: {d['metric']} is {_shown(d['metric'], d.get('value'))}, was {_shown(d['metric'], d.get('was'))}"
    ),
    events.FLAG_NOT_RECOVERED: lambda d: (
        f"not recovered, {d['verdict']}: {d['metric']} is {_shown(d['metric'], d.get('value'))}, was "
        f"{_shown(d['metric'], d.get('was'))}; {d['check']}"
    ),
    events.FLAG_RECOVERY_UNKNOWN: lambda d: (
        f"it is not known whether the service recovered: {d['reason']}; {d['metric']} was "
        f"{_shown(d['metric'], d.get('was'))}"
    ),
    events.INCIDENT_DONE: _done,
    events.DRIFT_WORSE: lambda d: (
        f"habit: {d['metric']} became worse than usual ({d['method']}); nothing follows from it"
    ),
    events.DRIFT_BETTER: lambda d: f"habit: {d['metric']} became better than usual ({d['method']})",
    events.TELEMETRY_REJECTED: lambda d: (
        f"telemetry: of {d['received']} samples of {d['topic']} {d['rejected']} were rejected and {d['no_outcome']} do "
        f"not say how the request ended: {d['reason']}"
    ),
    events.AUTOMATION_HALTED: lambda d: f"halted by {d['by']}: {d['reason'] or 'no reason given'}; {d['todo']}",
    events.AUTOMATION_RESUMED: lambda d: f"resumed by {d['by']}: {d['reason'] or 'no reason given'}",
    events.INABILITY: _inability,
}
