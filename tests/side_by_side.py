"""Which tests stay in one process where several processes run the suite (`pytest -n 4`)."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

import pytest

WAITING = ("tests/integration", "tests/chaos", "tests/e2e")
"""Folders of tests that wait for processes most of their time: each goes where there is room."""

ALONE = ("tests/chaos/test_three_brokers.py",)
"""Files among them whose tests would need too much memory side by side."""


def scope(nodeid: str) -> str:
    """What stays together: a file, for its fixtures; all that needs Unleash. A test that waits goes alone."""
    file = nodeid.partition("::")[0]
    if "unleash" in nodeid:
        return "unleash"
    if str(PurePath(file).parent) in WAITING and file not in ALONE:
        return nodeid
    return file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give out scopes in the order of the collection, in which those that take longest are first."""
    # Imported here, because the tests also run where it is not installed.
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return scope(nodeid)

    config.option.loadscopereorder = False
    return Scheduling(config, log)
