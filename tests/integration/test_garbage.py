"""On real Kafka: a client that writes to the commands topic without the key cannot block real commands."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from agent.commands.command import sign
from agent.commands.keys import load_private, load_public
from agent.config.load import load
from agent.control.rollback import order
from agent.events import cloudevents as events
from agent.state.state_tables import StateTables
from streams.kafka.reader import read_to_end
from streams.kafka.topics import Topics
from tests.integration.test_by_hand import FLAG, events_of
from tests.support.worker import Deployment

FLOOD = 50_000


@pytest.mark.parametrize("kind", ["garbage", "forged"])
async def test_a_command_behind_a_flood_is_carried_out_while_it_is_valid_and_the_audit_log_stays_short(
    kafka: str, topic_prefix: str, tmp_path: Path, kind: str
) -> None:
    deployment = Deployment(tmp_path, kafka, topic_prefix, [FLAG])
    await deployment.create_topics()
    try:
        await deployment.ready(deployment.start())
        config = load(deployment.config)
        topics, known = Topics(config.kafka.prefix), StateTables()
        async with asyncio.timeout(120):
            while not known.flags:
                for record in await read_to_end(topics.flags, {"bootstrap_servers": kafka}):
                    known.flag(record.value)
        (status,) = known.flags.values()
        (public,) = config.public_keys
        head = b"FBC1" + bytes.fromhex(load_public(public).id) if kind == "forged" else b"garbage!"
        producer = AIOKafkaProducer(bootstrap_servers=kafka, linger_ms=20)
        await producer.start()
        try:
            for number in range(FLOOD):
                await producer.send(topics.commands, head + os.urandom(100) + b"%d" % number, partition=0)
            await producer.flush()
            raw = sign(
                order(config, config.flags[0], status, reason="real", by="ann"), load_private(config.signing_key)
            )
            await producer.send_and_wait(topics.commands, raw, partition=0)
        finally:
            await producer.stop()
        await deployment.flipped("bad")
        (verified,) = await events_of(deployment, events.FLAG_VERIFIED)
        assert verified.data["trigger"] == "by-hand"
        refused = [event for event in await deployment.events() if event.type == events.COMMAND_REJECTED]
        assert 0 < len(refused) < FLOOD / 100
    finally:
        deployment.close()
