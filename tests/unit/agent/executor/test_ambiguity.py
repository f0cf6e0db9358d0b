"""When it is said that nobody knows whether a write landed, said again, and given up."""

from __future__ import annotations

import pytest

from agent.events.cloudevents import FLAG_AMBIGUOUS
from agent.executor.ambiguity import GIVE_UP_S, REMIND_S, AmbiguityStep, AmbiguousWrites
from agent.ledger.entry import Entry, Opened
from tests.unit.agent.ledger.test_ledger import SNAPSHOT, command, event

BEGUN = 1_000_000.0
NOTHING, AMBIGUOUS, UNRESOLVED = AmbiguityStep


def entry_of(trigger: str = "errors") -> Entry:
    return Entry(Opened(command=command(trigger), raw=b"", snapshot=SNAPSHOT), [])


class Life:
    """A process that tries an entry now and then. `wall` and `mono` are the speeds of its clocks."""

    def __init__(self, entry: Entry, wall: float = 1.0, mono: float = 1.0) -> None:
        self.entry, self._wall, self._mono = entry, wall, mono
        self._at = 0.0
        self.ambiguous = AmbiguousWrites(lambda: self._at * self._mono)

    def still(self, at: float) -> AmbiguityStep:
        self._at = at
        now = BEGUN + at * self._wall
        step = self.ambiguous.step_due(self.entry, now)
        if step is AMBIGUOUS:
            self.entry.events.append(event(FLAG_AMBIGUOUS, now))
        return step


@pytest.mark.parametrize(("wall", "mono"), [(1.0, 1.0), (0.0, 1.0), (1.0, 0.0)], ids=["both", "monotonic", "wall"])
def test_either_clock_reminds_and_gives_up_to_the_second(wall: float, mono: float) -> None:
    life = Life(entry_of(), wall, mono)
    times = [0.0, REMIND_S - 0.5, REMIND_S, 2 * REMIND_S - 0.5, 2 * REMIND_S, GIVE_UP_S - 0.5, GIVE_UP_S]
    assert [life.still(at) for at in times] == [
        AMBIGUOUS,
        NOTHING,
        AMBIGUOUS,
        NOTHING,
        AMBIGUOUS,
        AMBIGUOUS,
        UNRESOLVED,
    ]


def test_the_next_process_goes_on_from_what_was_recorded() -> None:
    entry = entry_of()
    assert Life(entry).still(0.0) is AMBIGUOUS
    # Its monotonic clock knows nothing of the time before it.
    assert [Life(entry, mono=0.0).still(at) for at in (REMIND_S - 0.5, REMIND_S)] == [
        NOTHING,
        AMBIGUOUS,
    ]
    assert [Life(entry, mono=0.0).still(at) for at in (GIVE_UP_S - REMIND_S, GIVE_UP_S)] == [
        AMBIGUOUS,
        UNRESOLVED,
    ]


def test_a_doubt_that_ended_or_was_given_up_is_not_the_age_of_a_later_one() -> None:
    life = Life(entry_of())
    assert life.still(0.0) is AMBIGUOUS
    life.ambiguous.resolved(life.entry)
    # What was over may be over again, as that of a command which was never in doubt.
    life.ambiguous.resolved(life.entry)
    life.entry = entry_of()
    assert life.still(GIVE_UP_S) is AMBIGUOUS
    assert life.still(2 * GIVE_UP_S) is UNRESOLVED
    life.entry = entry_of()
    assert life.still(3 * GIVE_UP_S) is AMBIGUOUS


def test_the_doubts_of_two_commands_have_ages_of_their_own() -> None:
    life = Life(entry_of())
    assert life.still(0.0) is AMBIGUOUS
    first, life.entry = life.entry, entry_of("slow")
    assert life.still(GIVE_UP_S - 1.0) is AMBIGUOUS
    assert life.still(GIVE_UP_S) is NOTHING
    life.entry = first
    assert life.still(GIVE_UP_S) is UNRESOLVED


def test_a_clock_that_was_set_back_for_a_while_makes_no_doubt_older() -> None:
    entry = entry_of()
    entry.events += [event(FLAG_AMBIGUOUS, BEGUN), event(FLAG_AMBIGUOUS, BEGUN - 5 * GIVE_UP_S)]
    assert Life(entry).still(REMIND_S) is AMBIGUOUS
