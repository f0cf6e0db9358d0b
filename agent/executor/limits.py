"""How many flags flipback may flip by itself within a time; beyond that it halts until a person resumes it.

A wrong trigger, a broken clock or a shared outage makes many flags look guilty at once. A command that would exceed the
limit is refused and halts the automation. The count is read from the ledger, so that a crash forgets nothing. A command
is counted and entered under one lock, so that of two simultaneous commands one is counted first.

Each flag of a group counts, and a group is admitted or refused as a whole at the first of its commands: a limit never
splits it. Only a person's halt stops the rest of an admitted group. A person's rollback neither counts nor is refused,
and a flag that is already safe does not count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from agent.backends.contract import FlagRef
from agent.commands.command import Command
from agent.commands.expiry import CLOCK_SKEW_S
from agent.events import cloudevents as events
from agent.events.cloudevents import Event
from agent.events.wording import halt_in_force
from agent.executor.believed import Believed
from agent.ledger.automation import ITSELF, Automation
from agent.ledger.entry import Entry
from agent.ledger.ledger import Ledger
from agent.state.flags import FlagWatch


@dataclass(frozen=True, slots=True)
class FlipRate:
    """At most `most` flags within `within_s` seconds."""

    most: int
    within_s: float


@dataclass(slots=True)
class FlipLimits:
    """Admits the writes of automatic commands. `together` names the companions of a flag; `watch` knows what is safe.

    All calls block on the disk, and raise LedgerError if it fails.
    """

    ledger: Ledger
    automation: Automation
    limits: FlipRate
    together: Mapping[FlagRef, Sequence[FlagRef]]
    watch: FlagWatch
    _released: set[str] = field(default_factory=set)
    _admitted: dict[str, tuple[Command, float]] = field(default_factory=dict)
    """The newest issue of each command that was admitted here, and when, by its id."""
    _believed: Believed = field(default_factory=Believed)

    @contextmanager
    def admission(self, command: Command, now: float) -> Iterator[str | None]:
        """Hold the lock; yield None if the command may write, else why not. Enter it in the ledger within the block."""
        if command.by_hand:
            yield None
            return
        with self.automation.locked():
            refusal = self._judge(command, now)
            if refusal is None:
                self._released.discard(command.id)
                self._admitted[command.id] = command, now
            yield refusal

    def release(self, command: Command) -> None:
        """Stop counting a command whose attempt certainly wrote nothing, until its next attempt."""
        self._released.add(command.id)

    def _judge(self, command: Command, now: float) -> str | None:
        last = self.automation.last()
        halt = last if last is not None and last.type == events.AUTOMATION_HALTED else None
        if halt is not None and halt.data["by"] != ITSELF:
            return halt_in_force(halt)
        # A person who resumes has reviewed the earlier flips.
        since = max(now - self.limits.within_s, _resumed_at(last, now))
        entries = [entry for entry in self.ledger.recent(since) if self._of_others(entry, command)]
        if any(entry.command.incident == command.incident and self._counts(entry, now, since) for entry in entries):
            return None
        if halt is not None:
            return halt_in_force(halt)
        counted = self._counted(entries, now, since)
        wanted = self._unsafe(command)
        # A safe flag does not count: a person may have been faster than the second attempt at a write.
        if not wanted or len(counted | wanted) <= self.limits.most:
            return None
        names = [f"{ref.environment}/{ref.flag}" for ref in sorted(counted)]
        more = ", ".join(f"{ref.environment}/{ref.flag}" for ref in sorted(wanted))
        reason = (
            f"{more} would have been turned back too; {len(counted)} were within {self.limits.within_s:g} s, and "
            f"at most {self.limits.most} may be"
        )
        made = self.automation.halt(reason, by=ITSELF, at=now, flags=names, refused=command.id)
        return halt_in_force(made) if made is not None else reason

    def _counted(self, entries: Sequence[Entry], now: float, since: float) -> set[FlagRef]:
        """The flags that were written, may have been written, or are about to be."""
        found, ended = set(), _ended(entries)
        for entry in entries:
            if self._counts(entry, now, since):
                found.add(_ref(entry.command))
                if self._under_way(entry, now):
                    # The rest of its group was admitted with it, and its commands may be on their way.
                    found |= self._unsafe(entry.command) - ended(self._newest(entry)[0])
        return found

    def _unsafe(self, command: Command) -> set[FlagRef]:
        """The flags of the command's group, its own included, without those that are known to be safe."""
        origin = FlagRef(command.origin.flag, command.environment)
        group = {_ref(command), origin, *self.together.get(origin, ())}
        return {ref for ref in group if (status := self.watch.current(ref)) is None or not status.safe}

    def _of_others(self, entry: Entry, command: Command) -> bool:
        return entry.command.id != command.id and not entry.command.by_hand

    def _counts(self, entry: Entry, now: float, since: float) -> bool:
        written = entry.find(events.FLAG_WRITTEN)
        if written is not None:
            return self._believed.at(written.id, written.time, now) > since
        doubtful = entry.find(events.FLAG_AMBIGUOUS)
        if entry.find(events.FLAG_UNRESOLVED) is None and (entry.settled or entry.command.id in self._released):
            return False
        if doubtful is not None and self._believed.at(doubtful.id, doubtful.time, now) > since:
            return True
        return not entry.settled and self._under_way(entry, now)

    def _under_way(self, entry: Entry, now: float) -> bool:
        """Is the command still valid, counted from when it was entered?"""
        command, entered = self._newest(entry)
        lifetime = command.expires_at - command.issued_at
        return now < self._believed.at(f"{command.id} {command.issued_at!r}", entered, now) + lifetime

    def _newest(self, entry: Entry) -> tuple[Command, float]:
        """The newest issue of the entry's command, and when it was last admitted.

        A command that is issued or tried again while its entry is open gets no other entry.
        """
        known = self._admitted.get(entry.command.id)
        if known is not None and known[0].issued_at >= entry.command.issued_at:
            return known
        return entry.command, entry.events[0].time if entry.events else entry.command.issued_at


def _resumed_at(last: Event | None, now: float) -> float:
    """When a person resumed, 0 if nobody did.

    A resumption in the future is ignored: that clock or this one is wrong, and believing it would admit any number of
    flips until that time.
    """
    if last is None or last.type != events.AUTOMATION_RESUMED or last.time > now + CLOCK_SKEW_S:
        return 0.0
    return last.time


def _ended(entries: Sequence[Entry]) -> Callable[[Command], set[FlagRef]]:
    """Return a function from a command to the flags of its incident that are settled; their writes count by themselves.

    The outcome of an earlier issue does not settle a flag whose command was issued again.
    """
    sent: defaultdict[str, dict[FlagRef, float]] = defaultdict(dict)
    for entry in entries:
        if entry.settled:
            command, of = entry.command, sent[entry.command.incident]
            of[_ref(command)] = max(command.issued_at, of.get(_ref(command), 0.0))
    return lambda command: {ref for ref, at in sent[command.incident].items() if at >= command.issued_at}


def _ref(command: Command) -> FlagRef:
    return FlagRef(command.flag, command.environment)
