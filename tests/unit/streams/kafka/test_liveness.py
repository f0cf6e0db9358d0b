"""A role that has stopped reading, or ignores an assigned partition, is detected, so that the process ends."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from streams.kafka.liveness import STUCK_AFTER, UNOWNED_AFTER, Liveness
from streams.slices import Source

TPS = [TP("requests", p) for p in range(4)]


class Role:
    """An app with four partitions: `highwater` and the last offset that was read of each, and the role's `owned`."""

    def __init__(self) -> None:
        self.read: dict[TP, int | None] = dict.fromkeys(TPS, 99)
        self.highwater: dict[TP, int | None] = dict.fromkeys(TPS, 100)
        self.owned = {Source(*tp) for tp in TPS}
        self.answered_at: float | None = None
        consumer = SimpleNamespace(
            assignment=lambda: set(TPS), highwater=lambda tp: self.highwater[tp], _read_offset=self.read
        )
        app: Any = SimpleNamespace(
            consumer=consumer,
            reading=SimpleNamespace(answered_at=None),
            conf=SimpleNamespace(broker_heartbeat_interval=1.0),
        )
        self.app = app
        self.liveness = Liveness(app, "ingest", lambda: self.owned)


def test_a_role_that_has_read_all_is_not_stuck_however_long_nothing_comes() -> None:
    role = Role()
    assert all(role.liveness.stuck(float(now)) is None for now in range(0, 600, 10))


def test_a_role_of_which_records_wait_and_none_is_read_is_stuck() -> None:
    role = Role()
    assert role.liveness.stuck(0.0) is None
    role.highwater[TPS[1]] = 105
    assert role.liveness.stuck(1.0) is None
    assert role.liveness.stuck(STUCK_AFTER) is None
    reason = role.liveness.stuck(STUCK_AFTER + 1)
    assert reason is not None
    assert "ingest: 5 records wait in requests/1" in reason


def test_a_role_that_reads_slowly_is_not_stuck() -> None:
    role = Role()
    for tp in TPS:
        role.highwater[tp] = 10_000
    for now in range(0, 300, 20):
        role.read[TPS[0]] = 100 + now
        assert role.liveness.stuck(float(now)) is None


def test_a_partition_that_is_assigned_and_not_worked_on_is_said_after_10_s_and_ends_the_process_after_30() -> None:
    role = Role()
    role.owned -= {Source("requests", 2), Source("requests", 3)}
    assert role.liveness.unowned(0.0) is None
    assert role.liveness.unowned(UNOWNED_AFTER - 1) is None
    assert "requests/2, requests/3 is assigned to this process" in (role.liveness.unowned(UNOWNED_AFTER) or "")
    assert role.liveness.stuck(STUCK_AFTER - 1) is None
    assert "not worked on it for 30 s" in (role.liveness.stuck(STUCK_AFTER) or "")


def test_a_seek_that_ends_begins_the_time_anew() -> None:
    role = Role()
    whole = set(role.owned)
    for now in range(0, 200, 8):
        role.owned = whole if now % 16 else set()
        assert role.liveness.stuck(float(now)) is None


def test_without_the_brokers_word_no_partition_counts_as_not_worked_on() -> None:
    role = Role()
    role.owned = set()
    role.app.reading.answered_at = 0.0
    assert all(role.liveness.stuck(float(now)) is None for now in range(20, 300, 10))


@pytest.mark.parametrize("read", [None, 0])
def test_a_partition_that_was_never_read_is_not_said_to_wait(read: int | None) -> None:
    role = Role()
    role.read[TPS[0]] = read
    role.highwater[TPS[0]] = None
    assert role.liveness.waiting() == {}
