"""A rollback through Kafka that nobody will carry out says so before it waits, and is sent all the same."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agent.commands.keys import generate
from agent.config.load import load
from agent.control import rollback
from agent.heartbeats.heartbeat import AWAY_AFTER, Heartbeat, Member
from agent.state.flags import FlagStatus
from streams.errors import TopicError
from tests.unit.agent.armed.test_verdict import beat, standby
from tests.unit.agent.cli.test_keys_and_restore import CONFIG

MONITOR = beat("m", roles={"monitor": "active"}, accepts=[])


class Brokers:
    """Brokers that take every record, of whose heartbeats `members` is known."""

    def __init__(self, patch: pytest.MonkeyPatch, members: list[Member] | Exception | None) -> None:
        self.steps: list[str] = []
        self.members = members
        self.read_at = self.sent_at = 0.0
        patch.setattr(rollback, "WAIT_S", 0.2)
        patch.setattr(rollback, "describe", self._nothing)
        patch.setattr(rollback, "read_to_end", self._nothing)
        patch.setattr(rollback, "_published", lambda *_: STATUS)
        patch.setattr(rollback, "_follow", self._silence)
        patch.setattr(rollback, "send", self._send)
        patch.setattr(rollback, "read_members", self._read)

    async def _nothing(self, *_: Any, **__: Any) -> list[Any]:
        self.read_at = time.time()
        return []

    async def _silence(self, *_: object) -> None:
        await asyncio.Event().wait()

    async def _send(self, *_: object) -> None:
        self.sent_at = time.time()
        self.steps.append("sent")

    async def _read(self, *_: object) -> list[Member] | None:
        if isinstance(self.members, Exception):
            raise self.members
        return self.members


STATUS = FlagStatus(flag="new-checkout", environment="production", variant="on", safe=False, version="g1-1", at=1.0)


def seen(*beats: Heartbeat, age: float = 1.0) -> list[Member]:
    return [Member(one, age) for one in beats]


@pytest.mark.parametrize(
    ("members", "said"),
    [
        (seen(MONITOR), "no executor is alive"),
        ([], "no executor is alive"),
        ([*seen(MONITOR), *seen(beat("e"), age=AWAY_AFTER + 55)], "e (pid 7) was last heard 80 s ago"),
        (seen(standby("s")), "no executor is active"),
        (seen(beat("e")), None),
        # Heartbeats that cannot be read are no proof that nobody is there.
        (None, None),
        (TopicError("no answer"), None),
    ],
)
async def test_that_no_executor_would_hear_of_it_is_said_when_it_was_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, members: list[Member] | Exception | None, said: str | None
) -> None:
    (tmp_path / "flipback.yaml").write_text(CONFIG)
    config = load(tmp_path / "flipback.yaml")
    generate(config.state_dir)
    brokers = Brokers(monkeypatch, members)
    order: Callable[..., Awaitable[Any]] = rollback.by_kafka
    expires: list[float] = []
    found = await order(
        config,
        config.flags,
        reason="r",
        by="ann",
        step=lambda _: None,
        sent=expires.append,
        nobody=brokers.steps.append,
    )
    assert [event for _, event in found.values()] == [None]
    sent, *words = brokers.steps
    assert sent == "sent"
    assert [said in word for word in words if said] == ([True] if said else [])
    assert len(words) == (0 if said is None else 1)
    # All of its time is left when it is sent, however long what is read before has taken.
    (end,) = expires
    assert brokers.read_at <= end - config.command.expires <= brokers.sent_at
