"""A flagd file on disk: its lock, its replacement by rename, and a trial of a replacement."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.backends.flagd.attributes import sealed
from agent.errors import BackendError, Invalid, NotFound, Permission, Transient, Unsent
from agent.storage.file_lock import taken

_LOCK_POLL_S = 0.002
_NEWER_NS = 1_000_000
"""The least rise of the modification time, 1 ms: watchers store it as a float, which is exact to 0.24 µs."""
_NO_UNNAMED_FILES = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.ENOTSUP}
"""Errors of file systems without O_TMPFILE, and of kernels that do not know it (open(2))."""


@contextmanager
def errors(path: Path, *, unsent: bool = False) -> Iterator[None]:
    """Turn errors of the operating system into those of the contract. `unsent`: a failure here has written nothing."""
    try:
        yield
    except OSError as error:
        raise error_of(path, error, unsent=unsent) from error


def error_of(path: Path, error: OSError, *, unsent: bool = False) -> BackendError:
    """Return the contract's error for an error of the operating system."""
    if isinstance(error, FileNotFoundError):
        return NotFound(f"{path}: there is no such file")
    what = f"{path}: {error.strerror}"
    if error.errno == errno.EPERM and (seal := next(sealed(path), None)) is not None:
        return Permission(seal)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Permission(
            f"{what}; a flip replaces the file: its directory must be open for writing, its owner the agent's user"
        )
    if error.errno in (errno.EBUSY, errno.EXDEV):
        return Invalid(f"{what}; a file that is itself a mount cannot be replaced: mount its directory")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        what += "; a flip writes a new file beside the old one: make room for it"
    return Unsent(f"{what}; nothing was written") if unsent else Transient(what)


@contextmanager
def locked(path: Path, old: os.stat_result, deadline: float) -> Iterator[None]:
    """Hold the lock of the file at `path`, whose stat is `old`. Raises Unsent if it is not free in time.

    Only users who may write the file may take the lock: a reader who took it would delay all flips. A lock that is open
    to others, from an earlier version, gets this restriction from its owner.
    """
    name = path.with_name(f".{path.name}.lock")
    with errors(name, unsent=True):
        lock = os.open(name, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with errors(name, unsent=True):
            # Not on a file system without permissions, or one that denies root: this must not stop a flip.
            with suppress(OSError):
                _close_to_others(lock, old)
            while not taken(lock):
                if time.monotonic() + _LOCK_POLL_S >= deadline:
                    raise Unsent(f"{path}: another writer holds the lock {name}; nothing was written")
                time.sleep(_LOCK_POLL_S)
        yield
    finally:
        os.close(lock)


def write_like(new: Path, content: bytes, old: os.stat_result) -> None:
    """Write a replacement to `new`, durably, with the owner and mode of the old file; the caller renames it.

    Its modification time is later than the old one, for readers that compare times.
    """
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        _make_like(descriptor, old)
        time_ns = max(time.time_ns(), old.st_mtime_ns + _NEWER_NS)
        os.utime(descriptor, ns=(time_ns, time_ns))
        os.fsync(descriptor)


def replacement_problem(path: Path, content: bytes, old: os.stat_result) -> str | None:
    """Try a replacement without the rename; return why it would fail, None if it would not. Blocks on the disk.

    The new file has no name, if the file system supports that, so that watchers of the directory do not see it.
    """
    try:
        with errors(path):
            name = path.with_name(f".{path.name}.check-{os.getpid()}")
            try:
                flags = os.O_WRONLY | os.O_CLOEXEC
                try:
                    descriptor = os.open(path.parent, flags | os.O_TMPFILE, 0o600)
                except OSError as error:
                    if error.errno not in _NO_UNNAMED_FILES:
                        raise
                    name.unlink(missing_ok=True)
                    descriptor = os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o600)
                with open(descriptor, "wb") as file:
                    file.write(content)
                    file.flush()
                    _make_like(descriptor, old)
                    os.fsync(descriptor)
            finally:
                name.unlink(missing_ok=True)
    except BackendError as error:
        return str(error)
    return _lock_problem(path)


def obstacles(path: Path, old: os.stat_result) -> Iterator[str]:
    """Yield what forbids to replace the file, by its mode, owner, mount and attributes."""
    seals = list(sealed(path))
    yield from seals
    if not seals and not os.access(path.parent, os.W_OK | os.X_OK):
        yield f"{path.parent} is closed to writing; a flip replaces the file, and so writes to its directory"
    if path.is_mount():
        yield f"{path} is itself a mount and cannot be replaced; mount its directory instead"
    if os.geteuid() != 0 and old.st_uid != os.geteuid():
        yield f"{path} belongs to user {old.st_uid}, which user {os.geteuid()} cannot keep on a new file"


def same(one: os.stat_result, other: os.stat_result) -> bool:
    """Are both the same copy of a file?"""
    return (one.st_ino, one.st_mtime_ns, one.st_size) == (other.st_ino, other.st_mtime_ns, other.st_size)


def untouched(one: os.stat_result, other: os.stat_result) -> bool:
    """Are both the same file, not written in between? A program can set the times back, but not `ctime`."""
    return same(one, other) and (one.st_dev, one.st_ctime_ns) == (other.st_dev, other.st_ctime_ns)


def _lock_problem(path: Path) -> str | None:
    """Return why an existing lock could not be opened, None if it could or does not exist."""
    name = path.with_name(f".{path.name}.lock")
    try:
        os.close(os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW))
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{name}: {error.strerror}; a flip takes this lock: give it to the agent's user, or delete it"
    return None


def _make_like(descriptor: int, old: os.stat_result) -> None:
    new = os.fstat(descriptor)
    if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
        os.fchown(descriptor, old.st_uid, old.st_gid)
    os.fchmod(descriptor, old.st_mode & 0o7777)


def _close_to_others(lock: int, old: os.stat_result) -> None:
    """Give the lock the owner of the file, and permission to open it only to users who may write the file."""
    found, me = os.fstat(lock), os.geteuid()
    # Not a file with another name: root would change the owner of whatever somebody linked here.
    if me not in (0, found.st_uid) or not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        return
    if me == 0 and (found.st_uid, found.st_gid) != (old.st_uid, old.st_gid):
        # A person's rollback as root must not leave a lock that the agent cannot open.
        os.fchown(lock, old.st_uid, old.st_gid)
    wanted = 0o600 | sum(6 << shift for shift in (0, 3) if old.st_mode >> shift & 2)
    if stat.S_IMODE(found.st_mode) != wanted:
        os.fchmod(lock, wanted)
