"""Would a flip happen now? The one piece that says ARMED or NOT ARMED, of `status`, `doctor` and `/readyz` alike.

A pure function of the configuration and of what is known. What is not known is never armed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from agent.config import Config
from agent.config_load import managed_hash, rules_hash
from agent.heartbeats import AWAY_AFTER, MAX_AHEAD, Member, Obstacle, Role, alive
from streams.condition import shortened
from streams.topics import Topics

UNREAD_AFTER = 90.0
"""Seconds after which the state of a flag is old: an executor publishes each every 30 s."""

REJECTED_MOST = 0.01
"""The share of rejected samples above which verdicts are unknown."""

SHOWN = 20

FlagKey = tuple[str, str]
"""An environment and a flag."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a configuration asks for. `flags` are those that a trigger may turn back, and those that go with them;
    `names` are all, as heartbeats have them.
    """

    rules: str
    managed: str
    names: frozenset[str]
    shadow: str | None
    flags: frozenset[FlagKey]
    telemetry: tuple[str, ...]
    partials: str


@dataclass(frozen=True, slots=True)
class View:
    """What somebody knows, None where that is nothing. `partitions` is how many each topic has, `ages` how many seconds
    ago an executor has read a flag. `own` is the id of the process that looks, if it is one, and `started_at` when it
    started, in Unix seconds; of itself it knows `local` better than its heartbeat does.
    """

    members: Sequence[Member] | None
    partitions: Mapping[str, int] | None
    ages: Mapping[FlagKey, float] | None
    local: Sequence[Obstacle] = ()
    own: str | None = None
    started_at: float | None = None


@dataclass(frozen=True, slots=True)
class Arming:
    """Armed where there is no obstacle. The gravest come first."""

    obstacles: tuple[Obstacle, ...]

    @property
    def armed(self) -> bool:
        return not self.obstacles

    @property
    def ready(self) -> bool:
        """Is all well but for what is meant so or passes with an update under way?"""
        return all(obstacle.waits for obstacle in self.obstacles)

    def lines(self) -> Iterator[str]:
        """For a person: the verdict with the gravest reason, then the others."""
        if self.armed:
            yield "ARMED"
            return
        first, *others = self.obstacles
        yield f"NOT ARMED: {first}"
        for obstacle in others[: SHOWN - 1]:
            yield f"  ! {obstacle}"
        if len(others) >= SHOWN:
            yield f"  ! and {len(others) - SHOWN + 1} more"


def names(config: Config) -> list[str]:
    """The managed flags, each "environment/flag"."""
    return sorted({f"{flag.environment}/{flag.flag}" for flag in config.flags})


def wanted(config: Config) -> Wanted:
    """Raises ConfigError where the baseline file cannot be read."""
    specs = [spec for spec in config.trigger_specs() if spec.action == "rollback"]
    live = {(spec.environment, spec.flag) for spec in specs if not spec.shadow}
    together = {
        (flag.environment, name)
        for flag in config.flags
        if (flag.environment, flag.flag) in live
        for name in flag.together
    }
    shadow = None
    if not specs:
        shadow = "no trigger has the action rollback"
    elif not live:
        shadow = "mode: shadow" if config.mode == "shadow" else "every trigger that would roll back is in shadow mode"
    return Wanted(
        rules=rules_hash(config),
        managed=managed_hash(config),
        names=frozenset(names(config)),
        shadow=shadow,
        flags=frozenset(live | together),
        telemetry=tuple(topic.topic for topic in config.telemetry),
        partials=Topics(config.kafka.prefix).partials,
    )


def arming(wanted: Wanted, view: View) -> Arming:
    """Everything that keeps a flip from happening."""
    shadow = shadow_obstacle(wanted)
    found: list[Obstacle] = [] if shadow is None else [shadow]
    if view.members is None:
        unread = "the heartbeats of the processes have not been read"
        found.append(Obstacle(what="heartbeats", why=unread, do="is a broker up, and may they be read?"))
    else:
        found += _of_members(wanted, view, view.members)
    found += view.local
    updating = any(one.what == "configuration" and one.waits for one in found)
    found += _of_flags(wanted, view.ages, updating=updating)
    return Arming(tuple(obstacle.bounded() for obstacle in found))


def shadow_obstacle(wanted: Wanted) -> Obstacle | None:
    """Why a configuration turns nothing back, whoever runs it."""
    if wanted.shadow is None:
        return None
    return Obstacle(
        what="shadow",
        why=f"{wanted.shadow}: all is judged and nothing is commanded",
        do="set `mode: active` when it is to act",
        waits=True,
    )


def _of_members(wanted: Wanted, view: View, members: Sequence[Member]) -> Iterator[Obstacle]:
    living = alive(members)
    if not living:
        yield Obstacle(what="process", why=f"no process is alive{_last(members)}", do="start it: flipback run -c FILE")
        return
    if view.own is not None and all(member.beat.id != view.own for member in living):
        yield Obstacle(
            what="heartbeats",
            why="this process's own heartbeats do not come back",
            do="can it write and read the heartbeats topic?",
        )
    yield from _roles(members)
    yield from _halts(view, living)
    yield from _keys(living)
    yield from _configurations(wanted, view, living)
    yield from _unread(wanted, view, living)
    for member in living:
        if member.beat.id != view.own:
            for one in member.beat.obstacles:
                yield Obstacle(what=one.what, why=f"{one.why} ({member.beat.name})", do=one.do, waits=one.waits)
    yield from _telemetry(wanted, living)


def _roles(members: Sequence[Member]) -> Iterator[Obstacle]:
    """Each role needs somebody, and the executor one who acts."""
    todo: dict[Role, str] = {
        "executor": "nothing can be flipped: start one (flipback run --roles executor), and until then turn flags off "
        "by hand, or with `flipback rollback --direct`",
        "monitor": "nothing is judged: start one (flipback run --roles monitor)",
        "ingest": "no telemetry is read: start one (flipback run --roles ingest)",
    }
    for role, do in todo.items():
        there = alive(members, role)
        if not there:
            last = _last([member for member in members if role in member.beat.roles])
            yield Obstacle(what=role, why=f"no {role} is alive{last}", do=do)
        elif role == "executor" and all(member.beat.roles[role] != "active" for member in there):
            names = shortened([member.beat.name for member in there])
            yield Obstacle(what=role, why=f"no executor is active, {names} wait", do="it takes over within seconds")


def _last(members: Sequence[Member]) -> str:
    if not members:
        return ""
    newest = min(members, key=lambda member: member.age)
    if newest.ahead > MAX_AHEAD:
        return f": the clock of {newest.beat.name} is {newest.ahead:.0f} s ahead of this one"
    return f": {newest.beat.name} was last heard of {newest.age:.0f} s ago, {AWAY_AFTER:.0f} s are allowed"


def _halts(view: View, living: Sequence[Member]) -> Iterator[Obstacle]:
    for member in alive(living, "executor"):
        if member.beat.halted is not None and member.beat.id != view.own:
            yield Obstacle(what="automation", why=f"{member.beat.halted} ({member.beat.name})")


def _keys(living: Sequence[Member]) -> Iterator[Obstacle]:
    """Every executor, a standby too, must obey every monitor: any of them may be the one that acts next."""
    for monitor in alive(living, "monitor"):
        key = monitor.beat.signs
        deaf = [member for member in alive(living, "executor") if key is None or key not in member.beat.accepts]
        if deaf:
            names = shortened([f"{one.beat.name} ({one.beat.roles['executor']})" for one in deaf])
            accepted = shortened(sorted({key for one in deaf for key in one.beat.accepts})) or "none"
            yield Obstacle(
                what="keys",
                why=f"the monitor {monitor.beat.name} signs with key {key}, which the executor {names} refuses: "
                f"accepted are {accepted}",
                do="give all processes the same keys (`flipback keys generate` once, the files to each, named under "
                "`keys`) and restart them; processes that share no flags need a `kafka.prefix` each",
            )


def _configurations(wanted: Wanted, view: View, living: Sequence[Member]) -> Iterator[Obstacle]:
    """Processes under one prefix share partitions, so all must have the same rules and flags."""
    for member in living:
        beat = member.beat
        if member.beat.id == view.own or (beat.rules == wanted.rules and beat.managed == wanted.managed):
            continue
        what = "triggers" if beat.rules != wanted.rules else "managed flags"
        foreign = bool(beat.flags) and not wanted.names.intersection(beat.flags)
        whose = "this file" if view.own is None else "this process"
        hashes = f"rules {beat.rules[:12]}, here {wanted.rules[:12]}" if what == "triggers" else "the same rules"
        older = view.started_at is not None and beat.started_at < view.started_at
        yield Obstacle(
            what="configuration",
            why=f"{beat.name} has other {what} than {whose} under the same prefix ({hashes})"
            + (", and no flag in common" if foreign else ""),
            do="give each team a `kafka.prefix` of its own"
            if foreign
            else "restart what is older than the file; other teams need a `kafka.prefix` of their own",
            # Else an update would wait for the old processes, and they for it.
            waits=older and not foreign,
        )


def _unread(wanted: Wanted, view: View, living: Sequence[Member]) -> Iterator[Obstacle]:
    """Every partition of telemetry and partials needs a reader."""
    if view.partitions is None:
        yield Obstacle(what="topics", why="the partitions of the topics are not known", do="is a broker up?")
        return
    for topic, role in [(wanted.partials, "monitor"), *((topic, "ingest") for topic in wanted.telemetry)]:
        if topic not in view.partitions:
            yield Obstacle(what=topic, why="there is no such topic", do="flipback topics create -c FILE, then restart")
            continue
        read = {p for member in living if role in member.beat.roles for p in member.beat.reads.get(topic, ())}
        left = [f"{topic}/{p}" for p in range(view.partitions[topic]) if p not in read]
        if left:
            yield Obstacle(
                what=topic,
                why=f"no {role} reads {shortened(left)}",
                do="after a rebalance wait for some seconds; else restart the processes of this role",
            )


def _telemetry(wanted: Wanted, living: Sequence[Member]) -> Iterator[Obstacle]:
    """Without readable samples nothing is judged."""
    counts = [count for member in living for count in member.beat.telemetry]
    for topic in wanted.telemetry:
        of = [count for count in counts if count.topic == topic]
        received, rejected = sum(count.received for count in of), sum(count.rejected for count in of)
        worst = max(of, key=lambda count: count.rejected, default=None)
        if worst is None or received <= 0:
            yield Obstacle(
                what=topic,
                why=f"{topic}: no sample came in the last minute",
                do="do the services write to it?",
                waits=True,
            )
        elif rejected > REJECTED_MOST * received:
            example = f", such as {worst.example}" if worst.example else ""
            yield Obstacle(
                what=topic,
                why=f"{topic}: {rejected:,} of {received:,} samples of the last minute were rejected: "
                f"{worst.reason or 'see the rejected topic'}{example}",
                do="mend the producer",
            )


def _of_flags(wanted: Wanted, ages: Mapping[FlagKey, float] | None, *, updating: bool) -> Iterator[Obstacle]:
    """A trigger can turn back a flag only while somebody keeps telling what state it is in.

    While processes with an older file are replaced (`updating`), what is new in the file waits for that.
    """
    if ages is None:
        yield Obstacle(what="flags", why="the states of the flags have not been read", do="is a broker up?")
        return
    unknown = [name for name in sorted(wanted.flags) if name not in ages]
    old = [name for name in sorted(wanted.flags) if not ages.get(name, 0.0) <= UNREAD_AFTER]
    for flags, why in (
        (unknown, "no executor has ever told the state of"),
        (old, f"for more than {UNREAD_AFTER:.0f} s no executor has read"),
    ):
        if flags:
            yield Obstacle(
                what="flags",
                why=f"{why} {shortened(['/'.join(name) for name in flags])}",
                do="does the executor that is active have the same file, and can it read the flag?",
                waits=updating,
            )
