"""An event is written to Kafka and read back unchanged; a record that is no event is refused with a reason."""

from __future__ import annotations

import uuid

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import MalformedEvent
from agent.events.cloudevents import (
    FLAG_WRITTEN,
    Event,
    Headers,
    event_id,
    from_kafka,
    subject_of,
    to_kafka,
    trigger_type,
)

EVENT = Event(
    type=FLAG_WRITTEN,
    subject=subject_of("production", "new-checkout"),
    data={"variant": "off", "version": "abc", "counts": [1, 2.5, None, True]},
    id=event_id("command-1", FLAG_WRITTEN, "0"),
    time=1_700_000_000.25,
)

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(
    data=st.dictionaries(st.text(), values, max_size=4),
    subject=st.text(min_size=1),
    # Later than the year 3000 microseconds are no longer exact in a float.
    time=st.integers(0, 2**35).map(lambda eighths: eighths / 8),
)
def test_an_event_comes_out_of_kafka_as_it_went_in(data: dict[str, object], subject: str, time: float) -> None:
    event = Event(type=trigger_type("firing"), subject=subject, data=data, id="i", time=time)
    key, value, headers = to_kafka(event)
    assert key == subject.encode()
    assert from_kafka(value, headers) == event
    recorded = msgspec.structs.replace(event, recorded=event.time + 2)
    _, value, headers = to_kafka(recorded)
    assert from_kafka(value, headers) == recorded


def test_a_record_is_what_the_binding_asks_for() -> None:
    key, value, headers = to_kafka(EVENT)
    assert key == b"production/new-checkout"
    assert dict(headers) == {
        "ce_specversion": b"1.0",
        "ce_id": EVENT.id.encode(),
        "ce_source": b"/flipback",
        "ce_type": b"flipback.flag.written",
        "ce_subject": b"production/new-checkout",
        "ce_time": b"2023-11-14T22:13:20.250000Z",
        "content-type": b"application/json",
    }
    assert value == b'{"variant":"off","version":"abc","counts":[1,2.5,null,true]}'


def test_the_same_step_has_the_same_id_and_another_step_another() -> None:
    assert event_id("c", "t", "0") == event_id("c", "t", "0")
    assert len({event_id("c", "t", "0"), event_id("c", "t", "1"), event_id("ct", "", "0"), event_id("c", "t0")}) == 4
    assert uuid.UUID(EVENT.id).version == 5


@pytest.mark.parametrize("missing", ["ce_specversion", "ce_id", "ce_type", "ce_subject", "ce_time"])
def test_a_record_without_a_required_header_is_named(missing: str) -> None:
    _, value, headers = to_kafka(EVENT)
    with pytest.raises(MalformedEvent, match=missing):
        from_kafka(value, [(name, content) for name, content in headers if name != missing])


@pytest.mark.parametrize("name", ["ce_specversion", "ce_time", "content-type"])
def test_a_record_of_another_kind_is_refused(name: str) -> None:
    _, value, headers = to_kafka(EVENT)
    with pytest.raises(MalformedEvent):
        from_kafka(value, [(key, b"2.0/other" if key == name else content) for key, content in headers])


def test_a_time_without_a_zone_is_refused() -> None:
    _, value, headers = to_kafka(EVENT)
    with pytest.raises(MalformedEvent, match="zone"):
        from_kafka(value, [(k, b"2023-11-14T22:13:20" if k == "ce_time" else content) for k, content in headers])


@given(value=st.none() | st.binary(max_size=50), content=st.binary(max_size=20), at=st.integers(0, 6))
def test_no_record_crashes_the_reader(value: bytes | None, content: bytes, at: int) -> None:
    headers: Headers = to_kafka(EVENT)[2]
    headers[at] = headers[at][0], content
    try:
        assert isinstance(from_kafka(value, headers), Event)
    except MalformedEvent as error:
        assert str(error)
