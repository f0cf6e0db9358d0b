"""What is not read is a problem of the roles that work for it, is announced, and ends a process that cannot mend it."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka.coordinator.protocol import ConsumerProtocol
from aiokafka.errors import GroupCoordinatorNotAvailableError

from agent.telemetry.topic_watch import ANNOUNCED_AFTER, EVERY, HOPELESS_AFTER, Problems, Sizes
from streams.kafka.coverage import Group, TopicCoverage, read_coverage
from streams.slices import Source

PARTIALS = "flipback.partials"
INGEST, MONITOR = Group("flipback-ingest", ("requests",)), Group("flipback-monitor", (PARTIALS,))
WELL = TopicCoverage((), {INGEST.name: (), MONITOR.name: ()})


def problems(made: bool = True) -> Problems:
    return Problems({"ingest": INGEST, "monitor": MONITOR}, frozenset({"requests"}), made)


def unread(*partitions: int) -> TopicCoverage:
    return TopicCoverage((), {INGEST.name: (), MONITOR.name: tuple(Source(PARTIALS, p) for p in partitions)})


def test_before_the_first_look_nobody_is_known_to_have_the_partitions() -> None:
    found = problems()
    assert not found.covered("monitor")
    found.observe(WELL, 0.0)
    assert found.covered("monitor")
    assert found.of("monitor", 100.0) == []


def test_a_process_without_a_partition_is_no_standby_where_nobody_has_them() -> None:
    found = problems()
    found.observe(unread(0, 1, 2, 3, 4), 0.0)
    assert not found.covered("monitor")
    assert found.covered("ingest")
    assert found.of("monitor", 1.0) == [], "a rebalance passes"
    found.observe(unread(0, 1, 2, 3, 4), EVERY)
    (reason,) = found.of("monitor", EVERY)
    assert "no process reads flipback.partials/0, flipback.partials/1, flipback.partials/2 and 2 more" in reason
    assert found.of("ingest", EVERY) == []


def test_partitions_that_nobody_reads_are_announced_and_end_the_process() -> None:
    found = problems()
    found.observe(unread(0), 0.0)
    assert found.due(0.0) == []
    found.observe(unread(0, 1), ANNOUNCED_AFTER)
    assert [subject for subject, _ in found.due(ANNOUNCED_AFTER)] == [MONITOR.name]
    assert found.due(ANNOUNCED_AFTER + EVERY) == [], "once"
    assert found.hopeless(HOPELESS_AFTER - 1) is None
    assert "no process reads" in (found.hopeless(HOPELESS_AFTER) or "")
    found.observe(WELL, HOPELESS_AFTER)
    assert found.due(HOPELESS_AFTER) == [(MONITOR.name, "")]
    assert found.hopeless(HOPELESS_AFTER) is None


def test_a_rebalance_begins_the_time_anew_and_is_not_announced() -> None:
    found = problems()
    for at in range(0, 60, 10):
        found.observe(unread(0), at)
        found.observe(WELL, at + 5)
        assert found.due(at + 5) == []
    assert found.hopeless(60) is None


def test_a_telemetry_topic_that_is_gone_is_said_by_its_name_and_ends_no_process() -> None:
    found = problems()
    gone = TopicCoverage(("requests",), WELL.unread)
    found.observe(gone, 0.0)
    assert not found.covered("ingest")
    assert found.of("ingest", 0.0) == ["topic requests is not there: create it, and it is read within about 10 s"]
    assert found.of("monitor", 0.0) == []
    found.observe(gone, 60.0)
    assert [subject for subject, _ in found.due(60.0)] == ["requests"]
    assert found.hopeless(60.0) is None, "a restart would not make it"


@pytest.mark.parametrize(("made", "do"), [(True, "it is made anew"), (False, "flipback topics create")])
def test_a_topic_of_flipback_that_is_gone_concerns_every_role(made: bool, do: str) -> None:
    found = problems(made)
    found.observe(TopicCoverage((PARTIALS,), WELL.unread), 0.0)
    assert not found.covered("monitor")
    assert [subject for subject, _ in found.due(0.0)] == [PARTIALS]
    for role in found.groups:
        (reason,) = found.of(role, 0.0)
        assert f"topic {PARTIALS} is not there" in reason
        assert do in reason


def test_partitions_that_a_role_has_and_does_not_work_on_are_its_problem() -> None:
    found = problems()
    found.observe(WELL, 0.0, {"monitor": "monitor: flipback.partials/3 is assigned, and not worked on for 10 s"})
    assert not found.covered("monitor")
    assert found.of("monitor", EVERY) == ["monitor: flipback.partials/3 is assigned, and not worked on for 10 s"]


class Admin:
    """A broker with the topic `requests` of three partitions, and a group whose member has two of them."""

    def __init__(self, error: int = 0) -> None:
        self.error = error

    async def _send_request(self, request: Any) -> Any:
        assert not request._allow_auto_topic_creation
        there = {"error_code": 0, "topic": "requests", "partitions": [{}, {}, {}]}
        gone = {"error_code": 3, "topic": PARTIALS, "partitions": []}
        return type("Answer", (), {"to_object": lambda self: {"topics": [there, gone]}})()

    async def describe_consumer_groups(self, groups: list[str]) -> list[Any]:
        given = ConsumerProtocol.ASSIGNMENT(0, [("requests", [0, 2])], b"").encode()
        members = [("m", "client", "host", b"", given), ("standby", "client", "host", b"", b"")]
        group = (self.error, groups[0], "Stable", "consumer", "roundrobin", members)
        return [type("Answer", (), {"groups": [group]})()]


async def test_the_brokers_word_on_topics_and_members_is_read() -> None:
    seen = await read_coverage(Admin(), ["requests", PARTIALS], [INGEST, MONITOR])
    assert seen.missing == (PARTIALS,)
    assert seen.unread == {INGEST.name: (Source("requests", 1),), MONITOR.name: ()}


async def test_a_group_that_cannot_be_described_is_no_group_without_members() -> None:
    with pytest.raises(GroupCoordinatorNotAvailableError):
        await read_coverage(Admin(error=15), ["requests", PARTIALS], [INGEST])


def test_what_this_process_reads_is_read_although_the_broker_shows_no_member() -> None:
    seen = TopicCoverage((), {"flipback-executor": (Source("flipback.commands", 0), Source("flipback.commands", 1))})
    left = seen.without({Source("flipback.commands", 0)})
    assert left == TopicCoverage((), {"flipback-executor": (Source("flipback.commands", 1),)})


def test_a_number_of_partitions_is_believed_when_two_looks_in_a_row_have_found_it() -> None:
    sizes = Sizes()
    assert sizes.observe({"requests": 8}) == {}
    assert sizes.observe({"requests": 8, "other": 1}) == {"requests": 8}
    # A broker that has not heard of the new partitions yet.
    assert sizes.observe({"requests": 4, "other": 1}) == {"other": 1}
    assert sizes.observe({"requests": 8}) == {}
    # Made anew: it is not there meanwhile.
    assert sizes.observe({}) == {}
    assert sizes.observe({"requests": 4}) == {}
    assert sizes.observe({"requests": 4}) == {"requests": 4}
