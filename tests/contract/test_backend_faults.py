"""Faults of a flag system, and the outcome of a flip then: for every backend, through the executor.

In every case the outcome is published within the budget and the flag is written once at most. When the fault is over,
the same command makes the flag safe. The names of the cases are the rows of docs/backends.md.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest

from agent.backends.contract import Cas, Outcome
from agent.commands.command import FlipTarget, issue, sign
from agent.errors import Unsent
from agent.events import cloudevents as events
from agent.events.cloudevents import Event
from agent.executor.executor import Executor
from agent.executor.limits import FlipRate
from agent.executor.result import ExecutionResult
from agent.executor.settings import FlipPace, Permissions
from agent.fakes.faults import parse
from agent.ledger.automation import Automation
from agent.ledger.ledger import Ledger
from agent.state.allowlist import ManagedFlag
from agent.state.flags import FlagWatch
from tests.support.pace import AMPLE, Pace, Time
from tests.support.places import PLACES, REF, Place
from tests.support.places import place as at_place
from tests.unit.agent.executor.test_executor import EVIDENCE, KEY

SOME_TRIES = Time(tries=5)
"""For a permanent fault."""
ONE_HANG = Time(call_s=0.5)
"""The call that hangs times out soon, and the next call succeeds."""
HANGS = Time(whole_s=2.0, call_s=0.4)
"""For calls that hang for ever, where a late call changes nothing."""

FAULTY = [kind for kind in PLACES if kind != "flagd-file"]
"""A file has faults of its own: tests/unit/agent/backends/flagd/test_backend.py."""

APPLIED, REJECTED, AMBIGUOUS = Outcome.APPLIED, Outcome.REJECTED, Outcome.AMBIGUOUS


class Case(NamedTuple):
    """`faults` in their written form, and what must follow: one of `outcomes`, and at most `writes` writes.

    `blind` has the outcomes that are also allowed if the backend does not compare and set: a second write is not safe
    there.
    """

    name: str
    faults: tuple[str, ...]
    outcomes: tuple[Outcome, ...]
    writes: int = 1
    blind: tuple[Outcome, ...] = ()
    time: Time = AMPLE


CASES = [
    Case("a conflict (409) with another writer: read back, and written again", ("write:status=409",), (APPLIED,)),
    Case("a conflict (412) with another writer: read back, and written again", ("write:status=412",), (APPLIED,)),
    Case("throttled (429) for a moment: waits for Retry-After", ("write:status=429,retry-after=0.2",), (APPLIED,)),
    Case("throttled (429) for too long: gives up at once", ("write:status=429,retry-after=60",), (REJECTED,), 0),
    Case("500 once: read back, and written again", ("write:status=500",), (APPLIED,), blind=(AMBIGUOUS,)),
    Case("502 once: read back, and written again", ("write:status=502",), (APPLIED,), blind=(AMBIGUOUS,)),
    Case("503 once: read back, and written again", ("write:status=503",), (APPLIED,), blind=(AMBIGUOUS,)),
    Case("503 for ever: reported within the budget",
         ("write:status=503,times=0",), (REJECTED, AMBIGUOUS), 0, time=SOME_TRIES),
    Case("503 after the commit: the read-back finds the write", ("write:commit-then-fail=503",), (APPLIED,)),
    Case("a connection dropped after the commit: the read-back finds the write", ("write:drop",), (APPLIED,)),
    Case("a write hangs: read back, and written again",
         ("write:hang",), (APPLIED,), blind=(AMBIGUOUS,), time=ONE_HANG),
    Case("a write hangs after the commit: the read-back finds the write",
         ("write:commit-then-hang",), (APPLIED,), time=ONE_HANG),
    Case("writes hang for ever: reported within the budget",
         ("write:hang,times=0",), (REJECTED, AMBIGUOUS), 0, time=HANGS),
    Case("a slow write: waited for", ("write:delay=0.2",), (APPLIED,)),
    Case("401 for ever: reported at once", ("write:status=401,times=0",), (REJECTED,), 0),
    Case("400: not tried again", ("write:status=400,times=0",), (REJECTED,), 0),
    Case("403: not tried again", ("write:status=403,times=0",), (REJECTED,), 0),
    Case("404: not tried again", ("write:status=404,times=0",), (REJECTED,), 0),
    Case("503 once at the first read: read again", ("read:status=503",), (APPLIED,)),
    Case("the first read hangs: read again", ("read:hang",), (APPLIED,), time=ONE_HANG),
    Case("the system cannot be read: nothing is written", ("read:hang,times=0",), (REJECTED,), 0, time=HANGS),
    Case("a connection dropped at the first read: read again", ("read:drop",), (APPLIED,)),
    Case("a write confirmed but not done: the read-back finds that", ("write:lie",), (AMBIGUOUS,), 0, time=SOME_TRIES),
]  # fmt: skip


class Desk:
    """An executor on a place; `pace` is set by the fixture."""

    pace: Pace

    def __init__(self, place: Place, directory: Path, budget_s: float = AMPLE.whole_s) -> None:
        self.place = place
        self.told: list[Event] = []
        self.executor = Executor(
            Permissions(
                [ManagedFlag(REF.flag, REF.environment, "shop", "there", "off")],
                {"there": place.backend},
                {KEY.id: KEY.public},
            ),
            Ledger(directory),
            Automation(directory),
            FlipPace(FlipRate(1, 600.0), cooldown_s=60.0, budget_s=budget_s),
            watch=FlagWatch(),
            emit=self.emit,
            now=lambda: 1001.0,
        )

    async def emit(self, event: Event) -> None:
        self.told.append(event)

    async def command(self) -> bytes:
        status = await self.executor.read_flag(REF.flag, REF.environment)
        made = issue(
            FlipTarget(REF.flag, REF.environment, "shop", "there", "off"),
            trigger="errors",
            flag_version=status.version,
            issued_at=1000.0,
            rules_hash="r",
            evidence=EVIDENCE,
        )
        return sign(made, KEY)

    async def execute(self, raw: bytes) -> ExecutionResult:
        # Not a measurement: what hangs must not hang the caller.
        async with asyncio.timeout(60):
            return await self.executor.execute(raw)


@pytest.fixture(params=FAULTY)
async def desk(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    async with at_place(request.param, tmp_path) as place:
        desk = Desk(place, tmp_path / "ledger")
        desk.pace = Pace(monkeypatch)
        yield desk
        desk.executor.close()


def order(desk: Desk, *faults: str) -> None:
    assert desk.place.faults is not None
    for fault in faults:
        desk.place.faults.add(parse(fault))


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_a_fault_ends_in_a_known_outcome_one_write_at_most_and_a_safe_flag_when_it_is_over(
    desk: Desk, case: Case
) -> None:
    raw = await desk.command()
    order(desk, *case.faults)
    desk.pace.time = case.time
    result = await desk.execute(raw)
    compares = desk.place.backend.capabilities.cas is not Cas.NONE
    assert result.outcome in case.outcomes + (() if compares else case.blind), result
    assert await desk.place.writes() <= case.writes
    assert result.final is (result.outcome is APPLIED)
    kinds = [event.type for event in desk.told]
    if result.outcome is APPLIED:
        assert events.FLAG_WRITTEN in kinds
    else:
        assert kinds[-1] in (events.INABILITY, events.FLAG_AMBIGUOUS), "no event reports the outcome"

    assert desk.place.faults is not None
    desk.place.faults.clear()
    # A write that the ledger has as acknowledged, and that the backend never made, ends only with the budget.
    desk.pace.time = SOME_TRIES
    again = await desk.execute(raw)
    if compares:
        assert again.outcome in (Outcome.APPLIED, Outcome.DUPLICATE, Outcome.AMBIGUOUS)
    if "lie" not in case.faults[0] and (compares or not case.blind):
        assert (await desk.executor.read_flag(REF.flag, REF.environment)).safe
        assert await desk.place.writes() == 1


async def test_a_read_back_that_shows_what_was_before_is_asked_again(desk: Desk) -> None:
    raw = await desk.command()
    # In some systems the write itself reads too; the wrong answers begin once something was written.
    order(desk, "read:lie,times=2")
    result = await desk.execute(raw)
    assert result.outcome in (APPLIED, AMBIGUOUS)
    assert await desk.place.writes() == 1


@pytest.mark.parametrize("fault", ["read:status=503,times=0", "read:drop,times=0", "read:hang,times=0"])
async def test_a_write_that_fails_at_what_it_asks_first_says_that_nothing_was_written(desk: Desk, fault: str) -> None:
    backend = desk.place.backend
    snapshot = await backend.snapshot(REF, deadline=time.monotonic() + 60)
    order(desk, fault)
    # Ambiguous pages a person, so it is only for a write that may have been sent.
    with pytest.raises(Unsent):
        await backend.apply(
            REF, "off", expect=snapshot.state.version, op_id=str(uuid.uuid4()), deadline=time.monotonic() + 1
        )
    assert await desk.place.writes() == 0


async def test_a_persons_change_during_an_outage_is_left_alone(desk: Desk) -> None:
    raw = await desk.command()
    order(desk, "write:status=503,times=0")
    desk.pace.time = SOME_TRIES
    assert not (await desk.execute(raw)).final
    assert desk.place.faults is not None
    desk.place.faults.clear()
    desk.pace.time = AMPLE
    await desk.place.edit("beta")
    before = await desk.place.content()
    assert (await desk.execute(raw)).outcome is Outcome.CONFLICT
    assert await desk.place.content() == before
