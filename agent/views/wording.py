"""Put events of the audit log, the evidence of a command and the state of a flag in words for a person."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from agent.commands.command import Evidence
from agent.events import cloudevents as events
from agent.events.cloudevents import Event
from agent.state.flag_now import FlagNow
from detectors.cells import COUNTS
from detectors.conditions.units import shown
from detectors.missing.unknown_reason import clock
from detectors.windows.store import DISPLAY

_PREFIX = "flipback."


def sentence(event: Event) -> str:
    """Return the event in words."""
    say = _SENTENCES.get(event.type)
    if say is not None:
        return say(_EventData(event.data))
    if event.type.startswith(events.trigger_type("")):
        data = _EventData(event.data)
        reason = f": {data['reason']}" if data.get("reason") else ""
        return f"trigger {data['trigger']} is {data['to']}{reason} ({data['samples']} samples of {data['scope']})"
    rest = ", ".join(f"{name} {value}" for name, value in event.data.items() if isinstance(value, str | int | float))
    return f"{event.type.removeprefix(_PREFIX)}: {rest}"


def log_line(event: str, fields: Mapping[str, Any]) -> str | None:
    """Return the line of an audit event that is logged with its data as `fields`; None for other log events."""
    if not event.startswith(_PREFIX) or "subject" not in fields:
        return None
    data = {name: value for name, value in fields.items() if name != "subject"}
    subject = str(fields["subject"])
    return f"{subject}: {sentence(Event(type=event, subject=subject, data=data, id='', time=0.0))}"


def evidence_lines(seen: Evidence) -> Iterator[str]:
    """Yield the evidence of a command in words."""
    if seen.by:
        yield f"by hand, by {seen.by}: {seen.reason}"
        return
    control = "" if seen.control is None else f"; the control had {shown(seen.metric, seen.control)}"
    value, limit = shown(seen.metric, seen.value), shown(seen.metric, seen.threshold)
    yield f"{seen.metric} of {seen.scope} was {value}, limit {seen.op} {limit}{control}"
    yield f"{seen.samples:,} samples in {seen.window[1] - seen.window[0]:.0f} s: {_counts(seen.counts)}"
    yield from _by_variant(seen)
    names = f" ({', '.join(seen.instances)})" if seen.instances else ""
    yield f"from {seen.sources} instances{names}; {seen.age_s:.1f} s old when it fired"
    since = f"{clock(int(seen.first_true_at))}Z"
    yield f"true since {since}, for {seen.fired_at - seen.first_true_at:.0f} s when the command was given"


def _by_variant(seen: Evidence) -> Iterator[str]:
    """Yield the requests and failures of each variant of the flag, counted over the last minute at most."""
    if seen.variants and seen.window[1] - seen.window[0] > DISPLAY:
        yield f"  in the last {DISPLAY} s of them:"
    for variant, counts in seen.variants.items():
        yield f"  {variant}: {_counts(counts)}"


def _counts(counts: Mapping[str, int]) -> str:
    """Return the counts that are not zero; the sum of latencies is shown as their mean."""
    words = [f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items() if count and name in _COUNTED]
    timed, total = counts.get("latency_count", 0), counts.get("latency_us", 0)
    if timed:
        words.append(f"mean latency {shown('latency_mean', total / timed / 1000)}")
    return ", ".join(words)


_COUNTED = frozenset(COUNTS) - {"latency_count", "latency_us"}


def _number(value: object, digits: int = 6) -> str:
    return f"{value:.{digits}g}" if isinstance(value, int | float) else "not known"


def _shown(metric: object, value: object) -> str:
    return shown(str(metric), value) if isinstance(value, int | float) else "not known"


def _s(value: object) -> str:
    return f"{value:.3f} s" if isinstance(value, int | float) else "a time that was not told"


def _got(value: object) -> str:
    return repr(value) if value else "different variants"


def _given(variant: object, percent: object) -> str:
    """Return what users get: one variant, or the share of them that gets another one."""
    if not variant and isinstance(percent, int | float):
        return f"{percent:g} %"
    return _got(variant)


STALE_S = 60.0
"""Seconds after which the state of a flag is old: a running executor publishes it every 30 s."""


def flag_line(now: FlagNow, at: float, *, alone: bool = False) -> str:
    """Return the state of a flag at a time (Unix seconds): its variant, since when, by whom and why, and the source.

    `alone`: it could not be checked whether the state is published.
    """
    state = "safe" if now.safe else "in use"
    line = f"gives {_given(now.variant, now.percent)} ({state})"
    if now.since is None:
        line += ", unchanged since flipback first read it"
    else:
        reason = f": {now.reason}" if now.reason else ""
        line += f" since {_clock(now.since, at)} ({_ago(at - now.since)} ago), set by {now.by}{reason}"
    if now.unpublished:
        line += ", by the ledger of this machine"
        return line if alone else f"{line}; no executor has published it yet"
    if at - now.read_at > STALE_S:
        line += f"; as of {_clock(now.read_at, at)}, no executor has read it since"
    return line


def _clock(moment: float, at: float) -> str:
    """Return the time of day, with the date if it is a day ago or more."""
    shape = "%H:%M:%SZ" if at - moment < 86_400 else "%Y-%m-%dT%H:%M:%SZ"
    return datetime.fromtimestamp(moment, UTC).strftime(shape)


def _ago(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _command(data: Mapping[str, Any]) -> str:
    seen = data["command"].get("evidence", {}) if isinstance(data.get("command"), dict) else {}
    by = f" by {seen['by']}: {seen.get('reason')}" if seen.get("by") else ""
    return f"command: set {data['flag']} to {data['target']!r}, because of {data['trigger']}{by}"


def _with(head: str, rest: object) -> str:
    return f"{head}: {rest}" if rest else head


def _inability(data: Mapping[str, Any]) -> str:
    """Return an inability in words. One with a state lasts: its beginning says what would happen, its end that it is
    over.
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


