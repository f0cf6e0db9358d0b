"""A flagd file on disk: a failure before the rename has written nothing, and a health check predicts it."""

# ruff: noqa: ASYNC240  # a test may block its own loop
from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from agent.backends.contract import Outcome
from agent.backends.flagd import disk as flagd_disk
from agent.backends.flagd import mounts
from agent.backends.flagd.attributes import sealed
from agent.backends.flagd.backend import FlagdFileBackend
from agent.backends.flagd.progress import WorkProgress
from agent.commands.command import sign
from agent.errors import Permission, Transient, Unsent
from agent.events import cloudevents as events
from agent.events.cloudevents import Event
from agent.executor.executor import Executor
from agent.executor.limits import FlipRate
from agent.executor.settings import FlipPace, Permissions
from agent.ledger.automation import Automation
from agent.ledger.ledger import Ledger
from agent.state.allowlist import ManagedFlag
from agent.state.flags import FlagWatch
from tests.support.flagd import REF, fixtures, soon
from tests.support.pace import AMPLE, Pace, Time
from tests.unit.agent.executor.test_executor import KEY, command

TEXT = (
    '{"flags": {"new-checkout": {"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "on"}}}'
)


path, backend = fixtures(TEXT)


async def flip(backend: FlagdFileBackend, deadline: float | None = None) -> Outcome:
    expect = (await backend.read(REF, deadline=soon())).version
    return (await backend.apply(REF, "off", expect=expect, op_id="1", deadline=deadline or soon())).outcome


async def problems(backend: FlagdFileBackend) -> tuple[str, ...]:
    return (await backend.health([(REF, "off")], deadline=soon())).problems


Fill = Callable[[], None]


@pytest.fixture
def full(path: Path) -> Iterator[tuple[Fill, Fill]]:
    """Fill the disk of the file, and make room again: a small tmpfs, or a stub of its errors without one."""
    content = path.read_bytes()
    size = ["mount", "-t", "tmpfs", "-o", "size=64k", "flipback", str(path.parent)]
    if os.geteuid() == 0 and subprocess.run(size, check=False, capture_output=True).returncode == 0:
        path.write_bytes(content)
        filler = path.with_name("filler")

        def fill() -> None:
            with filler.open("wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(bytes(4096))

        try:
            yield fill, filler.unlink
        finally:
            subprocess.run(["umount", "-l", str(path.parent)], check=True)
        return
    with pytest.MonkeyPatch.context() as patch:

        def refuse(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        yield (lambda: patch.setattr(os, "fsync", refuse)), patch.undo


async def test_a_full_disk_is_foreseen_and_what_fails_on_it_was_not_written(
    backend: FlagdFileBackend, path: Path, full: tuple[Fill, Fill]
) -> None:
    fill, make_room = full
    assert await problems(backend) == ()
    fill()
    (problem,) = await problems(backend)
    assert "No space" in problem
    assert "make room" in problem
    with pytest.raises(Unsent, match="No space"):
        await flip(backend)
    assert path.read_text() == TEXT
    make_room()
    assert await problems(backend) == ()
    assert await flip(backend) is Outcome.APPLIED
    left = {entry.name for entry in path.parent.iterdir()}
    assert left == {"flags.json", ".flags.json.lock"}


@pytest.fixture(params=["flags.json", "."])
def sealing(request: pytest.FixtureRequest, path: Path) -> Iterator[tuple[Path, Callable[[bool], None]]]:
    """Make the file, or its directory, immutable and mutable again: by `chattr` if the file system and the permissions
    allow it, else with a stub of the kernel's answers.
    """
    place = path.parent / request.param

    def chattr(on: bool) -> bool:
        word = ["chattr", "+i" if on else "-i", str(place)]
        with suppress(FileNotFoundError):
            return subprocess.run(word, check=False, capture_output=True).returncode == 0
        return False

    if chattr(True) and chattr(False):
        yield place, lambda on: (chattr(on), None)[1]
        chattr(False)
        return
    with pytest.MonkeyPatch.context() as patch:

        def ioctl(descriptor: int, request: int, argument: bytes) -> bytes:
            same = os.path.samestat(os.fstat(descriptor), place.stat())
            return (0x10 if same else 0).to_bytes(8, sys.byteorder)

        def refuse(*_: object) -> None:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

        def seal(on: bool) -> None:
            if on:
                patch.setattr(fcntl, "ioctl", ioctl)
                patch.setattr(Path, "replace", refuse)
            else:
                patch.undo()

        yield place, seal


async def test_a_file_or_directory_that_is_immutable_is_foreseen_and_named_once(
    backend: FlagdFileBackend, path: Path, sealing: tuple[Path, Callable[[bool], None]]
) -> None:
    place, seal = sealing
    assert await problems(backend) == ()
    seal(True)
    try:
        (problem,) = await problems(backend)
        assert f"{place} is immutable" in problem
        assert f"chattr -i {place}" in problem
        with pytest.raises(Permission, match=f"{re.escape(str(place))} is immutable"):
            await flip(backend)
        assert path.read_text() == TEXT
    finally:
        seal(False)
    assert await problems(backend) == ()
    assert await flip(backend) is Outcome.APPLIED


@pytest.mark.parametrize(
    ("flags", "said"),
    [(0x10, ["immutable", "immutable"]), (0x20, ["append-only", "append-only"]), (0x80000, []), (None, [])],
)
def test_attributes_of_a_file_and_its_directory_are_read_where_the_file_system_has_some(
    path: Path, monkeypatch: pytest.MonkeyPatch, flags: int | None, said: list[str]
) -> None:
    def ioctl(descriptor: int, request: int, argument: bytes) -> bytes:
        assert request in (0x80086601, 0x80046601)
        if flags is None:
            raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))
        return flags.to_bytes(4, sys.byteorder) + bytes(4)

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    found = list(sealed(path))
    assert [word for line in found for word in ("immutable", "append-only") if word in line] == said
    assert all(line.startswith(str(place)) for line, place in zip(found, (path, path.parent), strict=False))
    assert list(sealed(path.with_name("gone.json")))[1:] == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
