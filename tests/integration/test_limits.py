"""From telemetry to flags on real Kafka: a group is turned back together; a further flag exceeds the limit and halts
flipback, until a person resumes it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from agent.events import cloudevents as events
from tests.integration.test_by_hand import events_of, flipback
from tests.support.telemetry import Telemetry, telemetry
from tests.support.worker import Deployment

TRIGGERS = [{"name": "errors", "when": "error_rate > 20% over 6s for 6s"}]
FLAGS = [
    {"flag": "cart", "service": "cart", "together": ["prices"], "triggers": TRIGGERS},
    {"flag": "prices", "service": "prices", "triggers": TRIGGERS},
    {"flag": "search", "service": "search", "triggers": TRIGGERS},
]


async def traffic(source: Telemetry, stop: asyncio.Event, failing: set[str]) -> None:
    """Send requests of every service to all partitions; those of the services in `failing` fail."""
    while not stop.is_set():
        for partition in range(8):
            for service in ("cart", "prices", "search"):
                await source.send(partition, service, status=500 if service in failing else 200)
        await asyncio.sleep(0.05)
    await source.flush()


async def test_a_group_is_turned_back_and_the_next_flag_waits_for_a_person(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    limits = {"automation": {"max_flips": 2, "max_share": 1}, "command": {"expires": "120s"}}
    deployment = Deployment(tmp_path, kafka, topic_prefix, FLAGS, settings=limits)
    await deployment.create_topics()
    stop, failing = asyncio.Event(), {"cart"}
    try:
        await deployment.ready(deployment.start())
        async with telemetry(kafka, deployment.telemetry) as source, asyncio.TaskGroup() as group:
            group.create_task(traffic(source, stop, failing))
            (done,) = await events_of(deployment, events.INCIDENT_DONE)
            assert done.data["flags"] == {"cart": "applied", "prices": "applied"}
            assert done.data["partial"] is False
            assert [deployment.variant(name) for name in ("cart", "prices", "search")] == ["off", "off", "on"]

            failing |= {"search"}
            (halt,) = await events_of(deployment, events.AUTOMATION_HALTED)
            assert halt.data["flags"] == ["production/cart", "production/prices"]
            refused = await events_of(deployment, events.COMMAND_REJECTED)
            assert {event.data["reason"] for event in refused} == {"halted"}
            assert deployment.variant("search") == "on"
            # The halt, which prevents flips, is announced as an inability.
            inability = await events_of(deployment, events.INABILITY)
            assert any("halted by flipback" in event.data["reason"] for event in inability)

            assert (await flipback(deployment, "resume"))[0] == 0
            # The flag is turned back long before the rejected command expires.
            await deployment.flipped("search")
            stop.set()
    finally:
        deployment.close()
