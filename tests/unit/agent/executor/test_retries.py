from __future__ import annotations

import asyncio

import pytest

from agent.backends.contract import Outcome
from agent.commands.command import Command
from agent.executor.result import ExecutionResult
from agent.executor.retries import AGAIN_AFTER, LOOK_AT_MOST, Retries
from tests.unit.agent.executor.test_executor import command


class Tries:
    """Counts attempts; `pauses` are the waits before each. The results are given one an attempt, the last for ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *results: tuple[Outcome, bool]) -> None:
        self.pauses: list[float] = []
        self.issued: list[float] = []
        self._results = list(results)
        self.most = 50
        sleep = asyncio.sleep

        async def pause(seconds: float) -> None:
            self.pauses.append(seconds)
            await sleep(0)
            if len(self.pauses) > self.most:
                await asyncio.Event().wait()

        monkeypatch.setattr("agent.executor.retries.asyncio.sleep", pause)
        self.sleep = sleep

    async def attempt(self, made: Command, raw: bytes) -> ExecutionResult:
        self.issued.append(made.issued_at)
        outcome, final = self._results.pop(0) if len(self._results) > 1 else self._results[0]
        return ExecutionResult(outcome, "", command=made, final=final)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(60):
            while len(self.pauses) < count:
                await self.sleep(0)


async def test_a_read_back_that_goes_on_failing_is_made_ever_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = Tries(monkeypatch, (Outcome.AMBIGUOUS, False))
    again = Retries(tries.attempt)
    again.add(command(), b"")
    await tries.until(8)
    assert tries.pauses[:5] == [AGAIN_AFTER * 2**n for n in range(5)]
    assert tries.pauses[7] == LOOK_AT_MOST
    again.close()


async def test_a_backend_that_refuses_is_asked_again_at_once_until_it_takes_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries = Tries(monkeypatch, *[(Outcome.REJECTED, False)] * 20, (Outcome.APPLIED, True))
    again = Retries(tries.attempt)
    again.add(command(), b"")
    await tries.until(21)
    await tries.sleep(0)
    assert set(tries.pauses) == {AGAIN_AFTER}
    assert len(tries.issued) == 21
    again.close()


async def test_a_command_issued_anew_takes_the_place_of_the_one_that_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = Tries(monkeypatch, (Outcome.AMBIGUOUS, False))
    again = Retries(tries.attempt)
    for issued_at in (1000.0, 1065.0, 1064.0):
        again.add(command(issued_at=issued_at), b"")
    await tries.until(10)
    assert set(tries.issued) == {1065.0}
    # One loop, not three.
    assert len(again._tasks) == 1
    again.close()


async def test_an_attempt_that_raises_what_nobody_expected_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries = Tries(monkeypatch)
    again = Retries(tries.attempt)
    again.add(command(), b"")
    await tries.until(1)
    await asyncio.gather(*again._tasks)
    assert [record.message for record in caplog.records] == ["command.failed"]
    again.add(command(), b"")
    await tries.until(2)
    again.close()
