"""Fixtures of all tests: a real Apache Kafka, a real Unleash, and a prefix for the topics of each test."""

from __future__ import annotations

import gc
import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, settings

from tests.support.clock import Clock, library
from tests.support.kafka import KafkaCluster, KafkaNode, KafkaUnavailable
from tests.support.side_by_side import in_turn, pytest_xdist_make_scheduler  # noqa: F401 - the second is a hook
from tests.support.together import together
from tests.support.unleash.server import UnleashServer, UnleashUnavailable, serving

# No test depends on how busy the machine is: a slow example is no failure.
settings.register_profile("flipback", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("flipback")

collect_ignore = ["mutation.py"]
"""Needs libraries that only the environment of `make mutants` has."""

UNTESTED = {
    "kafka": "delivery, recovery and flips on a real Apache Kafka",
    "unleash": "the flag backend on a real Unleash",
    "faketime": "steps of the wall clock",
}
"""What is not tested if a system is missing, by the marker of its tests."""

_last_lines = pytest.StashKey[dict[str, str]]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests that need a real system, so that `-m kafka` and `-m "not kafka"` are always right."""
    if _is_one_of_several(config):
        place = {nodeid: n for n, nodeid in enumerate(in_turn(item.nodeid for item in items))}
        items.sort(key=lambda item: place[item.nodeid])
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if {"kafka", "kafka_node", "kafka_cluster"} & fixtures:
            item.add_marker("kafka")
        if "clock" in fixtures:
            item.add_marker("faketime")
        places = item.callspec.params.values() if hasattr(item, "callspec") else ()
        if "unleash" in fixtures or any(isinstance(place, str) and place == "unleash" for place in places):
            item.add_marker("unleash")


def pytest_collection_finish() -> None:
    """Take what the modules of all tests hold out of every later search for garbage, which finds none there."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address `host:port` of an Apache Kafka: that in FLIPBACK_KAFKA, else a node started for this run."""
    named = os.environ.get("FLIPBACK_KAFKA")
    if named:
        _check_answers(named)
        yield named
        return
    with ExitStack() as stack:
        try:
            node = stack.enter_context(together(_of_this_run(request.config, tmp_path_factory) / "kafka", _address))
        except KafkaUnavailable as error:
            _skip(request, "kafka", str(error), "; or name a broker: FLIPBACK_KAFKA=host:port")
        bootstrap, log = node.split(" ", 1)
        with _showing(log, request):
            yield bootstrap


@pytest.fixture
def kafka_node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KafkaNode]:
    """An Apache Kafka for one test, which may kill it and start it again."""
    try:
        with _node(tmp_path / "kafka") as node, _showing(str(node.log), request):
            yield node
    except KafkaUnavailable as error:
        _skip(request, "kafka", str(error))


@pytest.fixture
def kafka_cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KafkaCluster]:
    """Three nodes of Apache Kafka for one test."""
    cluster = KafkaCluster(tmp_path / "cluster")
    try:
        cluster.start()
        yield cluster
    except KafkaUnavailable as error:
        _skip(request, "kafka", str(error))
    finally:
        cluster.kill()
        shutil.rmtree(tmp_path / "cluster", ignore_errors=True)


@contextmanager
def _node(directory: Path) -> Iterator[KafkaNode]:
    node = KafkaNode(directory)
    node.start()
    try:
        yield node
    finally:
        node.kill()
        shutil.rmtree(directory / "data", ignore_errors=True)


@contextmanager
def _address(directory: Path) -> Iterator[str]:
    with _node(directory) as node:
        yield f"{node.bootstrap} {node.log}"


@contextmanager
def _showing(log: str, request: pytest.FixtureRequest) -> Iterator[None]:
    """Print the path of the broker's log at the end of the run if a test fails during the block."""
    failures_before = request.session.testsfailed
    yield
    if request.session.testsfailed > failures_before:
        _summary(request.config)["log"] = log


@pytest.fixture
def clock(request: pytest.FixtureRequest, tmp_path: Path) -> Clock:
    """A wall clock that the test can step, for processes started with its environment."""
    found = library()
    if found is None:
        _skip(request, "faketime", "libfaketime is not installed")
    return Clock(found, tmp_path / "clock")


@pytest.fixture(scope="session")
def unleash(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[UnleashServer]:
    """An Unleash server, started for this session."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(serving(tmp_path_factory.mktemp("unleash")))
        except UnleashUnavailable as error:
            _skip(request, "unleash", str(error))
        yield server


@pytest.fixture(autouse=True)
def _unleash_where_marked(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("unleash") is not None:
        request.getfixturevalue("unleash")


def _skip(request: pytest.FixtureRequest, marker: str, reason: str, advice: str = "") -> NoReturn:
    """Skip a test that needs a system that this machine cannot run; in continuous integration fail it."""
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(f"CI must not skip the tests of {UNTESTED[marker]}: {reason}{advice}", pytrace=False)
    _summary(request.config)[marker] = reason
    pytest.skip(f"{reason}{advice}")


@pytest.fixture
def topic_prefix() -> str:
    """A prefix for the topics and groups of one test, so that tests can share a broker."""
    return f"t{uuid.uuid4().hex[:12]}."


def _summary(config: pytest.Config) -> dict[str, str]:
    """The content of the last lines: why tests were skipped, by their marker, and the path of the broker's log."""
    return config.stash.setdefault(_last_lines, {})


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["last_lines"] = _summary(session.config)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Collect the last lines of a worker process; one that crashed has none."""
    _summary(node.config).update(getattr(node, "workeroutput", {}).get("last_lines", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print a line for each group of tests that was skipped, and the path of the broker's log."""
    for marker, reason in _summary(config).items():
        if marker == "log":
            terminalreporter.write_line(f"The broker's log: {reason}", yellow=True)
            continue
        skipped = sum(marker in report.keywords for report in terminalreporter.stats.get("skipped", ()))
        tests = "1 test" if skipped == 1 else f"{skipped} tests"
        terminalreporter.write_line(f"NOT TESTED: {tests} of {UNTESTED[marker]}: {reason}", red=True, bold=True)


def _of_this_run(config: pytest.Config, directories: pytest.TempPathFactory) -> Path:
    """The temporary directory that all processes of this run share."""
    own = directories.getbasetemp()
    return own.parent if _is_one_of_several(config) else own


def _is_one_of_several(config: pytest.Config) -> bool:
    """Whether this is one of the processes that `pytest -n` starts."""
    return hasattr(config, "workerinput")


def _check_answers(bootstrap: str) -> None:
    host, _, port = bootstrap.split(",")[0].rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        pytest.fail(f"FLIPBACK_KAFKA={bootstrap} does not answer: {error}", pytrace=False)
