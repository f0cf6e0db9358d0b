"""Measured workers: each is a process on one core, which gets a `Task` as its argument and prints a `WorkerResult`."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Coroutine
from typing import Any

import msgspec
from uvloop import new_event_loop

from streams.bench.shop import Shop
from streams.errors import StreamsError
from streams.settings import Format


class WorkerFailed(StreamsError):
    """A measured process ended without a result; the message has the end of its stderr."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker reads; `group` is its consumer group, `ends` are the end offsets by partition.

    The measurement begins after `warm_up` records and ends after `records` more, or at the end of the topic.
    """

    kafka: str
    prefix: str
    group: str
    topic: str
    format: Format
    services: int
    ends: dict[int, int]
    partitions: dict[str, int]
    warm_up: int
    records: int | None = None
    uvloop: bool = True

    def shop(self) -> Shop:
        return Shop(self.services, 1)


class WorkerResult(msgspec.Struct, frozen=True, kw_only=True):
    """The number of measured records, and the wall and CPU seconds that they took."""

    records: int
    wall_s: float
    cpu_s: float


class Stopwatch:
    """Measures wall time and the CPU time of all threads of this process, from its creation."""

    def __init__(self, records: int) -> None:
        self._records = records
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def stop(self, records: int) -> WorkerResult:
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        return WorkerResult(records=records - self._records, wall_s=wall, cpu_s=cpu)


def pin() -> int:
    """Keep this process on one core, the last it may use, and return its number."""
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core


def task() -> Task:
    """The task of this worker, from its argument."""
    return msgspec.json.decode(sys.argv[1], type=Task)


def answer(result: WorkerResult) -> None:
    """Print the result and exit at once, without an orderly shutdown: that is not measured."""
    sys.stdout.buffer.write(msgspec.json.encode(result) + b"\n")
    sys.stdout.flush()
    os._exit(0)


def main(work: Coroutine[Any, Any, WorkerResult], *, uvloop: bool) -> None:
    """Run a worker, on uvloop as flipback or on asyncio's own loop, and answer."""
    with asyncio.Runner(loop_factory=new_event_loop if uvloop else asyncio.new_event_loop) as runner:
        answer(runner.run(work))


async def measured(module: str, task: Task, *, within: float) -> WorkerResult:
    """Run a worker and return its result. Raises WorkerFailed if there is none `within` seconds."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        msgspec.json.encode(task).decode(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(within):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        _, err = await process.communicate()
        raise WorkerFailed(f"{module} was not done after {within:.0f} s: {_tail(err)}") from None
    if process.returncode or not out.strip():
        raise WorkerFailed(f"{module} ended with status {process.returncode}: {_tail(err)}")
    return msgspec.json.decode(out.splitlines()[-1], type=WorkerResult)


def _tail(err: bytes) -> str:
    return err.decode(errors="replace")[-1500:].strip() or "it wrote nothing"
