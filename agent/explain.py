"""What happened in an incident, or to a flag, and why: put together from the audit log.

Everything is in `flipback.events`: a verdict that changed, the command with its evidence, every step of the flip, what
came after, and why nothing was done where nothing was. This finds what belongs together and says it in words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from agent import events
from agent.commands import Evidence
from agent.config import Config
from agent.errors import FlipbackError, MalformedEvent
from agent.events import Event, from_kafka
from agent.kafka import connection
from streams.log import read_to_end
from streams.topics import Topics, describe

BEFORE_S = 3600.0
"""Seconds before an incident's first step in which its trigger may have become pending."""


LAG_S = 60.0
"""Seconds by which the clock, which steps have, may be ahead of the event time that verdicts have."""


class NothingKnown(FlipbackError):
    """The audit log has nothing of what was asked for."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Events in the order of time; `evidence` is that of the command, None where nothing was commanded."""

    subject: str
    incident: str | None
    evidence: Evidence | None
    events: list[Event]

    @property
    def incidents(self) -> dict[str, bool]:
        """The incidents of the flag itself, oldest first: did a flip of it begin to write, and is there a snapshot that
        can be restored?
        """
        found: dict[str, bool] = {}
        for event in self.events:
            if event.subject == self.subject and "incident" in event.data:
                name = str(event.data["incident"])
                found[name] = found.get(name, False) or event.type == events.FLAG_WRITTEN
        return found


async def read_events(config: Config) -> list[Event]:
    """The whole audit log; what is no event of flipback is left out. TopicError where it is not there."""
    topic, client = Topics(config.kafka.prefix).events, connection(config).client
    # Reading would wait for ever for a topic that is missing.
    await describe([topic], client)
    records = await read_to_end(topic, client)
    found: dict[str, Event] = {}
    for record in records:
        try:
            event = from_kafka(record.value, record.headers)
        except MalformedEvent:
            continue
        # One that was told twice, by a re-delivery or a second process, is one.
        found.setdefault(event.id, event)
    return list(found.values())


def explain(log: Sequence[Event], what: str) -> Explanation:
    """Explain an incident by its id, or a flag ("flag" or "environment/flag") by the newest time it was in trouble.

    Raises NothingKnown.
    """
    own = [event for event in log if event.data.get("incident") == what]
    if own:
        return _incident(log, own, what)
    subjects = {event.subject for event in log if what in (event.subject, event.subject.partition("/")[2])}
    if not subjects:
        raise NothingKnown(
            f"the audit log knows no incident and no flag {what!r}; `flipback status` lists flags and the incidents of "
            "triggers, `flipback explain FLAG` a flag's newest incidents, those by hand too"
        )
    if len(subjects) > 1:
        raise NothingKnown(f"{what!r} is in several environments: name one of {', '.join(sorted(subjects))}")
    return _flag(log, subjects.pop())


def _incident(log: Sequence[Event], own: Sequence[Event], incident: str) -> Explanation:
    first = min(event.time for event in own)
    # The flag whose trigger fired; the others of a group have its incident too.
    causes = {event.subject for event in own if event.data.get("command", {}) and _cause(event) is None}
    subject = causes.pop() if causes else own[0].subject
    trigger = next((event.data["trigger"] for event in own if "trigger" in event.data), None)
    verdicts = [
        event
        for event in log
        if event.subject == subject and event.data.get("trigger") == trigger and "incident" not in event.data
    ]
    found = [*own, *_around(verdicts, first, max(event.time for event in own))]
    return Explanation(subject=subject, incident=incident, evidence=_evidence(own), events=_sorted(found))


def _flag(log: Sequence[Event], subject: str) -> Explanation:
    of = [event for event in log if event.subject == subject]
    last = max(event.time for event in of)
    start = _episode(of, last)
    # What was said of everything, such as that it is an outage, is why nothing was done to this flag.
    shared = [event for event in log if event.subject == events.AUTOMATION]
    found = [event for event in [*of, *shared] if start <= event.time <= last + LAG_S]
    incidents = {event.data["incident"] for event in found if "incident" in event.data}
    incident = incidents.pop() if len(incidents) == 1 else None
    return Explanation(subject=subject, incident=incident, evidence=_evidence(found), events=_sorted(found))


def _around(verdicts: Sequence[Event], first: float, last: float) -> Iterator[Event]:
    """The trigger's verdicts from where it left ok before the incident to the end of it."""
    begin = _episode([event for event in verdicts if event.time <= first], first)
    yield from (event for event in verdicts if begin <= event.time <= last + 1)


