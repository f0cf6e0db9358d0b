"""How much flipback may do by itself: so many flags in a time, then it halts until a person resumes it.

A wrong trigger, a broken clock or a shared outage makes many flags look guilty at once. What would be one flag more
than the limit turns nothing back and halts the automation. What counts is read from the ledger, so a crash forgets
nothing, and a command is counted and entered under one lock, so of two at the same instant one is counted first.

The flags that are made safe together count each, and are allowed or refused as a whole at the first of their commands:
a group is never halved by a limit. Only a person's halt stops what is still to be written of it. What a person rolls
back neither counts nor is refused, and a flag that is safe already costs nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from agent.backends.contract import FlagRef
from agent.commands.command import Command
from agent.events import cloudevents as events
from agent.events.cloudevents import Event
from agent.executor.believed import Believed
from agent.ledger import automation
from agent.ledger.automation import ITSELF, Automation
from agent.ledger.entry import Entry
from agent.ledger.ledger import Ledger
from agent.state.allowlist import CLOCK_SKEW_S
from agent.state.flags import FlagWatch


@dataclass(frozen=True, slots=True)
class FlipRate:
    """At most `most` flags within `within_s` seconds."""

    most: int
    within_s: float


@dataclass(slots=True)
class FlipLimits:
    """Admits the writes of automatic commands. `together` names the companions of a flag; `watch` knows who is safe.

    All calls block on the disk; LedgerError where it fails.
    """

    ledger: Ledger
    automation: Automation
    limits: FlipRate
    together: Mapping[FlagRef, Sequence[FlagRef]]
    watch: FlagWatch
    _released: set[str] = field(default_factory=set)
    _admitted: dict[str, tuple[Command, float]] = field(default_factory=dict)
    """The newest sending of each command that was admitted here, by its id, and when."""
    _believed: Believed = field(default_factory=Believed)

    @contextmanager
    def admission(self, command: Command, now: float) -> Iterator[str | None]:
        """With the lock held: None where the command may write, else why not. To be entered in the ledger meanwhile."""
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
        """An attempt has ended, and certainly nothing was written: until the next it does not count."""
        self._released.add(command.id)

    def _judge(self, command: Command, now: float) -> str | None:
        last = self.automation.last()
        halt = last if last is not None and last.type == events.AUTOMATION_HALTED else None
        if halt is not None and halt.data["by"] != ITSELF:
            return automation.words(halt)
        # A person who resumes has looked at what was done before.
        since = max(now - self.limits.within_s, _resumed_at(last, now))
        entries = [entry for entry in self.ledger.recent(since) if self._of_others(entry, command)]
        if any(entry.command.incident == command.incident and self._counts(entry, now, since) for entry in entries):
            return None
        if halt is not None:
            return automation.words(halt)
        counted = self._counted(entries, now, since)
        wanted = self._unsafe(command)
        # What is safe already costs nothing: a person may have been faster than the second attempt at a write.
        if not wanted or len(counted | wanted) <= self.limits.most:
            return None
        names = [f"{ref.environment}/{ref.flag}" for ref in sorted(counted)]
        more = ", ".join(f"{ref.environment}/{ref.flag}" for ref in sorted(wanted))
        reason = (
            f"{more} would have been turned back too; {len(counted)} were within {self.limits.within_s:g} s, and "
            f"at most {self.limits.most} may be"
        )
        made = self.automation.halt(reason, by=ITSELF, at=now, flags=names, refused=command.id)
        return automation.words(made) if made is not None else reason

    def _counted(self, entries: Sequence[Entry], now: float, since: float) -> set[FlagRef]:
        """Flags that were written, may have been, or are about to be."""
        found, ended = set(), _ended(entries)
        for entry in entries:
            if self._counts(entry, now, since):
                found.add(_ref(entry.command))
                if self._under_way(entry, now):
                    # The rest of its group was admitted with it, and may be on its way.
                    found |= self._unsafe(entry.command) - ended(self._newest(entry)[0])
        return found

    def _unsafe(self, command: Command) -> set[FlagRef]:
        """The flags of the command's group, its own among them, but for those that are known to be safe."""
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
        """Is the command still valid, by the time that it was entered at?"""
        command, entered = self._newest(entry)
        lifetime = command.expires_at - command.issued_at
        return now < self._believed.at(f"{command.id} {command.issued_at!r}", entered, now) + lifetime

    def _newest(self, entry: Entry) -> tuple[Command, float]:
        """The newest sending of the entry's command, and when it was admitted last.

        A command that is sent or tried again while its entry is open gets no other entry.
        """
        known = self._admitted.get(entry.command.id)
        if known is not None and known[0].issued_at >= entry.command.issued_at:
            return known
        return entry.command, entry.events[0].time if entry.events else entry.command.issued_at


def _resumed_at(last: Event | None, now: float) -> float:
    """When a person resumed, long ago if nobody did.

    One that lies ahead was noted by a wrong clock, or the clock is wrong now: to believe it would let any number of
    flips through until that time.
    """
    if last is None or last.type != events.AUTOMATION_RESUMED or last.time > now + CLOCK_SKEW_S:
        return 0.0
    return last.time


def _ended(entries: Sequence[Entry]) -> Callable[[Command], set[FlagRef]]:
    """The flags of a sending whose command has come to its end: what was written of them counts by itself.

    What an earlier sending came to says nothing of a flag that is sent a command again.
    """
    sent: defaultdict[str, dict[FlagRef, float]] = defaultdict(dict)
    for entry in entries:
        if entry.settled:
            command, of = entry.command, sent[entry.command.incident]
            of[_ref(command)] = max(command.issued_at, of.get(_ref(command), 0.0))
    return lambda command: {ref for ref, at in sent[command.incident].items() if at >= command.issued_at}


def _ref(command: Command) -> FlagRef:
    return FlagRef(command.flag, command.environment)
