"""Obstacles between processes that are each well: a role is missing, or keys, clocks or configurations do not fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from agent.armed.view import View, Wanted
from agent.backends.shown import nearest
from agent.commands.expiry import CLOCK_SKEW_S
from agent.heartbeats.heartbeat import AWAY_AFTER, MAX_AHEAD, Member, Obstacle, Role, alive
from streams.condition import shortened


def of_group(wanted: Wanted, view: View) -> list[Obstacle] | None:
    """The obstacles that one process announces for all: missing roles, and processes that do not fit the others.

    None if no process is seen alive, not even the viewer: then no heartbeats are read, and nothing is known.
    """
    members = view.members or ()
    living = alive(members)
    if not living:
        return None
    return [
        *of_roles(members),
        *of_keys(living),
        *of_clocks(living, wanted.lifetime),
        *of_configurations(wanted, view, living),
    ]


def of_roles(members: Sequence[Member]) -> Iterator[Obstacle]:
    """An obstacle for each role without a living process, and for executors of which none is active."""
    todo: dict[Role, str] = {
        "executor": "nothing can be flipped: start one (flipback run --roles executor), and until then turn flags off "
        "by hand, or with `flipback rollback --direct`",
        "monitor": "nothing is judged: start one (flipback run --roles monitor)",
        "ingest": "no telemetry is read: start one (flipback run --roles ingest)",
    }
    for role, do in todo.items():
        there = alive(members, role)
        if not there:
            last = last_heard([member for member in members if role in member.beat.roles])
            yield Obstacle(what=role, why=f"no {role} is alive{last}", do=do)
        elif role == "executor" and all(member.beat.roles[role] != "active" for member in there):
            names = shortened([member.beat.name for member in there])
            yield Obstacle(what=role, why=f"no executor is active, {names} wait", do="it takes over within seconds")


def last_heard(members: Sequence[Member]) -> str:
    """When the newest heartbeat of `members` came, as the end of a sentence; empty if there is none."""
    if not members:
        return ""
    newest = min(members, key=lambda member: member.age)
    if newest.ahead > MAX_AHEAD:
        return f": the clock of {newest.beat.name} is {newest.ahead:.0f} s ahead of this one"
    return f": {newest.beat.name} was last heard {newest.age:.0f} s ago, {AWAY_AFTER:.0f} s are allowed"


def of_keys(living: Sequence[Member]) -> Iterator[Obstacle]:
    """An obstacle for each monitor whose key some executor refuses; any standby may be the next to act."""
    for monitor in alive(living, "monitor"):
        key = monitor.beat.signs
        deaf = [member for member in alive(living, "executor") if key is None or key not in member.beat.accepts]
        if deaf:
            names = shortened([f"{one.beat.name[:-1]}, {one.beat.roles['executor']})" for one in deaf])
            accepted = shortened(sorted({key for one in deaf for key in one.beat.accepts})) or "none"
            yield Obstacle(
                what="keys",
                why=f"the monitor {monitor.beat.name} signs with key {key}, which the executor {names} refuses: "
                f"accepted are {accepted}",
                do="give all processes the same keys (`flipback keys generate` once, the files to each, named under "
                "`keys`) and restart them; processes that share no flags need a `kafka.prefix` each",
            )


CLOCKS = "clocks"


def of_clocks(living: Sequence[Member], lifetime: float, own: str | None = None) -> Iterator[Obstacle]:
    """An obstacle for each monitor and executor whose clocks are too far apart; `own` limits it to one executor.

    An executor refuses a command from the future and a command that has expired by its own clock.
    """
    for monitor in alive(living, "monitor"):
        for executor in alive(living, "executor"):
            if executor.clock is None or monitor.clock is None or (own is not None and executor.beat.id != own):
                continue
            ahead = executor.clock - monitor.clock
            if -CLOCK_SKEW_S <= ahead < lifetime:
                continue
            yield Obstacle(
                what=CLOCKS,
                why=f"the clock of the executor {executor.beat.name} is {abs(ahead):.0f} s "
                f"{'ahead of' if ahead > 0 else 'behind'} that of the monitor {monitor.beat.name}: it refuses its "
                "commands",
                do="see that both machines follow NTP",
            )


def of_configurations(wanted: Wanted, view: View, living: Sequence[Member]) -> Iterator[Obstacle]:
    """An obstacle for each process with other rules or flags: processes under one prefix share partitions."""
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
            # Otherwise an update would wait for the old processes to end, and they for the new ones to be ready.
            waits=older and not foreign,
        )


def of_partitions(wanted: Wanted, view: View, living: Sequence[Member]) -> Iterator[Obstacle]:
    """An obstacle for each topic of telemetry or partials that is missing or has a partition without a reader."""
    topics: list[tuple[str, Role]] = [(wanted.partials, "monitor")]
    topics += [(topic, "ingest") for topic in wanted.telemetry]
    if view.partitions is None:
        unknown = "the partitions of the topics are not known"
        yield Obstacle(what="topics", why=unknown, do="is a broker up?")
        return
    for topic, role in topics:
        if topic not in view.partitions:
            own = f"{wanted.partials.rpartition('.')[0]}."
            others = {name for name in view.partitions if not name.startswith(own)}.difference(wanted.telemetry)
            yield _missing(topic, role, sorted(others))
            continue
        read = {p for member in alive(living, role) for p in member.beat.reads.get(topic, ())}
        left = [f"{topic}/{p}" for p in range(view.partitions[topic]) if p not in read]
        if left:
            yield Obstacle(
                what=topic,
                why=f"no {role} reads {shortened(left)}",
                do="after a rebalance wait for some seconds; else restart the processes of this role",
            )


def _missing(topic: str, role: Role, others: Sequence[str]) -> Obstacle:
    """The obstacle of a missing topic. A telemetry topic is usually missing because its name is misspelt."""
    if role != "ingest":
        return Obstacle(what=topic, why="there is no such topic", do="flipback topics create -c FILE, then restart")
    are = f"; there are {nearest(topic, others)}" if others else ""
    return Obstacle(
        what=topic,
        why=f"there is no such topic{are}",
        do="correct the name; or, if it is right, create it, and it is read within about 10 s",
    )
