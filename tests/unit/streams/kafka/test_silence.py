"""A role whose brokers do not answer is reported, and a message about many partitions fits in a line."""

from __future__ import annotations

import pytest

from streams.condition import shortened
from streams.kafka.app import new_app
from streams.kafka.connection import Connection
from streams.kafka.liveness import silence
from streams.kafka.reading import Reading


def silence_after(seconds: float | None, session_timeout: float = 6.0) -> str | None:
    reading = Reading(answered_at=None if seconds is None else 100.0)
    app = new_app("g", Connection(("127.0.0.1:1",), session_timeout=session_timeout), reading, buffer=1)
    return silence(app, 100.0 + (seconds or 0))


@pytest.mark.parametrize(
    ("seconds", "said"), [(None, None), (9.0, None), (10.0, None), (23.4, "no answer from the brokers for 23 s")]
)
def test_brokers_that_do_not_answer_are_told_of(seconds: float | None, said: str | None) -> None:
    assert silence_after(seconds) == said


def test_heartbeats_of_a_long_session_are_waited_for() -> None:
    # A session timeout with a heartbeat every 20 s.
    assert silence_after(30, session_timeout=120) is None
    assert silence_after(41, session_timeout=120) is not None


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, ""), (1, "p0"), (3, "p0, p1, p2"), (4, "p0, p1, p2 and 1 more"), (64, "p0, p1, p2 and 61 more")],
)
def test_many_names_are_the_first_three_and_a_number(count: int, expected: str) -> None:
    assert shortened([f"p{number}" for number in range(count)]) == expected
