"""The time of a flip: one call may take a fifth of it, and what may pass is tried again while there is any left."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

from agent.errors import LedgerError, Permission, Throttled, Timeout, Transient
from agent.executor.budget import Budget
from agent.ledger.probe import LedgerProbe
from tests.unit.agent.executor.test_service import House


def test_a_call_may_take_a_fifth_and_a_fiftieth_is_left_for_the_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    budget = Budget.of(5.0)
    assert budget.end == pytest.approx(104.9)
    assert budget.call_s == 1.0
    assert budget.deadline == 101.0
    now[0] = 104.5
    assert budget.deadline == budget.end


class Calls:
    """Raises `error` the first `failures` times."""

    def __init__(self, error: Exception, failures: int) -> None:
        self.error, self.failures, self.made = error, failures, 0

    async def __call__(self) -> str:
        self.made += 1
        if self.made <= self.failures:
            raise self.error
        return "done"


@pytest.mark.parametrize("error", [Transient("503"), Timeout("no answer"), Throttled("429")])
async def test_what_may_pass_is_tried_again(error: Exception) -> None:
    calls = Calls(error, 2)
    assert await Budget.of(60.0).patiently(calls) == "done"
    assert calls.made == 3


async def test_what_will_not_pass_is_raised_at_once() -> None:
    calls = Calls(Permission("403"), 1)
    with pytest.raises(Permission, match="403"):
        await Budget.of(60.0).patiently(calls)
    assert calls.made == 1


async def test_a_wait_that_the_backend_asks_for_is_kept_and_one_past_the_end_is_not_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    assert await Budget.of(60.0).patiently(Calls(Throttled("429", 17.5), 1)) == "done"
    assert waited == [17.5]
    too_long = Calls(Throttled("429", 59.5), 1)
    with pytest.raises(Throttled, match="429"):
        await Budget.of(60.0).patiently(too_long)
    assert (too_long.made, waited) == (1, [17.5])


async def test_when_the_time_is_up_the_last_error_is_raised() -> None:
    budget = Budget(time.monotonic() + 0.3, 0.1)
    with pytest.raises(Transient, match="503"):
        await budget.patiently(Calls(Transient("503"), 1_000_000))


async def test_a_disk_may_take_a_fifth_of_the_five_seconds_of_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house, go = House(tmp_path), threading.Event()
    monkeypatch.setattr(LedgerProbe, "write", lambda self: go.wait(60))
    with pytest.raises(LedgerError, match="did not answer within 1 s"):
        await house.flips._executor.probe()
    go.set()
    await house.flips.close()
