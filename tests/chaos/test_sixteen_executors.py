"""Sixteen independent executors execute the command of one incident: the flag is written once."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import pytest

from agent.backends.contract import Cas, FlagBackend, Outcome
from agent.commands.command import sign
from agent.events.cloudevents import FLAG_WRITTEN, Event
from agent.executor.executor import Executor
from agent.executor.limits import FlipRate
from agent.executor.settings import FlipPace, Permissions
from agent.ledger.automation import Automation
from agent.ledger.ledger import Ledger
from agent.state.allowlist import ManagedFlag
from agent.state.flags import FlagWatch
from tests.support.places import PLACES, REF, place
from tests.unit.agent.executor.test_executor import KEY, command

REPETITIONS = 200
EXECUTORS = 16


@pytest.mark.parametrize("kind", PLACES)
async def test_one_incident_is_one_write(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The machine does not crash in this test, and 20,000 flushes would take minutes.
    monkeypatch.setattr("agent.ledger.ledger.os.fsync", lambda _: None)
    outcomes: Counter[Outcome] = Counter()
    for number in range(REPETITIONS):
        directory = tmp_path / str(number)
        directory.mkdir()
        async with place(kind, directory) as made:
            if made.backend.capabilities.cas is Cas.NONE:
                pytest.skip("this backend compares nothing, and says so")
            version = (await made.backend.read(REF, deadline=time.monotonic() + 60)).version
            backends = [made.another() for _ in range(EXECUTORS)]
            published: list[Event] = []
            executors = [_executor(directory / f"state-{n}", backend, published) for n, backend in enumerate(backends)]
            raw = sign(command(flag=REF.flag, environment=REF.environment, flag_version=f"g1-{version}"), KEY)
            results = await asyncio.gather(*(executor.execute(raw) for executor in executors))
            found = Counter(result.outcome for result in results)
            assert await made.writes() == 1, found
            assert (await made.backend.read(REF, deadline=time.monotonic() + 60)).variant == "off"
            # A system that stores the operation reports it as applied to every executor that repeats it. A file does
            # not, so only the writer sees it.
            assert found[Outcome.APPLIED] == 1 or (made.faults is not None and found[Outcome.APPLIED] > 1), found
            assert len({event.id for event in published if event.type == FLAG_WRITTEN}) == 1
            outcomes += found
            for executor in executors:
                executor.close()
            await asyncio.gather(*(backend.close() for backend in backends))
    # Later executors found the flag safe: none has an unknown outcome, and none reports an edit by a person.
    assert set(outcomes) <= {Outcome.APPLIED, Outcome.ALREADY}, outcomes


def _executor(directory: Path, backend: FlagBackend, published: list[Event]) -> Executor:
    async def emit(event: Event) -> None:
        published.append(event)

    return Executor(
        Permissions(
            [ManagedFlag(REF.flag, REF.environment, "shop", "files", "off")], {"files": backend}, {KEY.id: KEY.public}
        ),
        Ledger(directory / "ledger"),
        Automation(directory),
        # A long budget, so that no outcome is unknown because other tests keep the machine busy.
        FlipPace(FlipRate(1, 600.0), cooldown_s=60.0, budget_s=60.0),
        watch=FlagWatch(),
        emit=emit,
        now=lambda: 1001.0,
    )