async def test_a_disk_that_refuses_is_no_ambiguous_flip_however_often_it_is_tried(
    backend: FlagdFileBackend, path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int
) -> None:
    Pace(monkeypatch, Time(tries=3))
    told: list[Event] = []

    async def emit(event: Event) -> None:
        told.append(event)

    executor = Executor(
        Permissions(
            [ManagedFlag(REF.flag, REF.environment, "shop", "files", "off")], {"files": backend}, {KEY.id: KEY.public}
        ),
        Ledger(tmp_path / "ledger"),
        Automation(tmp_path),
        FlipPace(FlipRate(1, 600.0), cooldown_s=60.0, budget_s=AMPLE.whole_s),
        watch=FlagWatch(),
        emit=emit,
        now=lambda: 1001.0,
    )
    version = (await executor.read_flag(REF.flag, REF.environment)).version
    raw = sign(command(flag_version=version), KEY)

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agent.backends.flagd.backend.write_like", refuse)
        for _ in range(4):
            result = await executor.execute(raw)
            assert (result.outcome, result.final) == (Outcome.REJECTED, False)
    assert events.FLAG_AMBIGUOUS not in {event.type for event in told}
    assert (await executor.execute(raw)).outcome is Outcome.APPLIED
    executor.close()


@pytest.mark.parametrize("fails", ["write_like", "rename"])
@pytest.mark.parametrize(
    ("code", "kind"),
    [(errno.ENOSPC, Unsent), (errno.EDQUOT, Unsent), (errno.EIO, Unsent), (errno.EROFS, Permission)],
)
async def test_an_error_up_to_the_rename_says_that_nothing_was_written(
    backend: FlagdFileBackend, path: Path, monkeypatch: pytest.MonkeyPatch, fails: str, code: int, kind: type[Exception]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    if fails == "rename":
        monkeypatch.setattr(Path, "replace", refuse)
    else:
        monkeypatch.setattr("agent.backends.flagd.backend.write_like", refuse)
    with pytest.raises(kind):
        await flip(backend)
    assert path.read_text() == TEXT


async def test_an_error_after_the_rename_does_not_say_so(
    backend: FlagdFileBackend, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, sync = Path.replace, os.fsync

    def replaced(self: Path, target: Path) -> Path:
        def refuse(_: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(os, "fsync", refuse)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", replaced)
    with pytest.raises(Transient) as raised:
        await flip(backend)
    assert not isinstance(raised.value, Unsent)
    monkeypatch.setattr(os, "fsync", sync)
    assert '"off"}' in path.read_text()


async def test_a_disk_that_hangs_before_the_rename_is_given_up_and_never_renames_later(
    backend: FlagdFileBackend, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, sync = threading.Event(), os.fsync

    def hang(descriptor: int) -> None:
        go_on.wait(60)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", hang)
    try:
        with pytest.raises(Unsent, match="writing the new file to the disk; nothing was written"):
            await flip(backend, soon(2.0))
    finally:
        go_on.set()
    # A flip waits until the thread that hung has ended.
    assert await flip(backend) is Outcome.APPLIED
    assert "off" in path.read_text()


def test_work_is_stopped_before_it_changes_anything_or_goes_through() -> None:
    stopped = WorkProgress(0.0)
    assert stopped.stop()
    with pytest.raises(Unsent, match="too late"):
        stopped.commit("too late")
    through = WorkProgress(0.0)
    through.commit("too late")
    assert not through.stop()


async def test_a_disk_that_has_room_only_until_it_is_written_is_foreseen(
    backend: FlagdFileBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        # File systems with delayed allocation report a full disk only here.
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    (problem,) = await problems(backend)
    assert "No space" in problem


async def test_a_trial_that_hangs_is_told_and_leaves_flips_alone(
    backend: FlagdFileBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, trial = threading.Event(), flagd_disk.replacement_problem

    def hang(*given: object) -> str | None:
        go_on.wait(60)
        return trial(*given)  # type: ignore[arg-type]

    monkeypatch.setattr("agent.backends.flagd.trial.replacement_problem", hang)
    try:
        for words in ("not done in time", "under way for", "under way for"):
            (problem,) = (await backend.health([(REF, "off")], deadline=soon(2.0))).problems
            assert words in problem
        assert await flip(backend) is Outcome.APPLIED
    finally:
        go_on.set()
    async with asyncio.timeout(60):
        while await problems(backend):
            await asyncio.sleep(0.01)


async def test_a_trial_leaves_nothing_behind_where_files_must_have_names(
    backend: FlagdFileBackend, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    real = os.open

    def no_unnamed(name: str | Path, flags: int, *mode: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        opened.append(Path(name).name)
        return real(name, flags, *mode)

    monkeypatch.setattr(os, "open", no_unnamed)
    assert await problems(backend) == ()
    assert any(name.startswith(".flags.json.check-") for name in opened)
    assert [entry.name for entry in path.parent.iterdir()] == ["flags.json"]


def lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


@pytest.mark.parametrize(
    ("file", "lock"), [(0o644, 0o600), (0o640, 0o600), (0o600, 0o600), (0o664, 0o660), (0o666, 0o666)]
)
@pytest.mark.parametrize("before", [None, 0o644])
async def test_who_may_not_write_the_file_may_not_hold_its_lock(
    backend: FlagdFileBackend, path: Path, file: int, lock: int, before: int | None
) -> None:
    path.chmod(file)
    if before is not None:
        # As an earlier version of flipback left it: every user with access to the directory could delay all flips.
        lock_of(path).touch()
        lock_of(path).chmod(before)
    assert await flip(backend) is Outcome.APPLIED
    assert stat.S_IMODE(lock_of(path).stat().st_mode) == lock


async def test_a_file_system_that_keeps_no_rights_keeps_no_flip_from_being_made(
    backend: FlagdFileBackend, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock_of(path).touch()
    lock_of(path).chmod(0o644)

    def refuse(descriptor: int, mode: int) -> None:
        if os.path.samestat(os.fstat(descriptor), lock_of(path).stat()):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "fchmod", refuse)
    assert await flip(backend) is Outcome.APPLIED


async def test_a_lock_that_is_a_link_to_another_file_leaves_its_rights_alone(
    backend: FlagdFileBackend, path: Path
) -> None:
    other = path.with_name("other")
    other.touch()
    other.chmod(0o644)
    lock_of(path).hardlink_to(other)
    assert await flip(backend) is Outcome.APPLIED
    assert stat.S_IMODE(other.stat().st_mode) == 0o644


async def test_a_lock_that_cannot_be_opened_is_foreseen_and_named(backend: FlagdFileBackend, path: Path) -> None:
    lock_of(path).symlink_to(path)
    (problem,) = await problems(backend)
    assert ".flags.json.lock" in problem
    with pytest.raises(Unsent, match=r"\.flags\.json\.lock"):
        await flip(backend)
    assert path.read_text() == TEXT


async def test_a_lock_has_the_owner_of_the_file(
    backend: FlagdFileBackend, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owners: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "fchown", lambda _, user, group: owners.append((user, group)))
    if os.getuid() == 0:
        os.chown(path, 1234, 2345)
    lock_of(path).touch()
    assert await flip(backend) is Outcome.APPLIED
    # A person's rollback as root leaves a lock that the agent can open; the new file keeps its owner too.
    assert set(owners) <= {(path.stat().st_uid, path.stat().st_gid), (1234, 2345)}
    assert owners or os.getuid() != 0


HERE = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:40 / /run rw - tmpfs tmpfs rw\n"


def proc(directory: Path, **namespaces: str) -> Path:
    """Make a /proc of processes, each with mounts of its own."""
    for name, text in {"self": HERE, **namespaces}.items():
        process = directory / name.removeprefix("p")
        (process / "ns").mkdir(parents=True)
        (process / "ns" / "mnt").symlink_to(f"mnt:[{'4026531841' if text == HERE else name}]")
        (process / "mountinfo").write_text(text)
    return directory


@pytest.mark.parametrize(
    ("mount", "place"),
    [
        ("9 8 8:1 /srv/flags.json /etc/flagd/flags.json ro - ext4 /dev/sda1 rw", "/etc/flagd/flags.json in process 77"),
        ("9 8 8:1 /srv/flags.json//deleted /f ro - ext4 /dev/sda1 rw", "/f in process 77"),
        (r"9 8 8:1 /srv/flags.json /a\040b ro - ext4 /dev/sda1 rw", "/a b in process 77"),
        ("9 8 8:1 /srv /etc/flagd ro - ext4 /dev/sda1 rw", None),
        ("9 8 8:2 /srv/flags.json /etc/flagd/flags.json ro - ext4 /dev/sdb1 rw", None),
        ("9 8 8:1 /srv/flags.json.old /f ro - ext4 /dev/sda1 rw", None),
        ("broken", None),
    ],
)
def test_a_mount_of_the_file_alone_is_seen_in_a_container_of_the_machine(
    tmp_path: Path, mount: str, place: str | None
) -> None:
    found = mounts.of_file(Path("/srv/flags.json"), proc(tmp_path, p77=mount + "\n", p78=mount + "\n" + HERE, p9=HERE))
    expected = [] if place is None else [place, place.replace("77", "78")]
    assert found == expected


def test_a_mount_of_the_file_alone_is_seen_here(tmp_path: Path) -> None:
    (proc(tmp_path) / "self" / "mountinfo").write_text(
        HERE + "9 1 8:1 /srv/flags.json /etc/f.json rw - ext4 /dev/sda1 rw\n"
    )
    assert mounts.of_file(Path("/srv/flags.json"), tmp_path) == ["/etc/f.json"]
    # The given file is a mount itself: `disk.obstacles` reports that.
    assert mounts.of_file(Path("/etc/f.json"), tmp_path) == []
    assert mounts.of_file(Path("/run/flags.json"), tmp_path) == []


async def test_a_mount_of_the_file_alone_is_a_problem(
    backend: FlagdFileBackend, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "of_file", lambda _: ["/etc/flagd/flags.json in process 77"])
    (problem,) = await problems(backend)
    assert "/etc/flagd/flags.json in process 77" in problem
    assert "mount its directory" in problem


async def test_a_second_name_of_the_file_is_a_doubt(backend: FlagdFileBackend, path: Path) -> None:
    path.with_name("other.json").hardlink_to(path)
    health = await backend.health([(REF, "off")], deadline=soon())
    assert health.ok
    assert "hard link" in health.doubts[0]
