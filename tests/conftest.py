"""Fixtures of all tests: a real Apache Kafka, a real Unleash, and topic names of one's own."""

from __future__ import annotations

import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, settings

from tests.clock import Clock, library
from tests.kafka import KafkaCluster, KafkaNode, KafkaUnavailable
from tests.unleash.server import UnleashServer, UnleashUnavailable, serving

# No test depends on how busy the machine is: an example of 200 ms is no failure beside a broker and seven other tests.
settings.register_profile("flipback", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("flipback")

UNTESTED = {
    "kafka": "delivery, recovery and flips on a real Apache Kafka",
    "unleash": "the flag backend on a real Unleash",
    "faketime": "steps of the wall clock",
}
"""What is not tested where a system is missing, by the marker of its tests."""

_unavailable = pytest.StashKey[dict[str, str]]()
_log = pytest.StashKey[str]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a real system, so that `-m kafka` and `-m "not kafka"` are always right."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if {"kafka", "kafka_node", "kafka_cluster"} & fixtures:
            item.add_marker("kafka")
        if "clock" in fixtures:
            item.add_marker("faketime")
        places = item.callspec.params.values() if hasattr(item, "callspec") else ()
        if "unleash" in fixtures or any(isinstance(place, str) and place == "unleash" for place in places):
            item.add_marker("unleash")


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bootstrap address `host:port` of an Apache Kafka: FLIPBACK_KAFKA's, else a node started for this session."""
    named = os.environ.get("FLIPBACK_KAFKA")
    if named:
        _check_answers(named)
        yield named
        return
    with _node(request, tmp_path_factory.mktemp("kafka")) as node:
        yield node.bootstrap


@pytest.fixture
def kafka_node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KafkaNode]:
    """An Apache Kafka of one test's own, to be killed and started again."""
    with _node(request, tmp_path / "kafka") as node:
        yield node


@pytest.fixture
def kafka_cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KafkaCluster]:
    """Three nodes of Apache Kafka of one test's own."""
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
def _node(request: pytest.FixtureRequest, directory: Path) -> Iterator[KafkaNode]:
    node = KafkaNode(directory)
    try:
        node.start()
    except KafkaUnavailable as error:
        _skip(request, "kafka", str(error), "; or name a broker: FLIPBACK_KAFKA=host:port")
    failures_before = request.session.testsfailed
    try:
        yield node
    finally:
        node.kill()
        shutil.rmtree(directory / "data", ignore_errors=True)
        if request.session.testsfailed > failures_before:
            request.config.stash[_log] = str(node.log)


@pytest.fixture
def clock(request: pytest.FixtureRequest, tmp_path: Path) -> Clock:
    """A wall clock to be stepped, for the processes that a test starts with it."""
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
    """Skip what needs a system that this machine cannot run; in continuous integration fail."""
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(f"CI must not skip the tests of {UNTESTED[marker]}: {reason}{advice}", pytrace=False)
    request.config.stash.setdefault(_unavailable, {})[marker] = reason
    pytest.skip(f"{reason}{advice}")


@pytest.fixture
def topic_prefix() -> str:
    """A prefix for the topics and groups of one test, so that tests share a broker without meeting."""
    return f"t{uuid.uuid4().hex[:12]}."


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say in a line each what was not tested, or where the log of the broker is."""
    for marker, reason in config.stash.get(_unavailable, {}).items():
        skipped = sum(marker in report.keywords for report in terminalreporter.stats.get("skipped", ()))
        tests = "1 test" if skipped == 1 else f"{skipped} tests"
        terminalreporter.write_line(f"NOT TESTED: {tests} of {UNTESTED[marker]}: {reason}", red=True, bold=True)
    log = config.stash.get(_log, None)
    if log is not None:
        terminalreporter.write_line(f"The broker's log: {log}", yellow=True)


def _check_answers(bootstrap: str) -> None:
    host, _, port = bootstrap.split(",")[0].rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        pytest.fail(f"FLIPBACK_KAFKA={bootstrap} does not answer: {error}", pytrace=False)
