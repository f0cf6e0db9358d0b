"""The flagd file: flags in a JSON file that flagd, or an OpenFeature provider in the application, watches.

The file is replaced by rename, so that no reader sees half of it. Its modification time always rises, because watchers
reload a file only if it is newer than their copy (openfeature-provider-flagd 0.6.1, file_watcher.py). Writers that take
the same lock exclude each other; a write by an editor, without the lock, is detected until the instant of the rename.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from agent.backends.flagd.check import FlagdFileCopy, check_flips, why_unseen
from agent.backends.flagd.disk import errors, locked, same, untouched, write_like
from agent.backends.flagd.progress import WorkProgress
from agent.backends.flagd.text import FlagdDocument, all_to, percent_to, state, version
from agent.backends.flagd.trial import ReplacementTrial
from agent.errors import BackendError, Invalid, Timeout, Unsent

_SETTLE_S = 0.02
"""Seconds until a file that cannot be parsed is read again, five times: an editor may have written half of it."""
_AT_REST_NS = 3_000_000_000
"""Nanoseconds after its last change from which on another change certainly shows as another time: the coarsest clock of
a file system in use, that of FAT, has steps of 2 s."""
_REMEMBERED = 1000
"""How many of the last operations that this process wrote are remembered."""

T = TypeVar("T")


class FlagdFileBackend:
    """A backend of one file. It ignores the environment: each has a file, and so a backend, of its own.

    Blocking work runs in two threads of this backend, so that a hanging disk delays no other backend.
    """

    capabilities = Capabilities(
        cas=Cas.LOCAL,
        percent=True,
        atomic_ledger=False,
        push=False,
        granularity=Granularity.FLAG,
        # A read takes 0.1 ms; more at once would only delay a flip.
        reads_at_once=4,
    )

    def __init__(self, settings: config.FlagdFile) -> None:
        self._path = settings.path
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="flagd-file")
        self._parsed: tuple[bytes, FlagdDocument] | None = None
        self._at_rest: FlagdFileCopy | None = None
        self._writing = threading.Lock()
        self._trial = ReplacementTrial(settings.path)
        self._done: deque[str] = deque(maxlen=_REMEMBERED)

    async def read(self, ref: FlagRef, *, deadline: float) -> FlagState:
        return await self._run(partial(self._state, ref), deadline)

    async def snapshot(self, ref: FlagRef, *, deadline: float) -> Snapshot:
        return await self._run(partial(self._snapshot, ref), deadline)

    async def apply(self, ref: FlagRef, target: str, *, expect: str, op_id: str, deadline: float) -> WriteResult:
        # The file does not store the operation's id: only three members may change. The caller keeps the ledger.
        return await self._edit(ref, lambda definition: all_to(definition, target), expect, deadline, op_id)

    async def verify(self, snapshot: Snapshot, target: str, *, op_id: str, deadline: float) -> ReadBack:
        now = await self.snapshot(snapshot.ref, deadline=deadline)
        if now.state.version == version(all_to(snapshot.state.raw, target)):
            return ReadBack(Verdict.LANDED, now.state)
        if now.state.version != snapshot.state.version or op_id in self._done:
            return ReadBack(Verdict.OTHER, now.state)
        # The same definition in another copy of the file: somebody edited another flag, or undid an earlier write.
        same = now.identity == snapshot.identity
        return ReadBack(Verdict.UNTOUCHED if same else Verdict.AS_BEFORE, now.state)

    async def restore(self, snapshot: Snapshot, *, expect: str, op_id: str, deadline: float) -> WriteResult:
        # Not checked: the previous definition is restored whatever it was, so that every flip can be undone.
        return await self._edit(snapshot.ref, lambda _: snapshot.state.raw, expect, deadline, checked=False)

    async def set_percent(
        self, ref: FlagRef, variant: str, rest: str, percent: float, *, expect: str, op_id: str, deadline: float
    ) -> WriteResult:
        return await self._edit(ref, lambda old: percent_to(old, variant, rest, percent), expect, deadline)

    async def health(self, wanted: Sequence[tuple[FlagRef, str]], *, deadline: float) -> BackendHealth:
        health, copy = await self._run(partial(self._health, wanted), deadline)
        more = [] if copy is None else await self._trial.problems(copy, deadline)
        return BackendHealth((*health.problems, *more), health.doubts)

    async def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._trial.close()

    async def _run(self, work: Callable[[WorkProgress], T], deadline: float, *, write: bool = False) -> T:
        """Run work in a thread. Raises Timeout if it does not end in time, Unsent if it was a stopped write.

        A write is stopped if it had changed nothing by the deadline.
        """
        left = deadline - time.monotonic()
        if left <= 0:
            raise Timeout(f"{self._path}: the time was up before the file was touched")
        # The work watches the clock too, and gives up a little earlier, with a more precise error.
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

    def _state(self, ref: FlagRef, progress: WorkProgress) -> FlagState:
        """Return the state of a flag, from the last copy that was read if the file has not changed.

        Each flag is read every second: reading the file for each took a tenth of a core for 667 flags.
        """
        progress.doing = "reading the file"
        with errors(self._path):
            # On a network file system only an open fetches the current times (nfs(5), close-to-open consistency).
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
        return check_flips(copy, wanted), copy

    def _read(self, progress: WorkProgress) -> FlagdFileCopy:
        """Read and parse the file; if it cannot be parsed, read it again for a while: an editor may be writing it."""
        for again in (True, True, True, True, False):
            progress.doing = "reading the file"
            with errors(self._path):
                # A mounted configuration is a chain of links, which changes: each read follows it again.
                path = self._real_path()
                with path.open("rb") as file:
                    stat, content = os.fstat(file.fileno()), file.read()
            progress.doing = "parsing the file"
            try:
                return FlagdFileCopy(path, self._parse(content), stat)
            except Invalid:
                if not again or time.monotonic() + _SETTLE_S >= progress.deadline:
                    raise
            time.sleep(_SETTLE_S)
        raise AssertionError("the last attempt returns or raises")

    def _parse(self, content: bytes) -> FlagdDocument:
        # Each flag is read every second: parsing the file for each of 200 flags took 0.3 s of a core.
        parsed = self._parsed
        if parsed is None or parsed[0] != content:
            parsed = self._parsed = content, FlagdDocument(content, str(self._path))
        return parsed[1]

    def _write(
        self,
        flag: str,
        edit: Callable[[str], str],
        expect: str,
        op_id: str | None,
        checked: bool,
        progress: WorkProgress,
    ) -> WriteResult:
        """Write the edited definition of `flag`. The operation `op_id` is not done twice, even if a person undid it."""
        with self._locked(progress):
            while True:
                copy = self._read(progress)
                old = copy.document.definition(flag)
                new = edit(old)
                if new == old:
                    return WriteResult(Outcome.ALREADY, state(old), why_unseen(copy.document))
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
                    # The edited document is parsed already: the next read need not do it.
                    self._parsed = edited.content, edited
                    return WriteResult(Outcome.APPLIED, state(new), why_unseen(edited))

    def _real_path(self) -> Path:
        return Path(os.path.realpath(self._path, strict=True))

    @contextmanager
    def _locked(self, progress: WorkProgress) -> Iterator[None]:
        """Hold the lock against other threads and processes. Raises Unsent if it is not free by the deadline."""
        progress.doing = "waiting for another flip in the file"
        with errors(self._path, unsent=True):
            path = self._real_path()
            old = path.stat()
        # Threads of this process wait here, instead of polling the file lock.
        if not self._writing.acquire(timeout=max(0.0, progress.deadline - time.monotonic())):
            raise Unsent(f"{path}: another flip is writing it; nothing was written")
        try:
            progress.doing = "waiting for the lock of another process"
            with locked(path, old, progress.deadline):
                yield
        finally:
            self._writing.release()

    def _replace(self, copy: FlagdFileCopy, content: bytes, progress: WorkProgress) -> bool:
        """Replace the file by new content; return False, with nothing done, if it is not the copy that was read."""
        progress.doing = "writing the new file to the disk"
        # Under the lock one name suffices, and the next write removes a file that a crash left behind.
        temporary = copy.path.with_name(f".{copy.path.name}.new")
        with errors(copy.path, unsent=True):
            temporary.unlink(missing_ok=True)
            directory = os.open(copy.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # If anything here fails, including the rename, nothing has changed.
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
