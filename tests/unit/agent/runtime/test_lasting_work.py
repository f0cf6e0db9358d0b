"""Work that lasts: where it fails it begins anew, the others go on, and a person hears of it if that lasts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest

from agent.events import cloudevents as events
from agent.events.cloudevents import Event
from agent.runtime import lasting_work
from agent.runtime.lasting_work import AGAIN_AFTER, ANNOUNCED_AFTER, WELL_AFTER, WorkSet


class Bench:
    """WorkSet whose clock goes on by a second at each attempt; what was announced is in `told`."""

    def __init__(self) -> None:
        self.now = 0.0
        self.told: list[Event] = []
        self.works = WorkSet(self.told.append, lambda: self.now)
        self.attempts = 0

    async def until(self, found: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not found():
                self.works.check()
                await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lasting_work, "AGAIN_AFTER", (0.0, 0.0))


async def test_what_fails_again_and_again_is_announced_once_with_its_error_and_its_end_too() -> None:
    bench = Bench()
    mended = asyncio.Event()

    async def work() -> None:
        bench.attempts += 1
        bench.now += 1
        if bench.now < 40:
            raise IndexError("metadata of version 13")
        await mended.wait()

    async with contextlib.AsyncExitStack() as stack:
        bench.works.begin("looking at topics", work, stack)
        await bench.until(lambda: bench.attempts == 40)
        (begun,) = bench.told
        assert (begun.type, begun.data["state"], begun.subject) == (events.INABILITY, "begun", "looking at topics")
        assert "metadata of version 13" in begun.data["reason"]
        (obstacle,) = bench.works.obstacles()
        assert "looking at topics fails again and again" in obstacle.why
        bench.now += WELL_AFTER
        bench.works.check()
        assert [event.data["state"] for event in bench.told] == ["begun", "ended"]
        assert bench.works.problems() == []


async def test_a_single_failure_is_logged_and_the_work_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()

    async def work() -> None:
        bench.attempts += 1
        if bench.attempts == 1:
            raise OSError
        await asyncio.Event().wait()

    async with contextlib.AsyncExitStack() as stack:
        bench.works.begin("watching telemetry", work, stack)
        await bench.until(lambda: bench.attempts == 2)
        for _ in range(100):
            bench.now += 1
            bench.works.check()
    assert bench.told == []
    (record,) = [record for record in caplog.records if record.message == "work.failed"]
    assert record.levelname == "ERROR"


async def test_failures_far_apart_are_not_taken_for_one_that_lasts() -> None:
    bench = Bench()

    async def work() -> None:
        bench.attempts += 1
        bench.now += WELL_AFTER
        raise OSError

    async with contextlib.AsyncExitStack() as stack:
        bench.works.begin("watching telemetry", work, stack)
        await bench.until(lambda: bench.attempts == 50)
    assert bench.told == []


async def test_work_that_ends_by_itself_begins_anew_and_the_others_are_not_touched() -> None:
    bench = Bench()
    steady = 0

    async def ends() -> None:
        bench.attempts += 1

    async def other() -> None:
        nonlocal steady
        steady += 1
        await asyncio.Event().wait()

    async with contextlib.AsyncExitStack() as stack:
        bench.works.begin("a", ends, stack)
        bench.works.begin("b", other, stack)
        await bench.until(lambda: bench.attempts == 10)
    assert steady == 1
    at_the_end = bench.attempts
    await asyncio.sleep(0)
    assert bench.attempts == at_the_end


def test_it_is_said_in_time() -> None:
    # The failure after `ANNOUNCED_AFTER` comes one pause later at most; an inability is announced within 30 s.
    assert ANNOUNCED_AFTER + AGAIN_AFTER[1] < 30
    # Between two failures that follow each other it must not count as well.
    assert AGAIN_AFTER[1] < WELL_AFTER


async def test_work_that_waits_for_what_is_cancelled_begins_anew() -> None:
    bench = Bench()

    async def work() -> None:
        bench.attempts += 1
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async with contextlib.AsyncExitStack() as stack:
        bench.works.begin("watching flags", work, stack)
        await bench.until(lambda: bench.attempts == 3)


async def test_work_whose_requests_each_time_out_after_40_s_is_announced() -> None:
    bench = Bench()

    async def work() -> None:
        bench.attempts += 1
        bench.now += 40.0 + AGAIN_AFTER[1]
        raise TimeoutError

    async with contextlib.AsyncExitStack() as stack:
        bench.works.begin("reading flipback.flags", work, stack)
        await bench.until(lambda: bench.attempts == 10)
    assert [event.data["state"] for event in bench.told] == ["begun"]
