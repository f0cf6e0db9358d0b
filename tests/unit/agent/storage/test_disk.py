"""The ledger's limit of time is the disk's alone: a process that was starved or paused has a healthy disk."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from agent.errors import LedgerError
from agent.storage.disk import Disk


async def test_what_the_disk_did_in_time_is_taken_however_late_the_loop_comes_to_it() -> None:
    disk, ended = Disk(0.05), threading.Event()

    def do() -> str:
        ended.set()
        return "done"

    work = asyncio.create_task(disk.run(do))
    await asyncio.sleep(0)
    # A loop that stands still for six times the limit, as of a paused machine.
    assert ended.wait(60)
    time.sleep(0.3)  # noqa: ASYNC251
    assert await work == "done"
    disk.close()


async def test_a_process_that_was_paused_gives_the_disk_its_time_all_the_same() -> None:
    disk = Disk(0.2)
    go, ended = threading.Event(), threading.Event()

    def do() -> bool:
        went = go.wait(60)
        ended.set()
        return went

    def wake() -> None:
        go.set()
        # However late a busy machine comes to the work's thread.
        ended.wait(60)

    work = asyncio.create_task(disk.run(do))
    await asyncio.sleep(0.01)
    # Neither the loop nor the work's thread went on, as after SIGSTOP.
    time.sleep(0.5)  # noqa: ASYNC251
    asyncio.get_running_loop().call_later(0.02, wake)
    assert await work is True
    disk.close()


async def test_a_disk_that_does_not_answer_is_an_error_and_its_work_is_not_done_later() -> None:
    disk = Disk(0.05)
    go, done = threading.Event(), []
    stuck = [asyncio.create_task(disk.run(lambda: go.wait(60))) for _ in range(2)]
    behind = asyncio.create_task(disk.run(lambda: done.append(1)))
    for task in [*stuck, behind]:
        with pytest.raises(LedgerError, match="did not answer within"):
            await task
    go.set()
    # A busy machine may come to the threads late.
    disk._limit_s = 60.0
    assert await disk.run(lambda: "next") == "next"
    assert done == []
    disk.close()


async def test_an_error_of_the_work_is_the_callers() -> None:
    disk = Disk(1.0)

    def fail() -> None:
        raise LedgerError("No space left on device")

    with pytest.raises(LedgerError, match="No space"):
        await disk.run(fail)
    disk.close()
