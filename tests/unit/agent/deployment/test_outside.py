"""What a command line sees of a deployment: that nobody judges has one reason where no monitor is alive."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config.load import load
from agent.deployment.outside import look
from agent.heartbeats.heartbeat import Member
from agent.views.status import Status
from tests.unit.agent.armed.test_verdict import beat
from tests.unit.agent.cli.test_keys_and_restore import CONFIG


@pytest.mark.parametrize(
    ("members", "judged"),
    [
        ([Member(beat("one"), 1.0)], ["no monitor has published verdicts"]),
        ([Member(beat("e", roles={"executor": "active"}), 1.0)], []),
        ([], []),
        # Heartbeats that cannot be read tell of no monitor, and hide nothing.
        (None, ["no monitor has published verdicts"]),
    ],
)
async def test_verdicts_that_are_missing_are_no_second_reason_where_no_monitor_is_alive(
    tmp_path: Path, members: list[Member] | None, judged: list[str]
) -> None:
    (tmp_path / "flipback.yaml").write_text(CONFIG)
    there = {"requests": 2, "flipback.partials": 2}
    status = Status(flags=[], incidents=[], partitions=2, members=members, topics=there)
    arming, _ = await look(load(tmp_path / "flipback.yaml"), status)
    assert not arming.armed
    found = [one.why for one in arming.obstacles if one.what == "verdicts"]
    assert [words in why for words, why in zip(judged, found, strict=True)] == [True] * len(judged)
