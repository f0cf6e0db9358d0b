"""A trial of a replacement of a flagd file, as part of a health check: all of it but the rename.

It finds problems that the file's mode and owner do not show, such as a full disk, a missing permission or a mount of
the file by itself.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from agent.backends.flagd import mounts
from agent.backends.flagd.attributes import sealed
from agent.backends.flagd.check import FlagdFileCopy
from agent.backends.flagd.disk import replacement_problem
from agent.backends.shown import some


class ReplacementTrial:
    """Runs one trial at a time for the file at `path`.

    The trial has a thread of its own: if it hangs, it must not occupy the threads that make flips.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="flagd-file-trial")
        self._running: tuple[float, Future[list[str]]] | None = None

    async def problems(self, copy: FlagdFileCopy, deadline: float) -> list[str]:
        """Try to replace the file and return the problems found; `deadline` is in seconds of `time.monotonic()`.

        A trial that does not end in time is one of them.
        """
        if self._running is not None and not self._running[1].done():
            since = time.monotonic() - self._running[0]
            return [f"{self._path}: a trial to write beside it is under way for {since:.0f} s; the disk hangs"]
        future = self._pool.submit(_try_replacement, copy)
        self._running = time.monotonic(), future
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                # Shielded from the timeout: the next check reports a trial that hangs.
                return await asyncio.shield(asyncio.wrap_future(future))
        except TimeoutError:
            return [f"{self._path}: a trial to write beside it was not done in time; the disk is slow or hangs"]

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _try_replacement(copy: FlagdFileCopy) -> list[str]:
    problem = replacement_problem(copy.path, copy.document.content, copy.stat)
    # `disk.obstacles` already reports attributes that forbid a replacement.
    problems = [] if problem is None or problem in sealed(copy.path) else [problem]
    places = mounts.of_file(copy.path)
    if places:
        problems.append(
            f"{copy.path} is mounted by itself at {some(places)}: a flip replaces the file, and a reader there keeps "
            "the one that it has; mount its directory instead"
        )
    return problems
