"""A cluster of three loses one broker after the other: no record is lost, no verdict is wrong, an incident flips."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aiokafka import AIOKafkaProducer, TopicPartition

from agent.events.cloudevents import FLAG_VERIFIED
from tests.chaos.scene import FLAG, scene
from tests.support.kafka import KafkaCluster


async def _leaders(bootstrap: str, topic: str) -> dict[int, int]:
    """The node that leads each partition of a topic."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap.split(","))
    await producer.start()
    try:
        partitions = await producer.partitions_for(topic)
        return {p: producer.client.cluster.leader_for_partition(TopicPartition(topic, p)) for p in partitions}
    finally:
        await producer.stop()


async def test_each_of_three_brokers_is_started_again_in_the_middle_of_an_incident(
    kafka_cluster: KafkaCluster, topic_prefix: str, tmp_path: Path
) -> None:
    async with scene(tmp_path, kafka_cluster.bootstrap, topic_prefix, replication=3) as it:
        worker = it.deployment.start()
        await it.deployment.ready(worker)
        await it.until_ok()
        it.traffic.failing = 0.8
        for node in kafka_cluster.nodes:
            # A node keeps its storage, so records that two nodes acknowledged are replicated when it starts again.
            node.kill()
            await asyncio.sleep(2)
            await asyncio.to_thread(node.start)
        await it.flipped()
        await it.event_where(lambda event: event.type == FLAG_VERIFIED)
        assert worker.poll() is None
        assert it.witness.changes(FLAG) == ["on", "off"]


async def test_the_death_of_the_broker_that_leads_most_changes_no_verdict_of_a_service_that_is_well(
    kafka_cluster: KafkaCluster, topic_prefix: str, tmp_path: Path
) -> None:
    async with scene(tmp_path, kafka_cluster.bootstrap, topic_prefix, replication=3) as it:
        worker = it.deployment.start()
        await it.deployment.ready(worker)
        await it.until_ok()
        leads = list((await _leaders(kafka_cluster.bootstrap, it.deployment.telemetry)).values())
        victim = max(set(leads), key=leads.count)
        kafka_cluster.nodes[victim - 1].kill()
        before = len(await it.deployment.health())
        async with asyncio.timeout(120):
            # Verdicts go on without the broker: 40 more live ones.
            while sum(frame.status == "live" for frame in (await it.deployment.health())[before:]) < 40:
                await asyncio.sleep(0.5)
        assert not [event for event in await it.deployment.events() if event.type == "flipback.trigger.firing"]
        it.traffic.failing = 0.8
        await it.flipped()
        assert it.witness.changes(FLAG) == ["on", "off"]
