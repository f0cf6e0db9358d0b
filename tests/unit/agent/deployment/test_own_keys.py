"""A process makes keys for itself only where nobody else is there to refuse what they sign."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.deployment import own_keys
from agent.deployment.own_keys import ensure_keys
from agent.errors import KeyFileError
from agent.heartbeats.heartbeat import AWAY_AFTER, Heartbeat, Member
from tests.unit.agent.armed.test_verdict import beat

ALL = ("ingest", "monitor", "executor")


def config(directory: Path, **keys: Any) -> Any:
    return SimpleNamespace(
        keys=SimpleNamespace(**{"signing_key": None, "public_keys": None, **keys}),
        signing_key=directory / "flipback.key",
        state_dir=directory,
        kafka=SimpleNamespace(prefix="flipback"),
    )


@pytest.fixture
def members(monkeypatch: pytest.MonkeyPatch) -> list[Member]:
    """Who is said to be there."""
    found: list[Member] = []

    async def read(_: object) -> list[Member]:
        return found

    monkeypatch.setattr(own_keys, "read_members", read)
    return found


async def test_the_first_process_makes_its_keys_once(tmp_path: Path, members: list[Member]) -> None:
    await ensure_keys(config(tmp_path), ALL)
    made = (tmp_path / "flipback.key").read_bytes()
    await ensure_keys(config(tmp_path), ALL)
    assert (tmp_path / "flipback.key").read_bytes() == made


@pytest.mark.parametrize(
    "other", [beat(), beat(roles={"monitor": "active"}, accepts=[]), beat(roles={"executor": "standby"}, signs=None)]
)
async def test_no_second_pair_is_made_beside_who_signs_or_checks(
    tmp_path: Path, members: list[Member], other: Heartbeat
) -> None:
    members.append(Member(other, 1.0))
    with pytest.raises(KeyFileError, match=r"one \(pid 7\) is alive.*same keys.*kafka\.prefix") as refused:
        await ensure_keys(config(tmp_path), ALL)
    assert refused.value.exit_code == 3
    assert not (tmp_path / "flipback.key").exists()


@pytest.mark.parametrize(
    "other",
    [Member(beat(), AWAY_AFTER + 1), Member(beat(roles={"ingest": "active"}, signs=None, accepts=[]), 1.0)],
    ids=["away", "without keys"],
)
async def test_who_is_away_or_has_no_part_in_commands_is_no_reason(
    tmp_path: Path, members: list[Member], other: Member
) -> None:
    members.append(other)
    await ensure_keys(config(tmp_path), ALL)
    assert (tmp_path / "flipback.key").exists()


@pytest.mark.parametrize(
    ("roles", "keys"), [(("monitor",), {}), (ALL, {"signing_key": "k"}), (ALL, {"public_keys": ["p"]})]
)
async def test_where_keys_are_given_or_roles_are_parted_none_are_made(
    tmp_path: Path, members: list[Member], roles: tuple[str, ...], keys: dict[str, Any]
) -> None:
    await ensure_keys(config(tmp_path, **keys), roles)
    assert not (tmp_path / "flipback.key").exists()
