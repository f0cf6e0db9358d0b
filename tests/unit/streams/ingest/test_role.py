"""The ingest role continues to count, whatever happens to the records that it rejects."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest
from faust.exceptions import ProducerSendError

from streams.clock import Clock
from streams.decoders.watch_list import WatchList
from streams.ingest.role import IngestRole, IngestSettings
from streams.kafka.connection import Connection
from streams.kafka.outbox import Record
from streams.kafka.reading import Delivery, Position
from streams.kafka.topics import Topics
from streams.slices import Slice, Source

SOURCE = Source("requests", 0)
VALUES = (b"no sample", b'{"ts": 1700000000.5, "service": "cart", "status": 200}')


class Producer:
    """A producer whose topics take no record."""

    async def send(self, *_: object) -> None:
        raise ProducerSendError("TopicAuthorizationFailedError")


class Stream:
    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    async def events(self) -> AsyncIterator[SimpleNamespace]:
        yield SimpleNamespace(value=self._delivery)


async def test_a_rejected_topic_that_takes_no_records_stops_no_counting(monkeypatch: pytest.MonkeyPatch) -> None:
    published: list[Record] = []
    role = IngestRole(
        Connection(("localhost:1",)),
        Topics(),
        IngestSettings(
            formats={"requests": "json"}, watch=WatchList.of([]), max_scopes=10, max_lateness=2.0, lookback=60.0
        ),
        partitions={"requests": 1, Topics().partials: 1},
        clock=Clock(),
        publish=published.append,
    )
    monkeypatch.setattr(type(role.app), "producer", Producer(), raising=False)
    role.ingest._positions[SOURCE] = Position(epoch=1)  # type: ignore[index]
    role.ingest.assign({SOURCE: 0})
    whole = Slice(SOURCE, list(VALUES), [0, 1], [1_700_000_000_500] * 2, {})
    await role._take(Stream(Delivery(whole, 0, 2, 1)))
    (record,) = published
    assert (record.topic, record.value) == (Topics().rejected, VALUES[0])
    assert ("offset", b"0") in record.headers
    (counted,) = role.ingest.counts.telemetry()
    assert (counted.received, counted.rejected) == (2, 1)