_STANDING = {
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
    each = [f"{flag} {outcome}" for flag, outcome in flags.items()] if isinstance(flags, dict) else []
    head = "the incident is over, not all flags are safe" if data.get("partial") is True else "the incident is over"
    return _with(head, ", ".join(each))


_SENTENCES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    events.COMMAND_RECEIVED: _command,
    events.COMMAND_REJECTED: lambda d: f"command refused, {d['reason']}: {d['detail']}",
    events.COMMAND_SHADOWED: lambda d: f"shadow mode: {d['target']!r} would have been commanded",
    events.FLAG_SNAPSHOT: lambda d: f"the flag gave {_got(d.get('variant'))}; kept to be restored",
    events.FLAG_WRITTEN: lambda d: _with(f"written, attempt {d['attempts']}", d.get("detail")),
    events.FLAG_VERIFIED: lambda d: (
        f"read back: {_got(d.get('variant'))} for everyone, {_s(d.get('took_s'))} after the command"
    ),
    events.FLAG_UNVERIFIED: lambda d: f"not read back: {d['detail']}; {_s(d.get('took_s'))} after the command",
    events.FLAG_ALREADY: lambda d: "the flag was safe already",
    events.FLAG_CONFLICT: lambda d: (
        f"not the version that was judged: it gives {_got(d.get('variant'))}, and was left alone"
    ),
    events.FLAG_AMBIGUOUS: lambda d: f"it cannot be told whether the write landed: {d['detail']}",
    events.FLAG_UNRESOLVED: lambda d: f"given up: {d['detail']}; {d['todo']}",
    events.FLAG_NOT_WRITTEN: lambda d: f"the flag was not written, and will not be by this command: {d['detail']}",
    events.FLAG_CHANGED: lambda d: (
        f"changed in the flag system: {_given(d.get('was'), d.get('was_percent'))} before, "
        f"{_given(d.get('variant'), d.get('percent'))} since"
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
