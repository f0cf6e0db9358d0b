"""The flagd file: flags in a JSON file that flagd, or an OpenFeature provider in the application, watches.

The file is replaced by rename, so that no reader sees half of it, and its time always rises: watchers reload only a
file that is newer than the one they hold (openfeature-provider-flagd 0.6.1, file_watcher.py). Writers that take the
same lock are kept apart; an editor that does not is noticed up to the instant of the rename.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from agent.backends import settings as config
from agent.backends.contract import (
    Capabilities,
    Cas,
    FlagRef,
    FlagState,
    Granularity,
    Health,
    Outcome,
    ReadBack,
    Snapshot,
    Verdict,
    WriteResult,
)
from agent.backends.flagd_text import Document, all_to, percent_to, state, version
from agent.errors import BackendError, Invalid, NotFound, Permission, Timeout, Transient
from agent.file_lock import taken

_SETTLE_S = 0.02
"""A file that cannot be parsed may be half written by an editor; it is read again after this time, five times."""
_LOCK_POLL_S = 0.002
_REMEMBERED = 1000
"""Operations of this process, the last ones, of which it is known that they were written."""
_NEWER_NS = 1_000_000
"""Times rise by at least 1 ms: watchers hold them as floats, which are exact to 0.24 µs in this century."""

T = TypeVar("T")


class _Copy(NamedTuple):
    """The file as it was read, and which file that was."""

    path: Path
    document: Document
    stat: os.stat_result

    @property
    def identity(self) -> str:
        return f"{self.stat.st_ino}:{self.stat.st_mtime_ns}:{self.stat.st_size}"


class FlagdFile:
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
        self._known: tuple[bytes, Document] | None = None
        self._writing = threading.Lock()
        self._done: deque[str] = deque(maxlen=_REMEMBERED)

    async def read(self, ref: FlagRef, *, deadline: float) -> FlagState:
        return (await self.snapshot(ref, deadline=deadline)).state

    async def snapshot(self, ref: FlagRef, *, deadline: float) -> Snapshot:
        return await self._run(partial(self._snapshot, ref, deadline), deadline)

    async def apply(self, ref: FlagRef, target: str, *, expect: str, op_id: str, deadline: float) -> WriteResult:
        # The operation's id has no place in the file: only the three members may change. The caller keeps the ledger.
        return await self._edit(ref, lambda definition: all_to(definition, target), expect, deadline, op_id)

    async def verify(self, snapshot: Snapshot, target: str, *, op_id: str, deadline: float) -> ReadBack:
        found = await self.snapshot(snapshot.ref, deadline=deadline)
        if found.state.version == version(all_to(snapshot.state.raw, target)):
            return ReadBack(Verdict.LANDED, found.state)
        if found.state.version != snapshot.state.version or op_id in self._done:
            return ReadBack(Verdict.OTHER, found.state)
        # The same definition in another file: somebody edited another flag, or took back what an earlier process wrote.
        same = found.identity == snapshot.identity
        return ReadBack(Verdict.UNTOUCHED if same else Verdict.AS_BEFORE, found.state)

    async def restore(self, snapshot: Snapshot, *, expect: str, op_id: str, deadline: float) -> WriteResult:
        return await self._edit(snapshot.ref, lambda _: snapshot.state.raw, expect, deadline)

    async def set_percent(
        self, ref: FlagRef, variant: str, rest: str, percent: float, *, expect: str, op_id: str, deadline: float
    ) -> WriteResult:
        return await self._edit(ref, lambda old: percent_to(old, variant, rest, percent), expect, deadline)

    async def health(self, wanted: Sequence[tuple[FlagRef, str]], *, deadline: float) -> Health:
        return await self._run(partial(self._health, wanted, deadline), deadline)

    async def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[], T], deadline: float) -> T:
        left = deadline - time.monotonic()
        if left <= 0:
            raise Timeout(f"{self._path}: the time was up before the file was touched")
        try:
            async with asyncio.timeout(left):
                return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except TimeoutError:
            raise Timeout(f"{self._path}: no answer of the file system in time") from None

    async def _edit(
        self, ref: FlagRef, edit: Callable[[str], str], expect: str, deadline: float, op_id: str | None = None
    ) -> WriteResult:
        return await self._run(partial(self._write, ref.flag, edit, expect, deadline, op_id), deadline)

    def _snapshot(self, ref: FlagRef, deadline: float) -> Snapshot:
        copy = self._read(deadline)
        found = state(copy.document.definition(ref.flag))
        return Snapshot(flag=ref.flag, environment=ref.environment, state=found, identity=copy.identity)

    def _health(self, wanted: Sequence[tuple[FlagRef, str]], deadline: float) -> Health:
        try:
            copy = self._read(deadline)
        except BackendError as error:
            return Health((str(error),))
        problems = list(_obstacles(copy))
        for ref, target in wanted:
            try:
                copy.document.check(ref.flag, all_to(copy.document.definition(ref.flag), target))
            except BackendError as error:
                problems.append(str(error))
        return Health(tuple(problems))

    def _read(self, deadline: float) -> _Copy:
        for again in (True, True, True, True, False):
            with _errors(self._path):
                # A mounted configuration is a chain of links: each read follows it anew to the file of the day.
                path = self._real_path()
                with path.open("rb") as file:
                    stat, content = os.fstat(file.fileno()), file.read()
            try:
                return _Copy(path, self._parsed(content), stat)
            except Invalid:
                if not again or time.monotonic() + _SETTLE_S >= deadline:
                    raise
            time.sleep(_SETTLE_S)
        raise AssertionError("the last attempt returns or raises")

    def _parsed(self, content: bytes) -> Document:
        # Every flag of the file is read every second: 200 flags took 0.3 s of a core, parsed anew for each of them.
        known = self._known
        if known is None or known[0] != content:
            known = self._known = content, Document(content, str(self._path))
        return known[1]

    def _write(
        self, flag: str, edit: Callable[[str], str], expect: str, deadline: float, op_id: str | None
    ) -> WriteResult:
        """`op_id` names an operation that is never done twice, also if a person takes it back."""
        with _errors(self._path), self._locked(deadline):
            while True:
                copy = self._read(deadline)
                old = copy.document.definition(flag)
                new = edit(old)
                if new == old:
                    return WriteResult(Outcome.ALREADY, state(old))
                if op_id is not None and op_id in self._done:
                    return WriteResult(Outcome.DUPLICATE, state(old), "this operation was written before")
                if version(old) != expect:
                    return WriteResult(Outcome.CONFLICT, state(old), f"version is {version(old)}, expected {expect}")
                edited = copy.document.replaced(flag, new)
                if self._replace(copy, edited.content, deadline):
                    if op_id is not None:
                        self._done.append(op_id)
                    # Read anew for its edit, it need not be when it is looked at next.
                    self._known = edited.content, edited
                    return WriteResult(Outcome.APPLIED, state(new), copy.document.doubts(flag))

    def _real_path(self) -> Path:
        return Path(os.path.realpath(self._path, strict=True))

    @contextmanager
    def _locked(self, deadline: float) -> Iterator[None]:
        path = self._real_path()
        # The threads of this process wait here, without asking again and again.
        if not self._writing.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise Timeout(f"{path}: another flip is writing it; nothing was written")
        try:
            # Read-only suffices for a lock, so that agents of several users can share it.
            lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                while not taken(lock):
                    if time.monotonic() + _LOCK_POLL_S >= deadline:
                        raise Timeout(f"{path}: another writer holds the lock; nothing was written")
                    time.sleep(_LOCK_POLL_S)
                yield
            finally:
                os.close(lock)
        finally:
            self._writing.release()

    def _replace(self, copy: _Copy, content: bytes, deadline: float) -> bool:
        """Put new content in the file's place; False, and nothing done, where it is not the file that was read."""
        # One name suffices under the lock, and what a crash leaves behind is taken away by the next write.
        temporary = copy.path.with_name(f".{copy.path.name}.new")
        temporary.unlink(missing_ok=True)
        directory = os.open(copy.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _write_like(temporary, content, copy.stat)
            if time.monotonic() >= deadline:
                raise Timeout(f"{copy.path}: the disk was too slow; nothing was written")
            if not _same(copy.path.stat(), copy.stat):
                return False
            temporary.replace(copy.path)
            os.fsync(directory)
        finally:
            os.close(directory)
            temporary.unlink(missing_ok=True)
        return True


def _write_like(path: Path, content: bytes, old: os.stat_result) -> None:
    """A new file on disk with the owner and mode of the old one, and newer."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        new = os.fstat(descriptor)
        if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
            os.fchown(descriptor, old.st_uid, old.st_gid)
        os.fchmod(descriptor, old.st_mode & 0o7777)
        time_ns = max(time.time_ns(), old.st_mtime_ns + _NEWER_NS)
        os.utime(descriptor, ns=(time_ns, time_ns))
        os.fsync(descriptor)


def _obstacles(copy: _Copy) -> Iterator[str]:
    """What would keep the file from being replaced."""
    if not os.access(copy.path.parent, os.W_OK | os.X_OK):
        yield f"{copy.path.parent} is closed to writing; a flip replaces the file, and so writes to its directory"
    if copy.path.is_mount():
        yield f"{copy.path} is itself a mount, which cannot be replaced; mount its directory instead"
    if os.geteuid() != 0 and copy.stat.st_uid != os.geteuid():
        yield f"{copy.path} belongs to user {copy.stat.st_uid}, which user {os.geteuid()} cannot keep on a new file"


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_ino, one.st_mtime_ns, one.st_size) == (other.st_ino, other.st_mtime_ns, other.st_size)


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Name what the system says in the words of the contract."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"{path}: there is no such file") from error
    except OSError as error:
        what = f"{path}: {error.strerror}"
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise Permission(
                f"{what}; a flip replaces the file: its directory must be open for writing, its owner the agent's user"
            ) from error
        if error.errno in (errno.EBUSY, errno.EXDEV):
            raise Invalid(f"{what}; a file that is itself a mount cannot be replaced: mount its directory") from error
        raise Transient(what) from error