def _episode(of: Sequence[Event], end: float) -> float:
    """When the last time in trouble began: after the last verdict of ok that something else followed."""
    start = end
    for event in sorted(of, key=lambda event: -event.time):
        if event.time < end - BEFORE_S:
            break
        if event.type == events.trigger_type("ok") and start < end:
            return start
        start = event.time
    return start


def _evidence(found: Iterable[Event]) -> Evidence | None:
    """The evidence of the first command; of a person's that was given again, who gave it last and why."""
    first: Evidence | None = None
    for event in _sorted(found):
        command = event.data.get("command")
        if event.type != events.COMMAND_RECEIVED or not isinstance(command, dict):
            continue
        seen = msgspec.convert(command["evidence"], Evidence)
        if first is None or (first.by and seen.by):
            first = seen
    return first


def _cause(event: Event) -> object:
    command = event.data.get("command")
    return command.get("cause") if isinstance(command, dict) else None


def _sorted(found: Iterable[Event]) -> list[Event]:
    return sorted({event.id: event for event in found}.values(), key=lambda event: event.time)


def sentence(event: Event) -> str:
    """An event in words."""
    say = _SENTENCES.get(event.type)
    if say is not None:
        return say(_Told(event.data))
    if event.type.startswith(events.trigger_type("")):
        data = _Told(event.data)
        reason = f": {data['reason']}" if data.get("reason") else ""
        return f"trigger {data['trigger']} is {data['to']}{reason} ({data['samples']} samples of {data['scope']})"
    rest = ", ".join(f"{name} {value}" for name, value in event.data.items() if isinstance(value, str | int | float))
    return f"{event.type.removeprefix('flipback.')}: {rest}"


def evidence_lines(seen: Evidence) -> Iterator[str]:
    """The evidence of a command in words."""
    if seen.by:
        yield f"by hand, by {seen.by}: {seen.reason}"
        return
    control = "" if seen.control is None else f"; the control had {seen.control:.6g}"
    yield f"{seen.metric} of {seen.scope} was {seen.value:.6g}, limit {seen.op} {seen.threshold:.6g}{control}"
    counts = ", ".join(f"{count:,} {name}" for name, count in seen.counts.items() if count)
    yield f"{seen.samples:,} samples in {seen.window[1] - seen.window[0]:.0f} s: {counts}"
    names = f" ({', '.join(seen.instances)})" if seen.instances else ""
    yield f"from {seen.sources} instances{names}; {seen.age_s:.1f} s old when it fired"
    yield f"true since {seen.fired_at - seen.first_true_at:.0f} s before it fired"


def _number(value: object, digits: int = 6) -> str:
    return f"{value:.{digits}g}" if isinstance(value, int | float) else "not known"


def _s(value: object) -> str:
    return f"{value:.3f} s" if isinstance(value, int | float) else "a time that was not told"


def _got(value: object) -> str:
    return repr(value) if value else "different variants"


def _command(data: Mapping[str, Any]) -> str:
    seen = data["command"].get("evidence", {}) if isinstance(data.get("command"), dict) else {}
    by = f" by {seen['by']}: {seen.get('reason')}" if seen.get("by") else ""
    return f"command: set {data['flag']} to {data['target']!r}, because of {data['trigger']}{by}"


def _with(head: str, rest: object) -> str:
    return f"{head}: {rest}" if rest else head


class _Told(dict[str, Any]):
    """Data of an event; what another version did not write down is not known, and no reason to fail."""

    def __missing__(self, name: str) -> str:
        return "not known"


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
    events.FLAG_RESTORED: lambda d: f"put back by {d['by']}: {d.get('reason') or 'no reason given'}",
    events.FLAG_EFFECTIVE: lambda d: (
        f"effective: {_number(d.get('before_rps'), 3)} requests/s of it became {_number(d.get('after_rps'), 3)}"
    ),
    events.FLAG_INEFFECTIVE: lambda d: f"without effect: {d['reason']}; {d['check']}",
    events.FLAG_RECOVERED: lambda d: (
        f"recovered: {d['metric']} is {_number(d.get('value'))}, was {_number(d.get('was'))}"
    ),
    events.FLAG_NOT_RECOVERED: lambda d: (
        f"not recovered, {d['verdict']}: {d['metric']} is {_number(d.get('value'))}, was {_number(d.get('was'))}; "
        f"{d['check']}"
    ),
    events.AUTOMATION_HALTED: lambda d: f"halted by {d['by']}: {d['reason'] or 'no reason given'}; {d['todo']}",
    events.AUTOMATION_RESUMED: lambda d: f"resumed by {d['by']}: {d['reason'] or 'no reason given'}",
    events.INABILITY: lambda d: f"nothing was done: {d['reason']}",
}
