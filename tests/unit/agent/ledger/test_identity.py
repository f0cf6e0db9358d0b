"""Executors with separate ledgers are named; those that share one, and a single executor, are not."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from agent.heartbeats.heartbeat import AWAY_AFTER, Heartbeat, Member, decode, encode
from agent.ledger.identity import identity, separate_ledgers
from agent.ledger.ledger import Ledger
from tests.unit.agent.heartbeats.test_heartbeat import beat


def executor(name: str, ledger: str | None, age: float = 1.0) -> Member:
    return Member(msgspec.structs.replace(beat(name), host=name, ledger=ledger), age)


def test_the_id_of_a_ledger_stays_and_all_who_start_at_once_on_a_disk_get_the_same(tmp_path: Path) -> None:
    shared, other = tmp_path / "shared", tmp_path / "other"
    shared.mkdir()
    other.mkdir()
    with ThreadPoolExecutor(8) as threads:
        found = set(threads.map(identity, [shared] * 32))
    (one,) = found
    assert one is not None
    assert identity(shared) == one
    assert identity(other) not in (None, one)
    # The id is no entry, and no temporary file is left beside it.
    assert list(Ledger(shared).entries()) == []
    assert [path.name for path in shared.iterdir()] == [".id"]


def test_a_disk_that_takes_no_id_and_a_file_that_is_none_give_none(tmp_path: Path) -> None:
    assert identity(tmp_path / "gone") is None
    (tmp_path / ".id").write_text("x" * 1_000_000)
    assert identity(tmp_path) is None


def test_executors_with_ledgers_of_their_own_are_named_with_what_follows() -> None:
    said = separate_ledgers([executor("here", "a"), executor("there", "b")])
    assert said is not None
    assert "here (pid 1)" in said
    assert "there (pid 1)" in said
    assert "limits" in said
    assert "`state_dir` on a common disk" in said


@pytest.mark.parametrize(
    "members",
    [
        [executor("here", "a"), executor("there", "a")],
        [executor("here", "a")],
        # A dead executor does not count, an older version names no ledger, and a monitor has none.
        [executor("here", "a"), executor("there", "b", AWAY_AFTER + 1)],
        [executor("here", "a"), executor("there", None)],
        [executor("here", "a"), Member(msgspec.structs.replace(beat("m"), roles={"monitor": "active"}), 1.0)],
        [],
    ],
)
def test_where_executors_share_a_ledger_or_it_is_not_known_nothing_is_said(members: list[Member]) -> None:
    assert separate_ledgers(members) is None


def test_an_older_heartbeat_has_no_ledger_and_the_id_comes_back_from_a_record() -> None:
    value = encode(msgspec.structs.replace(beat(), ledger="a" * 32))
    found = decode(value)
    assert isinstance(found, Heartbeat)
    assert found.ledger == "a" * 32
    old = {name: given for name, given in msgspec.json.decode(value).items() if name != "ledger"}
    read = decode(msgspec.json.encode(old))
    assert read is not None
    assert read.ledger is None
