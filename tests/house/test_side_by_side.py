"""Tests that must run in one process, if several processes run the suite."""

from __future__ import annotations

import pytest

from tests.support.side_by_side import in_turn, scope


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("tests/house/test_wheel.py::test_a", "tests/house/test_wheel.py::test_b", True),
        ("tests/house/test_wheel.py::test_a", "tests/unit/agent/web/test_health.py::test_a", False),
        ("tests/integration/test_armed.py::test_a", "tests/integration/test_armed.py::test_b", False),
        ("tests/chaos/test_starts.py::test_a[0.7]", "tests/chaos/test_starts.py::test_a[1.5]", False),
        ("tests/oracle/test_promtool.py::test_a", "tests/oracle/test_promtool.py::test_b", False),
        ("tests/oracle/test_fake_remote_config_node.py::a", "tests/oracle/test_fake_remote_config_node.py::b", True),
        ("tests/chaos/test_three_brokers.py::test_a", "tests/integration/test_frozen_broker.py::test_b", True),
        ("tests/contract/test_backends.py::test_a[unleash]", "tests/integration/test_unleash.py::test_b", True),
        (
            "detectors/triggers/fast_triggers.py::detectors.triggers.fast_triggers",
            "detectors/triggers/fast_triggers.py::detectors.triggers.fast_triggers.Day",
            True,
        ),
    ],
)
def test_what_shares_a_fixture_or_needs_much_memory_stays_together(one: str, other: str, together: bool) -> None:
    assert (scope(one) == scope(other)) is together


def test_what_waits_and_what_computes_take_turns_and_no_test_is_lost() -> None:
    tests = [
        "detectors/triggers/fast_triggers.py::detectors.triggers.fast_triggers",
        "tests/chaos/test_sixteen_executors.py::test_a[unleash]",
        "tests/chaos/test_starts.py::test_a[0.7]",
        "tests/chaos/test_starts.py::test_a[1.5]",
        "tests/unit/test_a.py::test_a",
        "tests/contract/test_backends.py::test_a[rtdb]",
        "tests/contract/test_backends.py::test_a[unleash]",
        "tests/contract/test_backends.py::test_b[rtdb]",
        "tests/unit/test_z.py::test_a",
    ]
    assert in_turn(tests) == [
        "tests/chaos/test_sixteen_executors.py::test_a[unleash]",
        "tests/contract/test_backends.py::test_a[unleash]",
        "detectors/triggers/fast_triggers.py::detectors.triggers.fast_triggers",
        "tests/chaos/test_starts.py::test_a[0.7]",
        "tests/unit/test_a.py::test_a",
        "tests/chaos/test_starts.py::test_a[1.5]",
        "tests/contract/test_backends.py::test_a[rtdb]",
        "tests/contract/test_backends.py::test_b[rtdb]",
        "tests/unit/test_z.py::test_a",
    ]


def test_the_longest_wait_begins_first() -> None:
    tests = [
        "tests/chaos/test_starts.py::test_a[0.7]",
        "tests/chaos/test_three_brokers.py::test_a",
        "tests/integration/test_kafka_node.py::test_b",
    ]
    assert in_turn(tests) == [*tests[1:], tests[0]]
