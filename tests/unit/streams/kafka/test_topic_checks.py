"""A problem of an existing topic is reported with the setting that fixes it; unknown settings are not reported."""

from __future__ import annotations

import pytest

from streams.kafka.topic_checks import lacking
from streams.kafka.topics import Topics

TOPICS = Topics("flipback")
SPECS = {spec.name: spec for spec in TOPICS.specs(8, 600.0)}
HOUR = 3600.0


def said(settings: dict[str, dict[str, str]], lookback: float = 600.0, **partitions: int) -> list[str]:
    counts = {TOPICS.partials: 8, TOPICS.health: 8, TOPICS.checkpoints: 8, TOPICS.incidents: 1}
    counts |= {f"flipback.{name}": count for name, count in partitions.items()}
    return list(lacking(SPECS, TOPICS, lookback, counts, settings))


def kept(ms: str) -> dict[str, dict[str, str]]:
    return {TOPICS.partials: {"retention.ms": ms, "cleanup.policy": "delete"}}


def test_topics_as_they_were_made_lack_nothing() -> None:
    assert said({name: spec.config for name, spec in SPECS.items()}) == []


@pytest.mark.parametrize("ms", ["600000", "3600000", "-1"])
def test_partials_that_are_kept_as_long_as_triggers_look_back_are_enough(ms: str) -> None:
    assert said(kept(ms)) == []


def test_partials_that_are_kept_for_less_time_than_triggers_look_back_are_said_with_what_to_set() -> None:
    (reason,) = said(kept("3600000"), lookback=2 * HOUR)
    assert "topic flipback.partials keeps records for 3600 s, triggers look back 7200 s" in reason
    assert "set retention.ms to 7200000" in reason


def test_a_table_that_is_not_compacted_loses_what_it_holds() -> None:
    (reason,) = said({TOPICS.incidents: {"cleanup.policy": "delete"}})
    assert "flipback.incidents has cleanup.policy=delete" in reason


def test_health_and_checkpoints_need_as_many_partitions_as_the_partials() -> None:
    found = said({}, partials=12, checkpoints=12)
    assert found == [
        "topic flipback.health has 8 partitions, flipback.partials has 12: those beyond cannot be written; "
        "add partitions up to 12"
    ]


def test_nothing_is_said_of_settings_that_may_not_be_described() -> None:
    assert said({}) == []
