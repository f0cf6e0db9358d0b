"""Lines of libraries: what they try again by themselves pages nobody, what lasts does."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import aiokafka
import pytest
from aiokafka.errors import GroupCoordinatorNotAvailableError, NodeNotReadyError
from faust.transport.drivers import aiokafka as driver

from agent.logs.library_levels import RETRIED, STREAM_WATCH
from agent.logs.setup import LineHandler, configure


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    before = (
        logging.getLogger().level,
        [(name, logging.getLogger(name).level) for name in ("faust", "aiokafka", "mode")],
    )
    stream = io.StringIO()
    configure(json=True, stream=stream)
    yield stream
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, LineHandler):
            root.removeHandler(handler)
    root.setLevel(before[0])
    for name, level in before[1]:
        logging.getLogger(name).setLevel(level)


def levels(log: io.StringIO) -> list[str]:
    return [json.loads(line)["level"] for line in log.getvalue().splitlines()]


@pytest.mark.parametrize(
    "text",
    [
        driver.SLOW_PROCESSING_NO_COMMIT_SINCE_START,
        driver.SLOW_PROCESSING_STREAM_IDLE_SINCE_START,
        driver.SLOW_PROCESSING_NO_RECENT_COMMIT,
    ],
)
def test_fausts_look_at_its_streams_is_not_shown(log: io.StringIO, text: str) -> None:
    explained = f"[^--AIOKafkaConsumerThread]: {text} There are multiple possible explanations for this: 1) ..."
    logging.getLogger("faust.transport.drivers.aiokafka").error(explained, "TP", "1 m ago")
    logging.getLogger("faust.flipback").error(text, "TP", "1 m ago")
    assert levels(log) == []


def test_what_a_client_tries_again_is_a_warning(log: io.StringIO) -> None:
    coordinator = logging.getLogger("aiokafka.consumer.group_coordinator")
    coordinator.error("Group Coordinator Request failed: %s", GroupCoordinatorNotAvailableError())
    coordinator.error(
        "Error sending %s to node %s [%s] -- marking coordinator dead", "HeartbeatRequest", 1, NodeNotReadyError()
    )
    logging.getLogger("aiokafka").error('Unable connect to "%s:%s": %s', "kafka", 9092, ConnectionRefusedError(111))
    assert levels(log) == ["warning"] * 3


@pytest.mark.parametrize(
    ("name", "text", "arguments"),
    [
        ("aiokafka", 'Unable connect to "%s:%s": %s', ("kafka", 9092, "SaslAuthenticationFailed: wrong password")),
        ("aiokafka", "Unable connect to node with id %s: %s", (1, "[SSL: CERTIFICATE_VERIFY_FAILED] no")),
        ("aiokafka.cluster", "Topic %s is not authorized for this client", ("flipback.events",)),
        ("aiokafka.consumer.group_coordinator", "Unexpected error from SyncGroup: %s", ("what",)),
        ("faust.app.base", "[^-App]: Crashed reason=%r", (RuntimeError("no"),)),
        ("agent.runtime.worker", "Unable connect to", ()),
    ],
)
def test_what_no_waiting_mends_and_what_is_not_known_stays_an_error(
    log: io.StringIO, name: str, text: str, arguments: tuple[object, ...]
) -> None:
    logging.getLogger(name).error(text, *arguments)
    assert levels(log) == ["error"]


def test_every_text_is_one_that_the_library_writes_today() -> None:
    faust = Path(driver.__file__).read_text()
    assert [text for text in STREAM_WATCH if f"\n{text}" not in faust] == []
    kafka = "\n".join(path.read_text() for path in Path(aiokafka.__file__).parent.rglob("*.py"))
    assert [text for text in RETRIED if f'"{text}' not in kafka and f"'{text}" not in kafka] == []
