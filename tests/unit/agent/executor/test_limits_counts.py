"""What counts towards the limit of flips, and until when: from entries of the ledger as other processes left them."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.backends.contract import FlagRef
from agent.commands.command import BY_HAND, Command
from agent.commands.expiry import CLOCK_SKEW_S
from agent.events import cloudevents as events
from agent.executor.limits import FlipLimits, FlipRate
from agent.ledger.automation import Automation
from agent.ledger.entry import Entry
from agent.ledger.ledger import Ledger
from agent.state.flags import FlagWatch
from tests.unit.agent.executor.test_executor import command
from tests.unit.agent.ledger.test_ledger import SNAPSHOT, event

DAY = 86_400.0
WITHIN = 600.0
OPEN: list[str] = []
DOUBTFUL = [events.FLAG_AMBIGUOUS]
WRITTEN = [events.FLAG_WRITTEN, events.FLAG_VERIFIED]


class Desk:
    """At most `most` flags within 10 minutes; `groups` names the companions of a flag."""

    def __init__(self, directory: Path, most: int, groups: dict[str, list[str]] | None = None) -> None:
        self.ledger = Ledger(directory / "ledger")
        self.automation = Automation(directory)
        together = {_ref(name): [_ref(other) for other in others] for name, others in (groups or {}).items()}
        self.breaker = FlipLimits(self.ledger, self.automation, FlipRate(most, WITHIN), together, FlagWatch())

    def enter(self, flag: str, at: float, kinds: list[str], *, steps_at: float | None = None) -> Command:
        """An entry that was made at `at`, with further steps at `steps_at`."""
        made = command(flag=flag, issued_at=at)
        entry, _ = self.ledger.open(made, b"", SNAPSHOT, [event(events.FLAG_SNAPSHOT, at)])
        for kind in kinds:
            step = event(kind, at if steps_at is None else steps_at)
            self.ledger.append(entry, replace(step, id=f"{flag}/{kind}"))
        return made

    def admits(self, flag: str, now: float) -> bool:
        with self.breaker.admission(command(flag=flag, issued_at=now), now) as refusal:
            return refusal is None


def _ref(name: str) -> FlagRef:
    return FlagRef(name, "production")


@pytest.mark.parametrize(
    ("kinds", "for_s"), [(OPEN, 60.0), (DOUBTFUL, WITHIN), (WRITTEN, WITHIN)], ids=["open", "doubtful", "written"]
)
@pytest.mark.parametrize("over", [False, True])
def test_a_flip_counts_to_the_second(tmp_path: Path, kinds: list[str], for_s: float, over: bool) -> None:
    desk = Desk(tmp_path, 1)
    desk.enter("f0", 1000.0, kinds)
    assert desk.admits("f1", 1000.0 + for_s - (0.0 if over else 0.001)) is over


@pytest.mark.parametrize(
    ("kinds", "for_s"), [(OPEN, 60.0), (DOUBTFUL, WITHIN), (WRITTEN, WITHIN)], ids=["open", "doubtful", "written"]
)
def test_each_time_that_a_wrong_clock_noted_counts_from_when_it_was_seen(
    tmp_path: Path, kinds: list[str], for_s: float
) -> None:
    desk = Desk(tmp_path, 3)
    desk.enter("f0", 7 * DAY, kinds)
    assert desk.admits("f9", 1000.0)
    desk.enter("f1", 7 * DAY, kinds)
    assert desk.admits("f9", 1000.0 + for_s - 1.0)
    # f0 is over, f1 is not.
    now = 1000.0 + for_s + 10.0
    desk.enter("f2", now, WRITTEN)
    assert desk.admits("f9", now)
    desk.enter("f3", now, WRITTEN)
    assert not desk.admits("f9", now)


@pytest.mark.parametrize("kinds", [DOUBTFUL, WRITTEN], ids=["doubtful", "written"])
def test_so_does_each_step_that_a_clock_noted_which_was_set_ahead_meanwhile(tmp_path: Path, kinds: list[str]) -> None:
    desk = Desk(tmp_path, 3)
    desk.enter("f0", 1000.0, kinds, steps_at=7 * DAY)
    assert desk.admits("f9", 1000.0)
    desk.enter("f1", 1500.0, kinds, steps_at=7 * DAY)
    assert desk.admits("f9", 1500.0)
    desk.enter("f2", 1610.0, WRITTEN)
    assert desk.admits("f9", 1610.0)
    desk.enter("f3", 1610.0, WRITTEN)
    assert not desk.admits("f9", 1610.0)


def test_the_rest_of_a_group_is_counted_from_when_its_command_was_entered(tmp_path: Path) -> None:
    desk = Desk(tmp_path, 2, {"f0": ["f1"]})
    desk.enter("f0", 1000.0, WRITTEN, steps_at=1050.0)
    assert desk.admits("f2", 1060.0)
    assert not Desk(tmp_path, 2, {"f0": ["f1"]}).admits("f2", 1059.0)


def test_a_companion_that_was_left_alone_takes_no_place(tmp_path: Path) -> None:
    desk = Desk(tmp_path, 2, {"f0": ["f1"]})
    made = desk.enter("f0", 1000.0, WRITTEN)
    other = command(flag="f1", issued_at=1000.0, cause=made.origin)
    entry, _ = desk.ledger.open(other, b"", SNAPSHOT, [event(events.COMMAND_RECEIVED, 1000.0)])
    desk.ledger.append(entry, event(events.FLAG_CONFLICT, 1000.0))
    assert desk.admits("f2", 1001.0)


def test_a_companion_whose_write_is_tried_again_keeps_its_place(tmp_path: Path) -> None:
    desk = Desk(tmp_path, 2, {"f0": ["f1"]})
    made = desk.enter("f0", 1000.0, WRITTEN)
    other = command(flag="f1", issued_at=1000.0, cause=made.origin)
    desk.ledger.open(other, b"", SNAPSHOT, [event(events.FLAG_SNAPSHOT, 1000.0)])
    desk.breaker.release(other)
    assert not desk.admits("f2", 1001.0)


@pytest.mark.parametrize(("ahead", "believed"), [(CLOCK_SKEW_S, True), (CLOCK_SKEW_S + 0.001, False)])
def test_a_resumption_that_lies_a_little_ahead_is_believed(tmp_path: Path, ahead: float, believed: bool) -> None:
    desk = Desk(tmp_path, 1)
    desk.enter("f0", 1000.0, WRITTEN)
    with desk.automation.locked():
        desk.automation.halt("", by="ann", at=1000.0)
        desk.automation.resume("", by="ann", at=1001.0 + ahead)
    assert desk.admits("f1", 1001.0) is believed


def test_who_is_refused_and_why_is_on_record(tmp_path: Path) -> None:
    desk = Desk(tmp_path, 2, {"f2": ["f3"]})
    desk.enter("f1", 1000.0, WRITTEN)
    desk.enter("f0", 1000.0, WRITTEN)
    refused = command(flag="f2", issued_at=1001.0)
    with desk.breaker.admission(refused, 1001.0) as refusal:
        assert refusal is not None
    halt = desk.automation.halted()
    assert halt is not None
    assert halt.time == 1001.0
    assert halt.data["flags"] == ["production/f0", "production/f1"]
    assert halt.data["refused"] == refused.id
    assert "production/f2, production/f3 would" in halt.data["reason"]


def test_a_person_needs_no_lock_and_takes_no_place(tmp_path: Path) -> None:
    desk = Desk(tmp_path, 1)
    with (
        desk.automation.locked(),
        desk.breaker.admission(command(flag="f0", trigger=BY_HAND), 1000.0) as refusal,
    ):
        assert refusal is None


def test_what_was_released_counts_again_when_it_is_tried_again(tmp_path: Path) -> None:
    desk = Desk(tmp_path, 1)
    made = desk.enter("f0", 1000.0, OPEN)
    desk.breaker.release(made)
    assert desk.admits("f1", 1001.0)
    with desk.breaker.admission(made, 1001.0) as refusal:
        assert refusal is None
    assert not desk.admits("f1", 1001.0)


def test_what_is_tried_again_just_before_it_expires_counts_while_it_is_written(tmp_path: Path) -> None:
    desk = Desk(tmp_path, 1)
    made = desk.enter("f0", 1000.0, OPEN)
    desk.breaker.release(made)
    with desk.breaker.admission(made, 1059.0) as refusal:
        assert refusal is None
    assert not desk.admits("f1", 1062.0)


def test_what_another_process_is_sent_anew_counts_where_an_earlier_sending_was_admitted(tmp_path: Path) -> None:
    desk, other = Desk(tmp_path, 1), Desk(tmp_path, 1)
    made = command(flag="f0", issued_at=1000.0)
    with desk.breaker.admission(made, 1000.0) as refusal:
        assert refusal is None
        desk.enter("f0", 1000.0, [events.FLAG_CONFLICT])
    assert desk.admits("f1", 1001.0)
    again = command(flag="f0", issued_at=1100.0)
    other.ledger.open(again, b"", SNAPSHOT, [event(events.FLAG_SNAPSHOT, 1100.0)], 1)
    assert not desk.admits("f1", 1101.0)


@pytest.mark.parametrize("newest_first", [True, False])
def test_a_companion_that_was_left_alone_twice_takes_no_place_in_whatever_order_the_disk_names_its_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, newest_first: bool
) -> None:
    desk = Desk(tmp_path, 2, {"f0": ["f1"]})
    made = desk.enter("f0", 1065.0, WRITTEN)
    for number, at in enumerate((1000.0, 1065.0)):
        other = command(flag="f1", issued_at=at, cause=made.origin)
        entry, _ = desk.ledger.open(other, b"", SNAPSHOT, [event(events.COMMAND_RECEIVED, at)], number)
        desk.ledger.append(entry, event(events.FLAG_CONFLICT, at))
    recent = desk.ledger.recent

    def ordered(since: float) -> list[Entry]:
        return sorted(recent(since), key=lambda entry: entry.round, reverse=newest_first)

    monkeypatch.setattr(desk.ledger, "recent", ordered)
    assert desk.admits("f2", 1066.0)
