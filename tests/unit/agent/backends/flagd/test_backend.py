# ruff: noqa: ASYNC240  # a test may block its own loop
from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import stat
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent.backends import settings
from agent.backends.contract import FlagRef, Outcome, Verdict
from agent.backends.flagd.backend import FlagdFileBackend
from agent.errors import Invalid, NotFound, Permission, Timeout, Unsent
from tests.support.flagd import REF, fixtures, soon

OP = "command-1"
TEXT = """{
  "$schema": "https://flagd.dev/schema/v0/flags.json",
  "flags": {
    "new-checkout": {
      "state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "on",
      "targeting": {"if": [{"var": "beta"}, "on", "off"]}
    },
    "other": {"state": "ENABLED", "variants": {"a": 1.0, "b": 2e0}, "defaultVariant": "a"}
  }
}
"""
KILLED = TEXT.replace('"defaultVariant": "on"', '"defaultVariant": "off"').replace(
    '{"if": [{"var": "beta"}, "on", "off"]}', "{}"
)


class Clock:
    """Replaces the module `time` in the backend only; time passes only by sleeping."""

    time_ns = staticmethod(time.time_ns)

    def __init__(self) -> None:
        self.slept = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.slept

    def sleep(self, seconds: float) -> None:
        self.slept += seconds


path, backend = fixtures(TEXT)


async def kill(backend: FlagdFileBackend, expect: str | None = None) -> Outcome:
    if expect is None:
        expect = (await backend.read(REF, deadline=soon())).version
    return (await backend.apply(REF, "off", expect=expect, op_id=OP, deadline=soon())).outcome


async def test_a_kill_leaves_the_rest_of_the_file_as_it_was(backend: FlagdFileBackend, path: Path) -> None:
    assert await kill(backend) is Outcome.APPLIED
    assert path.read_text() == KILLED


async def test_the_file_keeps_its_mode_and_owner(backend: FlagdFileBackend, path: Path) -> None:
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 1234, 2345)
    before = path.stat()
    assert await kill(backend) is Outcome.APPLIED
    after = path.stat()
    assert (stat.S_IMODE(after.st_mode), after.st_uid, after.st_gid) == (0o640, before.st_uid, before.st_gid)


@pytest.mark.parametrize("ahead_s", [-3600, 0, 3600])
async def test_the_files_time_rises_for_a_watcher_that_holds_it_as_a_float(
    backend: FlagdFileBackend, path: Path, ahead_s: int
) -> None:
    os.utime(path, (time.time() + ahead_s,) * 2)
    times = [os.path.getmtime(path)]
    snapshot = await backend.snapshot(REF, deadline=soon())
    assert await kill(backend) is Outcome.APPLIED
    times.append(os.path.getmtime(path))
    now = await backend.read(REF, deadline=soon())
    assert (await backend.restore(snapshot, expect=now.version, op_id=OP, deadline=soon())).outcome is Outcome.APPLIED
    times.append(os.path.getmtime(path))
    assert times[0] < times[1] < times[2]


async def test_a_reader_never_sees_half_a_file(backend: FlagdFileBackend, path: Path) -> None:
    with path.open() as before:
        assert await kill(backend) is Outcome.APPLIED
        assert before.read() == TEXT


async def test_nothing_is_left_in_the_directory_but_the_file_and_its_lock(
    backend: FlagdFileBackend, path: Path
) -> None:
    (path.parent / ".flags.json.new").write_text("left behind by a crash")
    assert await kill(backend) is Outcome.APPLIED
    assert sorted(entry.name for entry in path.parent.iterdir()) == [".flags.json.lock", "flags.json"]


async def test_an_edit_to_another_flag_is_no_conflict(backend: FlagdFileBackend, path: Path) -> None:
    expect = (await backend.read(REF, deadline=soon())).version
    path.write_text(TEXT.replace("2e0", "3e0"))
    assert await kill(backend, expect) is Outcome.APPLIED
    assert path.read_text() == KILLED.replace("2e0", "3e0")


async def test_an_edit_to_the_flag_is_a_conflict_and_stays(backend: FlagdFileBackend, path: Path) -> None:
    expect = (await backend.read(REF, deadline=soon())).version
    edited = TEXT.replace('"beta"', '"staff"')
    path.write_text(edited)
    assert await kill(backend, expect) is Outcome.CONFLICT
    assert path.read_text() == edited


