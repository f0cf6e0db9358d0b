"""Records that cannot be counted are written to the rejected topic, with partition, offset and reason; all others
count."""

from __future__ import annotations

import asyncio
import json
import random
import time
from pathlib import Path
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer

from agent.events.cloudevents import TELEMETRY_REJECTED, Event, from_kafka
from streams.kafka.reader import read_to_end
from tests.support.telemetry import Telemetry, counted, telemetry
from tests.support.worker import Deployment

PARTITIONS = 3
FLAG = {
    "flag": "new",
    "service": "shop",
    "triggers": [{"name": "errors", "when": "error_rate > 50% for 1m", "min_samples": 30, "fast": False}],
}


class Bad(NamedTuple):
    """A record and how it must be rejected; `ahead` is added to the timestamp of the record."""

    value: bytes | None
    kind: str
    content_type: bytes | None = None
    ahead: float = 0.0
    rows: int = 1


def sample(**changes: Any) -> bytes:
    return json.dumps({"ts": time.time(), "service": "bad", **changes}).encode()


def bad_records() -> list[Bad]:
    now = time.time()
    rng = random.Random(5)
    whole = sample()
    return [
        Bad(None, "empty"),
        Bad(b"", "malformed"),
        Bad(b"null", "invalid"),
        Bad(b"7", "invalid"),
        Bad(b"{}", "invalid"),
        Bad(whole[:-1], "malformed"),
        Bad(whole + b"}", "malformed"),
        Bad(b"\xff\xfe\x00", "malformed"),
        Bad(b"[" * 100_000, "malformed"),
        *(Bad(b"{" + rng.randbytes(rng.randrange(200)), "malformed") for _ in range(20)),
        Bad(sample(ts="now"), "invalid"),
        Bad(sample(ts=now * 1000), "invalid"),
        Bad(sample(ts=1.0), "invalid"),
        Bad(b'{"ts": NaN, "service": "bad"}', "invalid"),
        Bad(sample(environment=7), "invalid"),
        Bad(sample(kind="started"), "invalid"),
        Bad(b'{"ts": 1e999, "service": "bad"}', "invalid"),
        Bad(sample(service=""), "invalid"),
        Bad(sample(service="x" * 300), "invalid"),
        Bad(sample(service="a\u0007b"), "invalid"),
        Bad(sample(n=0), "invalid"),
        Bad(sample(ts=now + 3600), "future", ahead=3600),
        # 5 MiB, which are a few thousand bytes when compressed.
        Bad(sample(route="x" * (5 << 20)), "oversized"),
        Bad(b"\x93\x01\x02\x03", "malformed", content_type=b"application/vnd.flipback.columnar+msgpack"),
        Bad(sample(), "invalid", content_type=b"application/vnd.flipback.counters+json"),
        Bad(b"\n".join([b"{", b"7", b""]), "malformed", content_type=b"application/x-ndjson", rows=2),
    ]


async def send(kafka: str, topic: str, source: Telemetry, records: list[Bad]) -> dict[tuple[int, int], Bad]:
    """Send the records, with good samples between them; returns the records by partition and offset."""
    sent = {}
    async with AIOKafkaProducer(
        bootstrap_servers=kafka, compression_type="gzip", max_request_size=8 << 20, max_batch_size=1
    ) as producer:
        for number, bad in enumerate(records):
            partition = number % PARTITIONS
            for _ in range(5):
                await source.send(partition, "shop", flags={"new": "on"})
            await source.flush()
            headers = [] if bad.content_type is None else [("content-type", bad.content_type)]
            stamp = int((time.time() + bad.ahead) * 1000)
            # aiokafka does not send a tombstone without a key.
            key = b"k" if bad.value is None else None
            meta = await producer.send_and_wait(
                topic, bad.value, key, partition=partition, timestamp_ms=stamp, headers=headers
            )
            sent[partition, meta.offset] = bad
        for partition in range(PARTITIONS):
            await source.send(partition, "shop", flags={"new": "on"})
        await source.flush()
    return sent


async def first_warning(deployment: Deployment) -> Event:
    """Wait for the first event about rejected telemetry, and return it."""
    async with asyncio.timeout(120):
        while True:
            for record in await read_to_end(deployment.topics.events, deployment.client):
                event = from_kafka(record.value, record.headers)
                if event.type == TELEMETRY_REJECTED:
                    return event
            await asyncio.sleep(0.5)


async def test_every_bad_record_is_put_aside_with_its_place_and_reason_and_every_good_one_counts(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    deployment = Deployment(tmp_path, kafka, topic_prefix, [FLAG], partitions=PARTITIONS)
    await deployment.create_topics()
    try:
        worker = deployment.start()
        await deployment.ready(worker)
        async with telemetry(kafka, deployment.telemetry) as source:
            sent = await send(kafka, deployment.telemetry, source, bad_records())
        async with asyncio.timeout(120):
            while counted(await deployment.health()) != dict(source.exact):
                await asyncio.sleep(0.3)
        rejected = await read_to_end(deployment.topics.rejected, deployment.client)
        found = {}
        for record in rejected:
            headers = dict(record.headers)
            assert headers["topic"].decode() == deployment.telemetry
            place = int(headers["partition"]), int(headers["offset"])
            assert place not in found, "a record was put aside twice"
            found[place] = record.value, headers
        assert set(found) == set(sent)
        said = {place: (headers["kind"].decode(), int(headers["rows"])) for place, (_, headers) in found.items()}
        wrong = {
            (bad.value or b"")[:60]: (said[place], (bad.kind, bad.rows), found[place][1]["reason"])
            for place, bad in sent.items()
            if said[place] != (bad.kind, bad.rows)
        }
        assert wrong == {}
        for place, bad in sent.items():
            value, headers = found[place]
            assert headers["reason"]
            assert int(headers["bytes"]) == len(bad.value or b"")
            assert (bad.value or b"").startswith(value or b"")
        event = await first_warning(deployment)
        assert event.subject == deployment.telemetry
        assert 0 < event.data["rejected"] < event.data["received"]
        assert event.data["reason"]
        assert worker.poll() is None
    finally:
        deployment.close()
