"""The flagd file: flags in a JSON file that flagd, or an OpenFeature provider in the application, watches.

The file is replaced by rename, so that no reader sees half of it, and its time always rises: watchers reload only a
file that is newer than the one they hold (openfeature-provider-flagd 0.6.1, file_watcher.py). Writers that take the
same lock are kept apart; an editor that does not is noticed up to the instant of the rename.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from agent.backends import settings as config
from agent.backends.contract import (
    BackendHealth,
    Capabilities,
    Cas,
    FlagRef,
    FlagState,
    Granularity,
    Outcome,
    ReadBack,
    Snapshot,
    Verdict,
    WriteResult,
)
from agent.backends.flagd.check import FlagdFileCopy, found, tried, unseen
from agent.backends.flagd.disk import errors, locked, same, untouched, write_like
from agent.backends.flagd.progress import WorkProgress
from agent.backends.flagd.text import FlagdDocument, all_to, percent_to, state, version
from agent.errors import BackendError, Invalid, Timeout, Unsent

_SETTLE_S = 0.02
"""A file that cannot be parsed may be half written by an editor; it is read again after this time, five times."""
_AT_REST_NS = 3_000_000_000
"""A file that was last changed longer ago than this has another time when it is changed again: the coarsest clock of a
file system in use, that of FAT, counts in steps of 2 s."""
_REMEMBERED = 1000
"""Operations of this process, the last ones, of which it is known that they were written."""

T = TypeVar("T")


class FlagdFileBackend:
    """A backend of one file. An environment is not looked at: each has a file, and so a backend, of its own.

    Blocking work runs in two threads of this backend, so that a hanging disk holds up nobody else.
    """

    capabilities = Capabilities(
        cas=Cas.LOCAL,
        percent=True,
        atomic_ledger=False,
        push=False,
        granularity=Granularity.FLAG,
        # A read takes 0.1 ms; more at once would only stand before a flip.
        looks_at_once=4,
    )

    def __init__(self, settings: config.FlagdFile) -> None:
        self._path = settings.path
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="flagd-file")
        self._known: tuple[bytes, FlagdDocument] | None = None
        self._at_rest: FlagdFileCopy | None = None
        self._writing = threading.Lock()
        # By itself, so that a disk on which a trial hangs has both other threads left for a flip.
        self._trial_pool = ThreadPoolExecutor(1, thread_name_prefix="flagd-file-trial")
        self._trial: tuple[float, Future[list[str]]] | None = None
        self._done: deque[str] = deque(maxlen=_REMEMBERED)

    async def read(self, ref: FlagRef, *, deadline: float) -> FlagState:
        return await self._run(partial(self._look, ref), deadline)

    async def snapshot(self, ref: FlagRef, *, deadline: float) -> Snapshot:
        return await self._run(partial(self._snapshot, ref), deadline)

    async def apply(self, ref: FlagRef, target: str, *, expect: str, op_id: str, deadline: float) -> WriteResult:
        # The operation's id has no place in the file: only the three members may change. The caller keeps the ledger.
        return await self._edit(ref, lambda definition: all_to(definition, target), expect, deadline, op_id)

    async def verify(self, snapshot: Snapshot, target: str, *, op_id: str, deadline: float) -> ReadBack:
        now = await self.snapshot(snapshot.ref, deadline=deadline)
        if now.state.version == version(all_to(snapshot.state.raw, target)):
            return ReadBack(Verdict.LANDED, now.state)
        if now.state.version != snapshot.state.version or op_id in self._done:
            return ReadBack(Verdict.OTHER, now.state)
        # The same definition in another file: somebody edited another flag, or took back what an earlier process wrote.
        same = now.identity == snapshot.identity
        return ReadBack(Verdict.UNTOUCHED if same else Verdict.AS_BEFORE, now.state)

    async def restore(self, snapshot: Snapshot, *, expect: str, op_id: str, deadline: float) -> WriteResult:
        # What was there is put back, whatever it was: a flip must not be a door of one way.
        return await self._edit(snapshot.ref, lambda _: snapshot.state.raw, expect, deadline, checked=False)

    async def set_percent(
        self, ref: FlagRef, variant: str, rest: str, percent: float, *, expect: str, op_id: str, deadline: float
    ) -> WriteResult:
        return await self._edit(ref, lambda old: percent_to(old, variant, rest, percent), expect, deadline)

    async def health(self, wanted: Sequence[tuple[FlagRef, str]], *, deadline: float) -> BackendHealth:
        health, copy = await self._run(partial(self._health, wanted), deadline)
        more = [] if copy is None else await self._tried(copy, deadline)
        return BackendHealth((*health.problems, *more), health.doubts)

    async def close(self) -> None:
        for pool in (self._pool, self._trial_pool):
            pool.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[WorkProgress], T], deadline: float, *, write: bool = False) -> T:
        """Work of another thread. Raises Timeout where it is not done in time; of a write Unsent, where it is stopped
        before anything was written.
        """
        left = deadline - time.monotonic()
        if left <= 0:
            raise Timeout(f"{self._path}: the time was up before the file was touched")
        # The work looks at the clock too, and gives up a little earlier, with a better word.
        progress = WorkProgress(deadline - min(0.05, left / 10))
        try:
            async with asyncio.timeout(left):
                return await asyncio.get_running_loop().run_in_executor(self._pool, work, progress)
        except TimeoutError:
            stopped = progress.stop()
            what = f"{self._path}: not done in time; the time went into {progress.doing}"
            raise (Unsent(f"{what}; nothing was written") if write and stopped else Timeout(what)) from None

    async def _edit(
        self,
        ref: FlagRef,
        edit: Callable[[str], str],
        expect: str,
        deadline: float,
        op_id: str | None = None,
        *,
        checked: bool = True,
    ) -> WriteResult:
        return await self._run(partial(self._write, ref.flag, edit, expect, op_id, checked), deadline, write=True)

    def _look(self, ref: FlagRef, progress: WorkProgress) -> FlagState:
        """The state of a flag, from the copy that was read last where the file is still the same.

        Each flag is looked at every second: reading the file for each took a tenth of a core for 667 flags.
        """
        progress.doing = "reading the file"
        with errors(self._path):
            # Only an open asks the server of a mounted disk for the times of today (nfs(5), close-to-open consistency).
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                stat = os.fstat(descriptor)
            finally:
                os.close(descriptor)
        copy = self._at_rest
        if copy is None or not untouched(copy.stat, stat):
            copy = self._read(progress)
            changed_at = max(copy.stat.st_mtime_ns, copy.stat.st_ctime_ns)
            self._at_rest = copy if time.time_ns() - changed_at > _AT_REST_NS else None
        return state(copy.document.definition(ref.flag))

    def _snapshot(self, ref: FlagRef, progress: WorkProgress) -> Snapshot:
        copy = self._read(progress)
        given = state(copy.document.definition(ref.flag))
        return Snapshot(flag=ref.flag, environment=ref.environment, state=given, identity=copy.identity)

    def _health(
        self, wanted: Sequence[tuple[FlagRef, str]], progress: WorkProgress
    ) -> tuple[BackendHealth, FlagdFileCopy | None]:
        try:
            copy = self._read(progress)
        except BackendError as error:
            return BackendHealth((str(error),)), None
        return found(copy, wanted), copy

    async def _tried(self, copy: FlagdFileCopy, deadline: float) -> list[str]:
        """What a trial of a replacement finds: a full disk, a lost right, a mount of the file alone."""
        if self._trial is not None and not self._trial[1].done():
            since = time.monotonic() - self._trial[0]
            return [f"{self._path}: a trial to write beside it is under way for {since:.0f} s; the disk hangs"]
        future = self._trial_pool.submit(tried, copy)
        self._trial = time.monotonic(), future
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                # Not cancelled with the wait: a trial that hangs is told at the next check.
                return await asyncio.shield(asyncio.wrap_future(future))
        except TimeoutError:
            return [f"{self._path}: a trial to write beside it was not done in time; the disk is slow or hangs"]

    def _read(self, progress: WorkProgress) -> FlagdFileCopy:
        for again in (True, True, True, True, False):
            progress.doing = "reading the file"
            with errors(self._path):
                # A mounted configuration is a chain of links: each read follows it anew to the file of the day.
                path = self._real_path()
                with path.open("rb") as file:
                    stat, content = os.fstat(file.fileno()), file.read()
            progress.doing = "parsing the file"
            try:
                return FlagdFileCopy(path, self._parsed(content), stat)
            except Invalid:
                if not again or time.monotonic() + _SETTLE_S >= progress.deadline:
                    raise
            time.sleep(_SETTLE_S)
        raise AssertionError("the last attempt returns or raises")

    def _parsed(self, content: bytes) -> FlagdDocument:
        # Every flag of the file is read every second: 200 flags took 0.3 s of a core, parsed anew for each of them.
        known = self._known
        if known is None or known[0] != content:
            known = self._known = content, FlagdDocument(content, str(self._path))
        return known[1]

    def _write(
        self,
        flag: str,
        edit: Callable[[str], str],
        expect: str,
        op_id: str | None,
        checked: bool,
        progress: WorkProgress,
    ) -> WriteResult:
        """`op_id` names an operation that is never done twice, also if a person takes it back."""
        with self._locked(progress):
            while True:
                copy = self._read(progress)
                old = copy.document.definition(flag)
                new = edit(old)
                if new == old:
                    return WriteResult(Outcome.ALREADY, state(old), unseen(copy.document))
                if op_id is not None and op_id in self._done:
                    return WriteResult(Outcome.DUPLICATE, state(old), "this operation was written before")
                if version(old) != expect:
                    return WriteResult(Outcome.CONFLICT, state(old), f"version is {version(old)}, expected {expect}")
                if checked:
                    copy.document.check(flag, new)
                edited = copy.document.replaced(flag, new)
                if self._replace(copy, edited.content, progress):
                    if op_id is not None:
                        self._done.append(op_id)
                    # Read anew for its edit, it need not be when it is looked at next.
                    self._known = edited.content, edited
                    return WriteResult(Outcome.APPLIED, state(new), unseen(edited))

    def _real_path(self) -> Path:
        return Path(os.path.realpath(self._path, strict=True))

    @contextmanager
    def _locked(self, progress: WorkProgress) -> Iterator[None]:
        progress.doing = "waiting for another flip in the file"
        with errors(self._path, unsent=True):
            path = self._real_path()
            old = path.stat()
        # The threads of this process wait here, without asking again and again.
        if not self._writing.acquire(timeout=max(0.0, progress.deadline - time.monotonic())):
            raise Unsent(f"{path}: another flip is writing it; nothing was written")
        try:
            progress.doing = "waiting for the lock of another process"
            with locked(path, old, progress.deadline):
                yield
        finally:
            self._writing.release()

    def _replace(self, copy: FlagdFileCopy, content: bytes, progress: WorkProgress) -> bool:
        """Put new content in the file's place; False, and nothing done, where it is not the file that was read."""
        progress.doing = "writing the new file to the disk"
        # One name suffices under the lock, and what a crash leaves behind is taken away by the next write.
        temporary = copy.path.with_name(f".{copy.path.name}.new")
        with errors(copy.path, unsent=True):
            temporary.unlink(missing_ok=True)
            directory = os.open(copy.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # Up to and with a rename that fails nothing has changed.
            with errors(copy.path, unsent=True):
                write_like(temporary, content, copy.stat)
                if time.monotonic() >= progress.deadline:
                    raise Unsent(f"{copy.path}: the disk was too slow; nothing was written")
                if not same(copy.path.stat(), copy.stat):
                    return False
                progress.commit(f"{copy.path}: the time was up before the file was replaced; nothing was written")
                temporary.replace(copy.path)
            with errors(copy.path):
                os.fsync(directory)
        finally:
            os.close(directory)
            with errors(copy.path):
                temporary.unlink(missing_ok=True)
        return True
