"""What settings ask of each other: the checks that no setting can pass alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from agent.backends.address import is_loopback
from agent.backends.shown import meant
from agent.commands.command import BY_HAND
from agent.config.baseline import NO_BASELINE, Baseline, read_baseline
from agent.config.decode import WRONG
from agent.config.document import Note
from agent.config.flags import Flag, Trigger
from agent.config.min_samples import with_auto
from agent.config.validate_files import check_addresses
from agent.errors import ConfigError
from detectors.cells import Scope
from detectors.conditions.grammar import format_seconds
from detectors.conditions.spec import LONGEST, RATIOS, Condition, TriggerSpec
from detectors.errors import GrammarError, SpecError
from streams.decoders.sources import pattern_of
from streams.settings import KafkaSettings, SecuritySettings, TelemetrySettings

_FLIP_BUDGET = 5
"""Seconds a flip may take in all; a command that expires sooner could be right and still never be carried out."""

_RAREST = 3600
"""Seconds between false alarms that may be asked for at least."""

_T = TypeVar("_T")


class _Times(NamedTuple):
    max_window: Any
    false_alarms: Any


def check(settings: Mapping[str, Any], note: Note) -> None:
    """Check the fields of a Config. Those that hold WRONG have been noted already; nothing is said because of them."""
    kafka, backends, every = settings["kafka"], settings["backends"], settings["evaluate_every"]
    if kafka is not WRONG:
        _kafka(kafka, note)
    _telemetry(settings["telemetry"], kafka.prefix if kafka is not WRONG else WRONG, note)
    _times(settings, note)
    check_addresses(backends, note)
    baseline = _baseline(settings["baseline"], note)
    flags = list(_right(settings["flags"]))
    for index, flag in flags:
        path = f"flags[{index}]"
        if backends is not WRONG and flag.backend is not WRONG and flag.backend not in backends:
            todo = meant(flag.backend, backends) or f"known are: {', '.join(backends)}"
            note(f"{path}.backend", f"no backend is named {flag.backend!r}", todo)
        for number, trigger in _right(flag.triggers):
            where = f"{path}.triggers[{number}]"
            _patience(trigger, every, where, note)
            _variant(flag, trigger, f"{where}.when", note)
            _fast(trigger, where, note)
            if baseline is not None:
                _stored(flag, trigger, baseline, f"{where}.when", note)
                _enough(flag, trigger, baseline, where, note)
    _one_flag(flags, note)
    _groups(flags, settings["automation"], note)
    _trigger_names(flags, note)
    _scopes(flags, settings["max_scopes"], note)


def _right(items: Iterable[_T]) -> Iterator[tuple[int, _T]]:
    """What could be decoded of a list, with its place in it."""
    return ((index, item) for index, item in enumerate(items if items is not WRONG else ()) if item is not WRONG)


def _kafka(kafka: KafkaSettings, note: Note) -> None:
    remote = []
    for index, broker in _right(kafka.brokers):
        host, colon, port = broker.rpartition(":")
        if not (colon and host and port.isascii() and port.isdigit() and 0 < int(port) < 65536) or " " in broker:
            note(f"kafka.brokers[{index}]", f"expected host:port, found {broker!r}", "such as 127.0.0.1:9092")
        elif not is_loopback(host.strip("[]")):
            remote.append(broker)
    if remote and kafka.security is None:
        note(
            "kafka.security",
            f"missing, and {remote[0]} is not on loopback",
            "write `security: {}` under kafka to speak TLS, with a cafile if the brokers' authority is your own, or "
            "`security: {allow_plaintext: true}` if you trust the network between",
        )
    if kafka.security not in (None, WRONG):
        _security(kafka.security, note)
    if kafka.session_timeout is not WRONG and kafka.session_timeout < 1:
        note("kafka.session_timeout", "expected 1s at least", "brokers accept 6s and more, unless told otherwise")
    if kafka.replication == 0:
        note("kafka.replication", "expected -1, or 1 and more", "-1 stands for three, or as many as there are brokers")


def _security(security: SecuritySettings, note: Note) -> None:
    pairs = [("certfile", "keyfile"), ("keyfile", "certfile")]
    pairs += [("mechanism", "username"), ("mechanism", "password_file")]
    pairs += [("username", "mechanism"), ("password_file", "mechanism")]
    missing = {wanted: given for given, wanted in pairs if getattr(security, given) and not getattr(security, wanted)}
    for wanted, given in missing.items():
        note(f"kafka.security.{wanted}", f"missing, although {given} is given", f"add `{wanted}`")
    for name in ("cafile", "certfile", "keyfile"):
        if security.allow_plaintext is True and getattr(security, name):
            note(f"kafka.security.{name}", "is for TLS, which allow_plaintext turns off", "remove one of the two")


def _telemetry(telemetry: Iterable[TelemetrySettings], prefix: str, note: Note) -> None:
    seen: dict[str, int] = {}
    for index, source in _right(telemetry):
        path, topic = f"telemetry[{index}].topic", source.topic
        if source.source is not WRONG:
            try:
                pattern_of(source.source)
            except ValueError as error:
                note(f"telemetry[{index}].source", f"is {error}", "write instance, partition, or such as ([^/]+)/")
        if topic is WRONG:
            continue
        if topic in seen:
            note(path, f"{topic} is telemetry[{seen[topic]}] too: it would be counted twice", "leave one of the two")
        seen.setdefault(topic, index)
        if prefix is not WRONG and topic.startswith(f"{prefix}."):
            note(path, f"names that begin with {prefix}. are flipback's own", "rename it, or set kafka.prefix")


def _times(settings: Mapping[str, Any], note: Note) -> None:
    every, lateness = settings["evaluate_every"], settings["max_lateness"]
    behind, grace, command = settings["catching_up_after"], settings["unknown_grace"], settings["command"]
    if every is not WRONG and every < 1:
        note("evaluate_every", "expected 1s at least", "statistics are kept by the second")
    if grace is not WRONG and grace > LONGEST:
        note("unknown_grace", f"expected {format_seconds(LONGEST)} at most", "0s clears a timer at once")
    alert = settings["unknown_alert"]
    if alert is not WRONG and alert > LONGEST:
        note("unknown_alert", f"expected {format_seconds(LONGEST)} at most", "shorten it: meanwhile nobody knows")
    window, alarms = settings["max_window"], settings["false_alarms"]
    _longest(_Times(window, alarms), "", note)
    if not any(time is WRONG for time in (every, lateness, behind)) and behind <= lateness + every:
        least = f"max_lateness and evaluate_every, together {lateness + every:g}s"
        note("catching_up_after", f"expected more than {least}, or it would always be catching up", "raise it")
    if command is not WRONG and command.expires is not WRONG and command.expires < _FLIP_BUDGET:
        note("command.expires", f"expected {_FLIP_BUDGET}s at least, the time a flip may take", "raise it")


def _baseline(path: Any, note: Note) -> Baseline | None:
    """The stored values; None when it is not known what they are."""
    if path is WRONG:
        return None
    try:
        return read_baseline(path) if path is not None else NO_BASELINE
    except ConfigError as error:
        note("baseline", str(error), "correct the file, or leave the setting out")
        return None


def _patience(trigger: Trigger, every: Any, path: str, note: Note) -> None:
    grace = trigger.unknown_grace
    if grace is not WRONG and grace is not None and grace > LONGEST:
        note(f"{path}.unknown_grace", f"expected {format_seconds(LONGEST)} at most", "0s clears the timer at once")
    alert = trigger.unknown_alert
    if alert is not WRONG and alert is not None and alert > LONGEST:
        note(f"{path}.unknown_alert", f"expected {format_seconds(LONGEST)} at most", "shorten it")
    if trigger.keep_for is not WRONG and trigger.keep_for > LONGEST:
        note(f"{path}.keep_for", f"expected {format_seconds(LONGEST)} at most", "shorten it")
    _longest(trigger, path, note)
    if trigger.when is WRONG or every is WRONG:
        return
    over = trigger.when.condition.over
    if every > over and not trigger.when.condition.sequential:
        message = f"its window of {over}s is shorter than evaluate_every ({every}s), so seconds would be skipped"
        note(f"{path}.when", message, f"write `over {format_seconds(every)}` or more")


def _longest(settings: Any, path: str, note: Note) -> None:
    """The times that stand in the whole file and in a trigger."""
    at = f"{path}." if path else ""
    window, alarms = settings.max_window, settings.false_alarms
    if window not in (WRONG, None) and not 1 <= window <= LONGEST:
        found = format_seconds(window)
        note(f"{at}max_window", f"expected 1s to {format_seconds(LONGEST)}, found {found}", "state is kept as long")
    if alarms not in (WRONG, None) and alarms < _RAREST:
        least = format_seconds(_RAREST)
        note(f"{at}false_alarms", f"expected {least} at least", "more often nobody would believe an alarm")


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


def _enough(flag: Flag, trigger: Trigger, baseline: Baseline, path: str, note: Note) -> None:
    """Can a healthy service be told from one that breaches?"""
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
        with_auto(spec, stored, LONGEST)
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
    """The condition with carets under what it judges, its first word."""
    text = str(trigger.when)
    length = len(text.lstrip().split(condition.op)[0].rstrip())
    return GrammarError("", text, len(text) - len(text.lstrip()), length).pointed.split("\n", 1)[1]


def _one_flag(flags: list[tuple[int, Flag]], note: Note) -> None:
    """A flag may be watched in several services, but there is one of it."""
    places: dict[tuple[str, str, str], int] = {}
    first: dict[tuple[str, str], tuple[int, Flag]] = {}
    homes: dict[tuple[str, str], str] = {}
    for index, flag in flags:
        if WRONG in (flag.environment, flag.service, flag.flag):
            continue
        place = (flag.environment, flag.service, flag.flag)
        if place in places:
            message = f"flags[{places[place]}] has the same flag, service and environment"
            note(f"flags[{index}].flag", message, "put the triggers of both under one")
        places.setdefault(place, index)
        at, other = first.setdefault((flag.environment, flag.flag), (index, flag))
        for name in ("backend", "safe", "together"):
            mine, theirs = getattr(flag, name), getattr(other, name)
            if not _wrong(mine) and not _wrong(theirs) and mine != theirs:
                message = f"flags[{at}] is the same flag with {theirs!r}, found {mine!r}"
                note(f"flags[{index}].{name}", message, "a flag has one safe state, backend and group: make them alike")
        if (
            flag.backend is not WRONG
            and homes.setdefault((flag.backend, flag.flag), flag.environment) != flag.environment
        ):
            message = f"{flag.flag!r} of {flag.backend} is that of {homes[flag.backend, flag.flag]} already"
            note(
                f"flags[{index}].backend", message, "give each environment a backend of its own: a flip would hit both"
            )


def _wrong(value: Any) -> bool:
    return value is WRONG or (isinstance(value, list) and any(item is WRONG for item in value))


def _groups(flags: list[tuple[int, Flag]], automation: Any, note: Note) -> None:
    """Flags that are made safe together are managed ones of one environment, and no more than may be at once."""
    managed: dict[Any, dict[str, None]] = {}
    for _, flag in flags:
        if WRONG not in (flag.environment, flag.flag):
            managed.setdefault(flag.environment, {})[flag.flag] = None
    limits = WRONG not in (automation, *(getattr(automation, name, WRONG) for name in ("max_flips", "max_share")))
    most = automation.most(sum(map(len, managed.values()))) if limits else None
    for index, flag in flags:
        if WRONG in (flag.environment, flag.flag) or flag.together is WRONG:
            continue
        path = f"flags[{index}].together"
        known = [name for name in managed[flag.environment] if name != flag.flag]
        for number, name in _right(flag.together):
            if name == flag.flag:
                note(f"{path}[{number}]", "is the flag itself", "name the others only")
            elif name not in known:
                message = f"no flag {name!r} is under watch in {flag.environment}"
                todo = f"known are: {', '.join(known)}" if known else "add the flag, or leave it out"
                note(f"{path}[{number}]", message, meant(name, known) or todo)
            elif name in flag.together[:number]:
                note(f"{path}[{number}]", f"{name!r} is named twice", "leave one of the two")
        size = 1 + len(set(flag.together) & set(known))
        if most is not None and size > most:
            message = f"{size} flags are more than automation may turn back at once, {most}: it would halt instead"
            note(path, message, "raise automation.max_flips and automation.max_share, or name fewer")


def _trigger_names(flags: list[tuple[int, Flag]], note: Note) -> None:
    """A trigger commands once for a version of its flag, and is known by its name there."""
    names: dict[tuple[str, str, str], str] = {}
    for index, flag in flags:
        for number, trigger in _right(flag.triggers):
            key, path = (flag.environment, flag.flag, trigger.name), f"flags[{index}].triggers[{number}]"
            if WRONG in key:
                continue
            if trigger.name == BY_HAND:
                note(f"{path}.name", f"{BY_HAND!r} stands for what a person orders", "give it another name")
            if key in names:
                message = f"{trigger.name!r} is the name of {names[key]} too"
                note(f"{path}.name", message, "give each trigger of a flag a name of its own")
            names.setdefault(key, path)


def _scopes(flags: list[tuple[int, Flag]], most: Any, note: Note) -> None:
    needed = set()
    for _, flag in flags:
        needed.add(Scope(flag.environment, flag.service))
        for _, trigger in _right(flag.triggers):
            if trigger.when is WRONG:
                continue
            condition = trigger.when.condition
            variants = [condition.variant, (flag.control or flag.safe) if condition.relative == "control" else None]
            needed |= {Scope(flag.environment, flag.service, flag.flag, v) for v in variants if v is not None}
    if most is not WRONG and len(needed) > most:
        message = f"the triggers look at {len(needed)} scopes, more than {most}"
        note("max_scopes", message, "raise it, and leave room for services that are not under watch")
