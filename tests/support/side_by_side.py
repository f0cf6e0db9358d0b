"""How several processes share the tests (`pytest -n 4`): what stays in one of them, and what is begun first."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest
from pathlib import PurePath
from typing import Any

import pytest

WAITING = ("tests/integration", "tests/chaos", "tests/e2e")
"""Folders of tests that wait for processes most of their time: each goes where there is room."""

BROKERS = (
    "tests/chaos/test_three_brokers.py",
    "tests/integration/test_frozen_broker.py",
    "tests/integration/test_kafka_node.py",
)
"""Files of tests with brokers of their own, 350 MB each, of which no more than three live at once."""

APART = ("tests/oracle/test_promtool.py",)
"""Files of tests that compute for long, 90 s together, and share nothing."""


def scope(nodeid: str) -> str:
    """What stays together: a file, for its fixtures, and all that needs Unleash. A test that waits is a scope alone."""
    file = nodeid.partition("::")[0]
    if "unleash" in nodeid:
        return "unleash"
    if file in BROKERS:
        return "brokers"
    return nodeid if file in APART or str(PurePath(file).parent) in WAITING else file


def in_turn(nodeids: Iterable[str]) -> list[str]:
    """The tests in the order in which they are given out, the same in every process.

    What waits and what computes alternate, so that the processor is busy from the beginning. The other files are last:
    there are more of them, and none takes long.
    """
    scopes: dict[str, list[str]] = {}
    for nodeid in nodeids:
        scopes.setdefault(scope(nodeid), []).append(nodeid)
    waiting = [tests for tests in scopes.values() if tests[0].startswith(WAITING)]
    others = [tests for tests in scopes.values() if not tests[0].startswith(WAITING)]
    return [nodeid for pair in zip_longest(waiting, others) for tests in pair for nodeid in tests or ()]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give out the scopes in the order of the tests."""
    # Imported here, because the tests also run where it is not installed.
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return scope(nodeid)

    config.option.loadscopereorder = False
    return Scheduling(config, log)
