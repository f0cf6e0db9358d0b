"""The ledger on its disk: entries are synced, and a disk that takes no entry is detected before a flip."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.commands.keys import generate, load_private, load_public
from agent.config.load import load
from agent.errors import KeyFileError, LedgerError
from agent.events.cloudevents import FLAG_VERIFIED, FLAG_WRITTEN, Event
from agent.executor.build import LEDGER
from agent.executor.service import Flips
from agent.ledger.ledger import Ledger
from agent.ledger.probe import LedgerProbe, probe_state
from tests.unit.agent.cli.test_keys_and_restore import CONFIG
from tests.unit.agent.ledger.test_ledger import command, event, opened
from tests.unit.agent.preflight.test_doctor import examine

FLAGS = (
    '{"flags": {"new-checkout": {"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "on"}}}'
)


class Syncs:
    """The files and directories that were synced, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths: list[Path] = []
        fsync = os.fsync

        def counted(descriptor: int) -> None:
            self.paths.append(Path(f"/proc/self/fd/{descriptor}").readlink())
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", counted)


def test_an_entry_its_name_and_each_of_its_lines_are_synced_before_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, syncs = Ledger(tmp_path), Syncs(monkeypatch)
    entry = opened(ledger)
    (path,) = tmp_path.glob("*.jsonl")
    content, directory = syncs.paths
    assert content.name.startswith(f".{path.name}")
    assert directory == tmp_path
    for count, step in enumerate((FLAG_WRITTEN, FLAG_VERIFIED), 3):
        ledger.append(entry, event(step))
        assert syncs.paths[2:] == [path] * (count - 2)
    ledger.announced(entry)
    assert syncs.paths[2:] == [path] * 3


def test_whether_a_write_may_have_been_sent_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(tmp_path)
    entry = opened(ledger)
    syncs = Syncs(monkeypatch)
    (path,) = tmp_path.glob("*.jsonl")
    ledger.mark(entry, "never")
    ledger.mark(entry, "maybe")
    ledger.mark(entry, "maybe")
    assert syncs.paths == [path, path]


def test_a_disk_that_does_not_take_the_mark_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(tmp_path)
    entry = opened(ledger)
    (path,) = tmp_path.glob("*.jsonl")
    ledger.mark(entry, "never")
    monkeypatch.setattr(os, "fsync", refuse(errno.ENOSPC))
    with pytest.raises(LedgerError, match=f"{path}: No space left"):
        ledger.mark(entry, "maybe")
    # Another attempt uses the disk again.
    assert entry.unwritten
    with pytest.raises(LedgerError, match=f"{path}: No space left"):
        ledger.append(entry, event(FLAG_WRITTEN))


def test_an_entry_that_the_disk_does_not_give_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(tmp_path)
    opened(ledger)
    monkeypatch.setattr(Path, "read_bytes", refuse(errno.EIO))
    with pytest.raises(LedgerError, match=f"{command().id}.jsonl: {os.strerror(errno.EIO)}"):
        ledger.get(command().id)


def refuse(number: int) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


FAILURES = [
    pytest.param("os.fsync", errno.ENOSPC, id="full"),
    pytest.param("pathlib.Path.open", errno.EROFS, id="read-only"),
    pytest.param("pathlib.Path.hardlink_to", errno.EOPNOTSUPP, id="no-hard-links"),
]


@pytest.mark.parametrize(("operation", "number"), FAILURES)
def test_a_probe_fails_as_an_entry_would_and_leaves_nothing_behind(
    tmp_path: Path, operation: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = LedgerProbe(tmp_path)
    probe.write()
    with monkeypatch.context() as patch:
        patch.setattr(operation, refuse(number))
        with pytest.raises(LedgerError, match=os.strerror(number)):
            probe.write()
    assert list(tmp_path.iterdir()) == []
    assert list(Ledger(tmp_path).entries()) == []


@pytest.mark.parametrize(("operation", "number"), FAILURES)
def test_an_entry_that_the_disk_does_not_take_is_named_and_leaves_nothing_behind(
    tmp_path: Path, operation: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(operation, refuse(number))
        with pytest.raises(LedgerError, match=f"{command().id}.jsonl: {os.strerror(number)}"):
            opened(ledger)
    assert list(tmp_path.iterdir()) == []
    opened(ledger)


def test_what_a_crash_left_of_a_probe_is_taken_away_later(tmp_path: Path) -> None:
    old, new = tmp_path / ".probe-old", tmp_path / ".probe-new"
    for path in (old, new):
        path.write_bytes(b"")
    os.utime(old, (0, 0))
    LedgerProbe(tmp_path).write()
    assert list(tmp_path.iterdir()) == [new]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "flipback.yaml").write_text(CONFIG)
    (tmp_path / "flags.json").write_text(FLAGS)
    return tmp_path


@pytest.mark.parametrize(("operation", "number"), FAILURES)
async def test_a_disk_that_takes_no_entry_is_a_problem_before_any_flip_fails(
    home: Path, operation: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load(home / "flipback.yaml")
    generate(config.state_dir)

    async def emit(_: Event) -> None:
        pass

    flips = Flips(config, emit)
    assert await flips.check() == []
    with monkeypatch.context() as patch:
        patch.setattr(LedgerProbe, "_sweep", lambda self: None)
        patch.setattr(operation, refuse(number))
        ledger = str(config.state_dir / LEDGER)
        (problem,) = [problem for problem in await flips.check() if ledger in problem]
    assert os.strerror(number) in problem
    assert "make room" in problem
    assert await flips.check() == []
    await flips.close()


@pytest.mark.parametrize("made", [False, True])
def test_doctor_says_that_the_disk_takes_no_entry(
    home: Path, made: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if made:
        Ledger(load(home / "flipback.yaml").state_dir / LEDGER)
    assert examine(home, capsys, "--no-kafka")[0] == 0
    monkeypatch.setattr(os, "fsync", refuse(errno.ENOSPC))
    status, found = examine(home, capsys, "--no-kafka")
    assert status == 4
    (bad,) = [finding for finding in found if finding["what"] == "state_dir"]
    assert not bad["ok"]
    assert "No space left on device" in bad["detail"]


def test_a_place_where_no_directory_can_be_made_is_known_beforehand() -> None:
    with pytest.raises(LedgerError, match="/proc/nope"):
        probe_state(Path("/proc/nope/ledger"))


@pytest.mark.parametrize("after", range(4))
def test_a_full_disk_leaves_no_half_of_a_pair_of_keys(
    tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full after the given number of writes or links."""
    done = [0]

    def limited(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            done[0] += 1
            if done[0] > after:
                raise OSError(errno.ENOSPC, "No space left on device")
            return original(*arguments)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", limited(os.fsync))
        patch.setattr(Path, "hardlink_to", limited(Path.hardlink_to))
        with pytest.raises(KeyFileError, match="No space"):
            generate(tmp_path)
    assert list(tmp_path.iterdir()) == []
    private, public = generate(tmp_path)
    assert load_private(private).id == load_public(public).id


def test_an_empty_key_says_what_it_is(tmp_path: Path) -> None:
    private, _ = generate(tmp_path)
    private.write_bytes(b"")
    with pytest.raises(KeyFileError, match=r"is empty: .*remove it"):
        load_private(private)
