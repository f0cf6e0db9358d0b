"""Logs: one line an event, valid JSON whatever the fields are, repeated lines once with their number."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.events import cloudevents as events
from agent.events.wording import log_line
from agent.logs.setup import (
    LIBRARY_INTERVAL,
    REPEAT_INTERVAL,
    HumanFormatter,
    JsonFormatter,
    LineHandler,
    configure,
    log_event,
)
from tests.unit.agent.executor.test_executor import command


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    logging.captureWarnings(False)
    root.setLevel(level)
    root.handlers[:] = handlers
    for name in ("faust", "mode", "aiokafka"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def record(name: str = "agent.x", message: str = "some.event", **fields: object) -> logging.LogRecord:
    made = logging.LogRecord(name, logging.INFO, __file__, 1, message, None, None)
    if fields:
        made.__dict__["fields"] = fields
    return made


def test_an_event_is_one_json_object_with_its_fields() -> None:
    stream = io.StringIO()
    configure(json=True, stream=stream)
    log_event(logging.getLogger("agent.monitor"), "verdict.changed", trigger="errors", value=0.031)
    (line,) = stream.getvalue().splitlines()
    got = json.loads(line)
    assert got.pop("time").endswith("Z")
    assert got == {
        "level": "info",
        "logger": "agent.monitor",
        "event": "verdict.changed",
        "trigger": "errors",
        "value": 0.031,
    }


def test_packages_below_write_events_with_plain_logging() -> None:
    stream = io.StringIO()
    configure(json=True, stream=stream)
    logging.getLogger("streams.monitor.merge").warning("partial.unreadable", extra={"fields": {"offset": 7}})
    got = json.loads(stream.getvalue())
    assert (got["event"], got["level"], got["offset"]) == ("partial.unreadable", "warning", 7)


def test_a_librarys_line_is_a_message_of_the_event_library() -> None:
    line = JsonFormatter().format(record("aiokafka.client", "Unable to connect"))
    got = json.loads(line)
    assert (got["event"], got["message"], got["logger"]) == ("library", "Unable to connect", "aiokafka.client")


def test_time_is_utc_with_milliseconds() -> None:
    made = record()
    made.created = 1_700_000_000.25
    assert json.loads(JsonFormatter().format(made))["time"] == "2023-11-14T22:13:20.250Z"


def test_an_error_inside_an_except_block_carries_its_traceback() -> None:
    stream = io.StringIO()
    configure(json=True, stream=stream)
    try:
        raise ValueError("wrong")
    except ValueError:
        log_event(logging.getLogger("agent.x"), "backend.failed", level=logging.ERROR)
    (line,) = stream.getvalue().splitlines()
    assert "ValueError: wrong" in json.loads(line)["traceback"]


def test_a_field_does_not_overwrite_the_head() -> None:
    got = json.loads(JsonFormatter().format(record(event="x", level="x", time="x", kept="y")))
    assert (got["event"], got["level"], got["kept"]) == ("some.event", "info", "y")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()) | st.integers(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(st.characters(), min_size=1), anything, max_size=4))
def test_whatever_the_fields_the_line_is_one_strict_json_object(fields: dict[str, object]) -> None:
    made = record()
    made.__dict__["fields"] = fields
    line = JsonFormatter().format(made)
    assert "\n" not in line

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    assert json.loads(line, parse_constant=refuse)["event"] == "some.event"


@given(
    st.dictionaries(st.text(st.characters(), min_size=1, max_size=5), anything, max_size=4), st.text(st.characters())
)
def test_a_human_line_is_one_printable_line(fields: dict[str, object], message: str) -> None:
    made = record()
    made.__dict__["fields"] = fields
    assert HumanFormatter().format(made).isprintable()
    assert HumanFormatter().format(record("aiokafka", message.replace("%", ""))).isprintable()


def test_numbers_of_numpy_are_numbers_and_no_number_is_null() -> None:
    line = JsonFormatter().format(record(count=np.int64(5), rate=np.float64(0.5), value=float("nan")))
    got = json.loads(line)
    assert (got["count"], got["rate"], got["value"]) == (5, 0.5, None)


def test_a_terminal_gets_short_lines_and_a_pipe_gets_json() -> None:
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        configure(stream=stream)
        log_event(logging.getLogger("agent.x"), "flag.flipped", flag="new recommendations", ms=12)
    assert terminal.getvalue().rstrip().endswith('INFO flag.flipped flag="new recommendations" ms=12')
    assert json.loads(pipe.getvalue())["flag"] == "new recommendations"


def test_the_last_configuration_counts() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure(stream=first)
    configure("warning", stream=second)
    log_event(logging.getLogger("agent.x"), "quiet")
    log_event(logging.getLogger("agent.x"), "loud", level=logging.WARNING)
    assert first.getvalue() == ""
    assert [json.loads(line)["event"] for line in second.getvalue().splitlines()] == ["loud"]


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="NOISY"):
        configure("noisy")


def test_libraries_say_only_warnings_and_above() -> None:
    stream = io.StringIO()
    configure("debug", json=True, stream=stream)
    for name in ("faust.app", "mode.services", "aiokafka.consumer"):
        logging.getLogger(name).info("[^-App]: Starting...")
        logging.getLogger(name).warning("careful")
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["careful"] * 3


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def handler(stream: io.StringIO, clock: Clock) -> LineHandler:
    handler = LineHandler(stream, clock)
    handler.setFormatter(JsonFormatter())
    return handler


def written(stream: io.StringIO) -> list[tuple[str, int]]:
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    return [(line.get("message", line["event"]), line.get("repeated", 0)) for line in lines]


@pytest.mark.parametrize(
    ("name", "message", "interval"),
    [("aiokafka", "Topic t not found, {} ms", LIBRARY_INTERVAL), ("agent.x", "some.event", REPEAT_INTERVAL)],
)
def test_a_flood_of_equal_lines_is_one_line_an_interval_and_none_is_forgotten(
    handler: LineHandler, stream: io.StringIO, clock: Clock, name: str, message: str, interval: float
) -> None:
    start = clock.now
    for tick in range(18_000):  # 100 lines a second for 180 s
        clock.now = start + tick / 100
        handler.handle(record(name, message.format(tick)))
    lines = written(stream)
    assert 180 / interval <= len(lines) <= 180 / interval + 1
    # The last of them is told when none has come for a while, though nothing else is logged.
    clock.now += REPEAT_INTERVAL
    handler.tell()
    *_, (_, last) = lines = written(stream)
    assert last > 0
    assert sum(repeated or 1 for _, repeated in lines) == 18_000
    clock.now += REPEAT_INTERVAL
    handler.tell()
    handler.handle(record(name, message.format(1)))
    assert [repeated for _, repeated in written(stream)[len(lines) :]] == [0]


def test_what_else_a_library_says_is_written_at_once_in_the_midst_of_a_flood(
    handler: LineHandler, stream: io.StringIO, clock: Clock
) -> None:
    for tick in range(3000):
        clock.now += 0.01
        handler.handle(record("aiokafka", "Topic t not found"))
        if tick == 1500:
            handler.handle(record("aiokafka", "Topic authorization failed for t"))
    assert [message for message, _ in written(stream)] == ["Topic t not found", "Topic authorization failed for t"]


def test_lines_of_a_library_that_name_different_things_are_all_written(
    handler: LineHandler, stream: io.StringIO
) -> None:
    for topic in ("a", "b"):
        handler.handle(record("aiokafka", f"Topic {topic} not found"))
    assert [message for message, _ in written(stream)] == ["Topic a not found", "Topic b not found"]


def test_events_that_differ_in_a_number_are_all_written(handler: LineHandler, stream: io.StringIO) -> None:
    for second in range(50):
        handler.handle(record(fields_second=second))
    assert len(written(stream)) == 50


def test_a_line_after_a_quiet_interval_is_written_as_the_first_was(
    handler: LineHandler, stream: io.StringIO, clock: Clock
) -> None:
    handler.handle(record())
    clock.now += REPEAT_INTERVAL
    handler.handle(record())
    assert written(stream) == [("some.event", 0)] * 2


def test_what_was_held_back_is_written_with_the_next_line_of_any_kind(
    handler: LineHandler, stream: io.StringIO, clock: Clock
) -> None:
    handler.handle(record(message="down"))
    handler.handle(record(message="down"))
    clock.now += REPEAT_INTERVAL
    handler.handle(record(message="up"))
    assert written(stream) == [("down", 0), ("down", 1), ("up", 0)]


def test_a_call_with_wrong_arguments_is_shown_and_does_not_raise(
    handler: LineHandler, capsys: pytest.CaptureFixture[str]
) -> None:
    handler.handle(logging.LogRecord("aiokafka", logging.INFO, __file__, 1, "%d of %d", (1,), None))
    assert "not enough arguments" in capsys.readouterr().err


def test_on_a_terminal_an_event_is_one_sentence_without_the_command_in_it() -> None:
    stream = Terminal()
    configure(stream=stream, words=log_line)
    made = msgspec.to_builtins(command())
    log_event(
        logging.getLogger("agent.runtime.worker"),
        events.COMMAND_RECEIVED,
        subject="production/new-checkout",
        flag="new-checkout",
        target="off",
        trigger="errors",
        command=made,
    )
    (line,) = stream.getvalue().splitlines()
    assert line[13:] == "INFO production/new-checkout: command: set new-checkout to 'off', because of errors"


def test_on_a_terminal_fields_are_short_and_in_json_they_are_whole() -> None:
    long = "x" * 5000
    assert len(HumanFormatter().format(record(raw=long, command={"id": 1}))) < 500
    assert "command" not in HumanFormatter().format(record(command={"id": 1}))
    assert long in JsonFormatter().format(record(raw=long))


def test_colour_follows_the_level_and_is_left_out_where_nobody_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for wanted in (True, False):
        stream = Terminal()
        if not wanted:
            monkeypatch.setenv("NO_COLOR", "1")
        configure(stream=stream)
        log_event(logging.getLogger("agent.runtime.worker"), "run.failed", level=logging.ERROR)
        log_event(logging.getLogger("agent.runtime.worker"), "run.ready")
        error, info = stream.getvalue().splitlines()
        assert ("\x1b[31m" in error) is wanted
        assert "ERROR" in error
        assert "\x1b" not in info
