"""The Kafka node of the tests: it keeps its data when killed, as chaos tests need, and ends with the test run."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.support.kafka import KafkaNode


async def test_a_killed_node_starts_again_with_its_data(kafka_node: KafkaNode, topic_prefix: str) -> None:
    topic = topic_prefix + "kept"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_node.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=kafka_node.bootstrap) as producer:
        await producer.send_and_wait(topic, b"before")

    kafka_node.kill()
    assert not _answers(kafka_node.bootstrap)
    kafka_node.start()

    async with AIOKafkaConsumer(bootstrap_servers=kafka_node.bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        assert (await consumer.getone()).value == b"before"


def test_the_node_dies_with_the_process_that_started_it(kafka_node: KafkaNode, tmp_path: Path) -> None:
    script = (
        "import pathlib, sys, time; from tests.support.kafka import KafkaNode;"
        " node = KafkaNode(pathlib.Path(sys.argv[1]));"
        "node.start(); print(node.bootstrap, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "other")], stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        bootstrap = starter.stdout.readline().decode().strip()
        assert _answers(bootstrap)
        starter.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while _answers(bootstrap):
        assert time.monotonic() < deadline, "the node outlived the process that started it"
        time.sleep(0.02)


def _answers(bootstrap: str) -> bool:
    host, _, port = bootstrap.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=30).close()
    except ConnectionRefusedError:
        return False
    return True
