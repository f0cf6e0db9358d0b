"""How several processes share the tests (`pytest -n 4`): which tests run in the same process, and in which order."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest
from pathlib import PurePath
from typing import Any

import pytest

WAITING = ("tests/integration", "tests/chaos", "tests/e2e")
"""Folders of tests that mostly wait for processes; each of these tests goes to any free process."""

BROKERS = (
    "tests/chaos/test_three_brokers.py",
    "tests/integration/test_frozen_broker.py",
    "tests/integration/test_kafka_node.py",
)
"""Files of tests that start their own brokers, 170 MB each at first; in one process, at most three live at once."""

APART = ("tests/oracle/test_promtool.py",)
"""Files of tests that compute for long and share no fixtures."""


def scope(nodeid: str) -> str:
    """The scope of a test: tests of one scope run in the same process.

    Usually it is the file, which shares fixtures. All tests that need Unleash are one scope; each test that mostly
    waits is its own.
    """
    file = nodeid.partition("::")[0]
    if "unleash" in nodeid:
        return "unleash"
    if file in BROKERS:
        return "brokers"
    return nodeid if file in APART or str(PurePath(file).parent) in WAITING else file


def in_turn(nodeids: Iterable[str]) -> list[str]:
    """The tests in the order in which they are started, the same in every process.

    Scopes that wait and scopes that compute alternate, so that the processor is busy from the start. The waiting scopes
    of many tests, which take longest, come first. Of the scopes that compute there are more; the rest of them, none of
    which takes long, comes last.
    """
    scopes: dict[str, list[str]] = {}
    for nodeid in nodeids:
        scopes.setdefault(scope(nodeid), []).append(nodeid)
    waiting = sorted((tests for tests in scopes.values() if tests[0].startswith(WAITING)), key=len, reverse=True)
    others = [tests for tests in scopes.values() if not tests[0].startswith(WAITING)]
    return [nodeid for pair in zip_longest(waiting, others) for tests in pair for nodeid in tests or ()]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Distribute the scopes in the order of the tests."""
    # Imported here, because the tests also run without xdist.
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return scope(nodeid)

    config.option.loadscopereorder = False
    return Scheduling(config, log)
