"""Topics are read to their ends: several by one consumer, each from a given time; without an end, reading stops."""

from __future__ import annotations

import time
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from streams.errors import TopicError
from streams.kafka import reader as log
from streams.kafka.reader import read_all_to_end
from streams.kafka.topics import TopicSpec, create, describe

DAY_MS = 86_400_000
NOW = time.time()


@pytest.fixture
async def topics(kafka: str, topic_prefix: str) -> dict[str, str]:
    """Three topics of two partitions: `many` has ten records of an hour ago and ten of a second ago, `one` has one,
    `none` has none."""
    names = {name: f"{topic_prefix}{name}" for name in ("many", "one", "none")}
    specs = [TopicSpec(name, 2, DAY_MS, "a test") for name in names.values()]
    await create(specs, replication=1, connection={"bootstrap_servers": [kafka]})
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    try:
        for age in (3600.0, 1.0):
            for number in range(10):
                value, at = b"%d at %d" % (number, age), int(1000 * (NOW - age))
                await producer.send_and_wait(names["many"], value, partition=number % 2, timestamp_ms=at)
        await producer.send_and_wait(names["one"], b"x", partition=1)
    finally:
        await producer.stop()
    return names


async def test_one_consumer_reads_several_topics_each_from_its_own_time(
    kafka: str, topics: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[AIOKafkaConsumer] = []

    def consumer(**settings: Any) -> AIOKafkaConsumer:
        made.append(AIOKafkaConsumer(**settings))
        return made[-1]

    monkeypatch.setattr(log, "AIOKafkaConsumer", consumer)
    since = {topics["many"]: NOW - 60, topics["one"]: None, topics["none"]: NOW - 60}
    found = await read_all_to_end(since, {"bootstrap_servers": [kafka]})
    assert len(made) == 1
    values = {topic: sorted(record.value or b"" for record in records) for topic, records in found.items()}
    assert values == {
        topics["many"]: [b"%d at 1" % number for number in range(10)],
        topics["one"]: [b"x"],
        topics["none"]: [],
    }
    whole = await read_all_to_end({topics["many"]: None}, {"bootstrap_servers": [kafka]})
    for partition in (0, 1):
        offsets = [record.offset for record in whole[topics["many"]] if record.partition == partition]
        assert offsets == list(range(10))


async def test_an_end_that_is_not_reached_is_given_up_with_the_names_of_the_topics(
    kafka: str, topics: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "_NOTHING_FOR", 0.5)
    monkeypatch.setattr(log, "_at_end", lambda *_: False)
    with pytest.raises(TopicError, match=f"{topics['none']}: nothing came for"):
        await read_all_to_end({topics["none"]: None}, {"bootstrap_servers": [kafka]})


async def test_an_optional_topic_that_is_missing_is_left_out_and_another_is_an_error(
    kafka: str, topics: dict[str, str]
) -> None:
    client = {"bootstrap_servers": [kafka]}
    assert await describe([topics["one"]], client, optional=[topics["many"], "not-there"]) == {
        topics["one"]: 2,
        topics["many"]: 2,
    }
    with pytest.raises(TopicError, match="no topic not-there"):
        await describe([topics["one"], "not-there"], client)