async def test_an_edit_between_reading_and_replacing_is_not_lost(
    backend: FlagdFileBackend, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited = TEXT.replace('"beta"', '"staff"')
    original = FlagdFileBackend._replace

    def edit_first(self: FlagdFileBackend, copy: object, content: bytes, progress: object) -> bool:
        monkeypatch.undo()
        path.write_text(edited)
        return original(self, copy, content, progress)  # type: ignore[arg-type]

    monkeypatch.setattr(FlagdFileBackend, "_replace", edit_first)
    assert await kill(backend) is Outcome.CONFLICT
    assert path.read_text() == edited


async def test_writers_of_many_backends_are_kept_apart(path: Path) -> None:
    backends = [FlagdFileBackend(settings.FlagdFile(path=path)) for _ in range(8)]
    expect = (await backends[0].read(REF, deadline=soon())).version
    outcomes = await asyncio.gather(*(kill(backend, expect) for backend in backends))
    assert sorted(outcomes) == [Outcome.ALREADY] * 7 + [Outcome.APPLIED]
    for backend in backends:
        await backend.close()


@pytest.mark.parametrize("kind", [fcntl.LOCK_EX, fcntl.LOCK_SH])
async def test_a_lock_that_is_never_released_is_waited_for_until_the_deadline(
    backend: FlagdFileBackend, path: Path, kind: int
) -> None:
    expect = (await backend.read(REF, deadline=soon())).version
    with (path.parent / ".flags.json.lock").open("w") as lock:
        fcntl.flock(lock, kind)
        # The thread reports it a little before the deadline; if it wakes up late, its caller does.
        said = r"holds the lock|waiting for the lock of another process; nothing was written"
        with pytest.raises(Unsent, match=said):
            await backend.apply(REF, "off", expect=expect, op_id=OP, deadline=soon(1.0))
    assert path.read_text() == TEXT
    assert await kill(backend) is Outcome.APPLIED


async def test_a_disk_that_takes_too_long_leaves_the_file_alone(
    backend: FlagdFileBackend, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    expect = (await backend.read(REF, deadline=soon())).version
    monkeypatch.setattr("agent.backends.flagd.backend.time", clock)
    monkeypatch.setattr(os, "fsync", lambda _: clock.sleep(100))
    with pytest.raises(Unsent, match="nothing was written"):
        await backend.apply(REF, "off", expect=expect, op_id=OP, deadline=soon())
    assert path.read_text() == TEXT


async def test_a_linked_file_is_replaced_where_it_really_is(path: Path, tmp_path: Path) -> None:
    (tmp_path / "day").mkdir()
    real = path.rename(tmp_path / "day" / "flags.json")
    path.symlink_to(real)
    backend = FlagdFileBackend(settings.FlagdFile(path=path))
    assert await kill(backend) is Outcome.APPLIED
    assert path.is_symlink()
    assert real.read_text() == KILLED
    await backend.close()


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        (errno.EROFS, Permission, "directory must be open for writing"),
        (errno.EACCES, Permission, "directory must be open for writing"),
        (errno.EPERM, Permission, "owner"),
        (errno.EBUSY, Invalid, "mount its directory"),
        (errno.ENOSPC, Unsent, "No space"),
        (errno.EIO, Unsent, "error"),
    ],
)
async def test_a_file_system_that_refuses_is_named_and_nothing_changes(
    backend: FlagdFileBackend,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    error: type[Exception],
    words: str,
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(error, match=words):
        await kill(backend)
    assert path.read_text() == TEXT
    assert not (path.parent / ".flags.json.new").exists()


@pytest.mark.parametrize("later_s", [0, 3600])
async def test_an_edit_in_place_is_seen_at_once_though_its_size_stays_and_its_time_is_set_back(
    backend: FlagdFileBackend, path: Path, monkeypatch: pytest.MonkeyPatch, later_s: int
) -> None:
    # An hour later the file has been unchanged for long, and is not read again for each flag.
    clock = SimpleNamespace(time_ns=lambda: time.time_ns() + later_s * 10**9, monotonic=time.monotonic)
    monkeypatch.setattr("agent.backends.flagd.backend.time", clock)
    for group in ("team", "crew", "beta"):
        before = path.stat()
        for _ in range(2):
            known = (await backend.read(REF, deadline=soon())).raw
        with path.open("r+") as file:
            file.write(TEXT.replace("beta", group))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert f'"{group}"' not in known
        assert f'"{group}"' in (await backend.read(REF, deadline=soon())).raw


async def test_a_missing_file_and_a_missing_flag_are_not_found(backend: FlagdFileBackend, path: Path) -> None:
    with pytest.raises(NotFound, match=r"flags\.json has no flag 'absent'"):
        await backend.read(FlagRef("absent", "production"), deadline=soon())
    path.unlink()
    with pytest.raises(NotFound, match=r"flags\.json"):
        await backend.read(REF, deadline=soon())


async def test_a_file_caught_half_written_is_read_again(
    backend: FlagdFileBackend, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text(TEXT[:100])
    clock = Clock()
    monkeypatch.setattr("agent.backends.flagd.backend.time", clock)
    monkeypatch.setattr(clock, "sleep", lambda _: path.write_text(TEXT))
    assert (await backend.read(REF, deadline=soon())).raw in TEXT


async def test_a_broken_file_is_invalid_and_left_alone(backend: FlagdFileBackend, path: Path) -> None:
    path.write_text(TEXT[:100])
    with pytest.raises(Invalid, match=r"flags\.json"):
        await kill(backend, "any")
    assert path.read_text() == TEXT[:100]


async def test_read_back_tells_our_write_from_a_persons(backend: FlagdFileBackend, path: Path) -> None:
    snapshot = await backend.snapshot(REF, deadline=soon())

    async def verdict() -> Verdict:
        return (await backend.verify(snapshot, "off", op_id=OP, deadline=soon())).verdict

    assert await verdict() is Verdict.UNTOUCHED
    await kill(backend)
    assert await verdict() is Verdict.LANDED
    path.write_text(KILLED.replace("2e0", "3e0"))
    assert await verdict() is Verdict.LANDED
    path.write_text(TEXT.replace('"beta"', '"staff"'))
    assert await verdict() is Verdict.OTHER
    # A person restored it byte for byte: this must not look like a write that never happened.
    path.write_text(TEXT)
    assert await verdict() is Verdict.OTHER


@pytest.mark.parametrize(
    "other",
    [
        "{}",
        "null",
        '{"state": "enabled", "variants": {"a": 1}, "defaultVariant": "a"}',
        '{"state": "ENABLED", "variants": {"a": 1}, "defaultVariant": "gone"}',
        '{"state": "ENABLED", "variants": {"a": 1}, "metadata": {"team": null}}',
    ],
)
async def test_a_flag_for_which_readers_refuse_the_file_is_told_before_and_with_a_flip_which_is_made(
    backend: FlagdFileBackend, path: Path, other: str
) -> None:
    path.write_text(
        TEXT.replace('{"state": "ENABLED", "variants": {"a": 1.0, "b": 2e0}, "defaultVariant": "a"}', other)
    )
    (problem,) = (await backend.health([(REF, "off")], deadline=soon())).problems
    assert "flag 'other' (line 8)" in problem
    assert "no flip in it is seen" in problem
    for outcome in (Outcome.APPLIED, Outcome.ALREADY):
        expect = (await backend.read(REF, deadline=soon())).version
        result = await backend.apply(REF, "off", expect=expect, op_id=OP, deadline=soon())
        assert result.outcome is outcome
        assert result.detail == problem
    # The error in the flag's own definition is mended by its flip, and hides no other flip.
    assert (await backend.health([(FlagRef("other", "production"), "a")], deadline=soon())).problems != (problem,)


@pytest.mark.parametrize(
    "odd",
    [
        '{"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "on", "targeting": null}',
        '{"variants": {"on": true, "off": false}, "defaultVariant": "on"}',
        '{"state": "enabled", "variants": {"on": 1, "off": null}, "defaultVariant": "on"}',
        '{"state": "ENABLED", "variants": {"on": true, "off": []}, "defaultVariant": "gone"}',
        '{"state": 1, "variants": {"off": {}}, "defaultVariant": {"a": 1}, "targeting": [1], "metadata": 5}',
    ],
)
async def test_a_restore_puts_back_whatever_was_there(backend: FlagdFileBackend, path: Path, odd: str) -> None:
    path.write_text(before := '{"flags": {"new-checkout": %s, "other": {}}}' % odd)  # noqa: UP031
    snapshot = await backend.snapshot(REF, deadline=soon())
    assert await kill(backend, snapshot.state.version) is Outcome.APPLIED
    now = await backend.read(REF, deadline=soon())
    assert now.variant == "off"
    result = await backend.restore(snapshot, expect=now.version, op_id=OP, deadline=soon())
    assert result.outcome is Outcome.APPLIED
    assert path.read_text() == before


async def test_what_takes_too_long_is_named(
    backend: FlagdFileBackend, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, parse = threading.Event(), FlagdFileBackend._parse

    def slow(self: FlagdFileBackend, content: bytes) -> object:
        go_on.wait(60)
        return parse(self, content)

    monkeypatch.setattr(FlagdFileBackend, "_parse", slow)
    try:
        # Two seconds are enough for both threads to begin.
        reads = [backend.read(REF, deadline=soon(2.0)) for _ in range(2)]
        for found in await asyncio.gather(*reads, return_exceptions=True):
            assert isinstance(found, Timeout)
            assert "the time went into parsing the file" in str(found)
        with pytest.raises(Timeout, match="waiting for a thread"):
            await backend.read(REF, deadline=soon(0.1))
        with pytest.raises(Unsent, match=r"waiting for a thread.*nothing was written"):
            await backend.apply(REF, "off", expect="any", op_id=OP, deadline=soon(0.1))
    finally:
        go_on.set()


async def test_health_foresees_a_directory_that_is_closed_to_writing(
    backend: FlagdFileBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    (problem,) = (await backend.health([(REF, "off")], deadline=soon())).problems
    assert "closed to writing" in problem


async def test_health_foresees_an_owner_that_cannot_be_kept(
    backend: FlagdFileBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 4321)
    (problem,) = (await backend.health([(REF, "off")], deadline=soon())).problems
    assert "belongs to user" in problem


async def test_health_of_a_missing_file_is_one_problem(backend: FlagdFileBackend, path: Path) -> None:
    path.unlink()
    (problem,) = (await backend.health([(REF, "off")], deadline=soon())).problems
    assert "no such file" in problem
