"""Records that are read at the start: no content of their topics prevents a process from starting."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import MalformedEvent
from agent.events.cloudevents import from_kafka
from agent.heartbeats.heartbeat import Members
from agent.state.state_tables import StateTables
from streams.errors import CheckpointError
from streams.monitor import checkpoint
from streams.monitor import healthy_rates as learnt
from streams.monitor.published import newest_judged
from streams.partials.decode import decode_all

DEEP = b"[" * 100_000 + b"]" * 100_000
GARBAGE = {
    "nothing": b"",
    "no text": b"\xff\xfe",
    "no object": b"[1, 2]",
    "null": b"null",
    "another version": b'{"version": 99, "shape": {"of": "another"}}',
    "deep": DEEP,
    "deep in a field": b'{"id": ' + DEEP + b"}",
    "deep in a field that nobody knows": b'{"time": 5, "later": ' + DEEP + b"}",
    "a number that is too large": b'{"time": 1' + b"0" * 400 + b"}",
    "another type": b'{"time": "soon", "flag": 7, "id": []}',
    "packed": zlib.compress(DEEP),
    "packed and deep": zlib.compress(b"\x91" * 100_000),
}


def _checkpoint(value: bytes) -> None:
    try:
        checkpoint.decode(value)
    except CheckpointError:
        return


def _event(value: bytes) -> None:
    headers = [("ce_specversion", b"1.0"), ("ce_time", b"2026-01-01T00:00:00Z"), ("ce_type", b"t")]
    try:
        from_kafka(value, [*headers, ("ce_subject", b"s"), ("ce_id", b"i")])
    except MalformedEvent:
        return


def _partial(value: bytes) -> None:
    decode_all([value])


READERS: dict[str, Callable[[bytes], object]] = {
    "incidents": lambda value: StateTables().incident(value),
    "flags": lambda value: StateTables().flag(value),
    "healthy": learnt.decode,
    "heartbeats": lambda value: Members().take(b"k", value),
    "checkpoints": _checkpoint,
    "events": _event,
    "partials": _partial,
    "health": lambda value: newest_judged(value, 2e9),
}


@pytest.mark.parametrize("topic", READERS)
@pytest.mark.parametrize("name", GARBAGE)
def test_a_record_that_cannot_be_read_is_left_out(topic: str, name: str) -> None:
    READERS[topic](GARBAGE[name])


@pytest.mark.parametrize("topic", READERS)
@given(value=st.binary(max_size=200) | st.text(max_size=50).map(str.encode))
def test_no_bytes_raise(topic: str, value: bytes) -> None:
    READERS[topic](value)


@pytest.mark.parametrize("name", GARBAGE)
def test_what_cannot_be_read_is_counted(name: str) -> None:
    known = StateTables()
    known.incident(GARBAGE[name])
    known.flag(GARBAGE[name])
    assert known.unreadable == 2
    assert (known.incidents, known.flags) == ({}, {})


def test_of_health_that_cannot_be_read_it_is_said_what_is_wrong() -> None:
    for name in set(GARBAGE) - {"nothing"}:
        time, wrong = newest_judged(GARBAGE[name], 2e9)
        assert time is None, name
        assert wrong, name
    assert newest_judged(msgspec.json.encode({"time": 5, "shapes": [[1]]}), 2e9) == (5, "")
