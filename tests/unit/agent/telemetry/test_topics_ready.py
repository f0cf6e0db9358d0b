"""The start makes flipback's own topics, and never one of telemetry: a slip in its name would be silence for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.config.load import load
from agent.telemetry import topics
from streams.errors import TopicError
from tests.unit.agent.cli.test_keys_and_restore import CONFIG


class Brokers:
    """The topics that there are."""

    def __init__(self, *names: str) -> None:
        self.names = set(names)

    async def topic_names(self, connection: dict[str, Any]) -> set[str]:
        return self.names


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (["request", "other", "__consumer_offsets", "flipback.flags"], "there are 'other', 'request'"),
        ([], "there is none of another name"),
    ],
)
async def test_a_missing_telemetry_topic_is_an_error_that_names_those_that_are_like_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: list[str], said: str
) -> None:
    (tmp_path / "flipback.yaml").write_text(CONFIG)
    monkeypatch.setattr(topics, "topic_names", Brokers(*there).topic_names)
    with pytest.raises(TopicError) as missing:
        await topics.there(load(tmp_path / "flipback.yaml"), {})
    assert "no telemetry topic 'requests'" in str(missing.value)
    assert said in str(missing.value)
    assert "flipback topics create" in str(missing.value)


async def test_where_it_is_there_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flipback.yaml").write_text(CONFIG)
    monkeypatch.setattr(topics, "topic_names", Brokers("requests").topic_names)
    await topics.there(load(tmp_path / "flipback.yaml"), {})
