"""What a start finds unfinished: settled without a backend where that is certain, else looked at, the urgent first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from agent.backends.contract import FlagState, Outcome, Snapshot
from agent.commands.command import Command
from agent.events import cloudevents as events
from agent.executor.recovery import Recovery, carry_on
from agent.executor.result import Decided, ExecutionResult
from agent.ledger.entry import Entry
from agent.ledger.ledger import Ledger
from agent.state.allowlist import AllowList, ManagedFlag
from tests.unit.agent.executor.test_executor import command
from tests.unit.agent.ledger.test_ledger import event

MANAGED = [ManagedFlag(name, "production", "shop", backend, "off") for name, backend in (("a", "x"), ("b", "y"))]


def left_open(ledger: Ledger, flag: str, backend: str, issued_at: float, *, unwritten: bool = False) -> Entry:
    made = command(flag=flag, backend=backend, trigger=f"t{issued_at}", issued_at=issued_at)
    state = FlagState(variant="on", percent=None, version="v", raw="on")
    found = Snapshot(flag=flag, environment="production", state=state, identity="1")
    entry, _ = ledger.open(made, str(issued_at).encode(), found, [event(events.FLAG_SNAPSHOT, issued_at)])
    if unwritten:
        ledger.mark(entry, "never")
    return entry


def last(ledger: Ledger, entry: Entry) -> events.Event:
    """The last step as it is on the disk."""
    found = ledger.get(entry.command.id)
    assert found is not None
    return found.events[-1]


def test_each_backend_is_asked_about_its_own_the_newest_first(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    old, newest, between = (left_open(ledger, "a", "x", at) for at in (100.0, 1000.0, 500.0))
    other = left_open(ledger, "b", "y", 700.0)
    left = Recovery(ledger, AllowList(MANAGED)).settle([old, newest, other, between], 1001.0)
    assert left == [[newest, between, old], [other]]


def test_what_has_its_outcome_is_left_as_it_is(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    done = left_open(ledger, "a", "x", 100.0, unwritten=True)
    ledger.append(done, event(events.FLAG_CONFLICT, 101.0))
    assert Recovery(ledger, AllowList([])).settle([done], 1001.0) == []
    assert last(ledger, done).type == events.FLAG_CONFLICT


@pytest.mark.parametrize("managed", [True, False])
def test_what_expired_unwritten_is_over_at_the_time_of_the_start_whoever_manages_the_flag(
    tmp_path: Path, managed: bool
) -> None:
    ledger = Ledger(tmp_path)
    entry = left_open(ledger, "a", "x", 100.0, unwritten=True)
    assert Recovery(ledger, AllowList(MANAGED if managed else [])).settle([entry], 1001.0) == []
    end = last(ledger, entry)
    assert (end.type, end.time) == (events.FLAG_NOT_WRITTEN, 1001.0)
    assert ("expired" if managed else "not managed") in end.data["detail"]


def test_what_is_unwritten_and_still_valid_is_tried_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    entry = left_open(ledger, "a", "x", 1000.0, unwritten=True)
    assert Recovery(ledger, AllowList(MANAGED)).settle([entry], 1001.0) == [[entry]]


def test_a_write_of_which_nobody_knows_is_given_to_a_person_where_the_flag_is_not_managed_any_more(
    tmp_path: Path,
) -> None:
    ledger = Ledger(tmp_path)
    entry = left_open(ledger, "a", "x", 1000.0)
    assert Recovery(ledger, AllowList([])).settle([entry], 1001.0) == []
    end = last(ledger, entry)
    assert (end.type, end.time) == (events.FLAG_UNRESOLVED, 1001.0)
    assert "not managed" in end.data["detail"]
    assert "look at the flag" in end.data["todo"]


async def test_entries_are_carried_on_one_by_one_and_those_in_doubt_are_returned(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    entries = [left_open(ledger, "a", "x", at) for at in (100.0, 200.0, 300.0)]
    done: list[str] = []

    async def again(made: Command, raw: bytes) -> Decided:
        done.append(raw.decode())

        async def tell() -> None:
            done.append(f"{raw.decode()} told")

        result = ExecutionResult(Outcome.AMBIGUOUS, "", command=made, final=raw == b"200.0")
        return Decided(result, None if raw == b"100.0" else tell)

    undecided = await carry_on(entries, again)
    assert undecided == [(entries[0].command, b"100.0"), (entries[2].command, b"300.0")]
    assert done == ["100.0", "200.0", "200.0 told", "300.0", "300.0 told"]


async def test_an_entry_is_carried_on_before_the_result_of_the_one_before_is_published(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    entries = [left_open(ledger, "a", "x", at) for at in (100.0, 200.0, 300.0)]
    done: list[str] = []

    async def again(made: Command, raw: bytes) -> Decided:
        done.append(raw.decode())

        async def tell() -> None:
            done.append(f"{raw.decode()} told")

        result = ExecutionResult(Outcome.APPLIED, "", command=made)
        return Decided(result, None if raw == b"100.0" else tell)

    later: list[Callable[[], Awaitable[None]]] = []
    assert await carry_on(entries, again, later.append) == []
    assert done == ["100.0", "200.0", "300.0"]
    for tell in later:
        await tell()
    assert done[3:] == ["200.0 told", "300.0 told"]
