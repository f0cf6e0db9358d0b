"""After a flip on real Kafka: a service that obeys its flag recovers, and one that ignores its flag is announced."""

from __future__ import annotations

import asyncio
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from agent.after_flip.rules import PATIENCE
from agent.events import cloudevents as events
from agent.events.cloudevents import COMMAND_SHADOWED, Event
from agent.state.state_tables import StateTables
from streams.kafka.reader import read_to_end
from tests.support.telemetry import Telemetry, telemetry
from tests.support.worker import Deployment

WHEN = {
    "triggers": [{"name": "errors", "when": "error_rate@on > 20% over 6s for 4s", "min_samples": 30, "fast": False}]
}
FLAGS = [
    {"flag": "obeyed", "service": "cart", **WHEN},
    {"flag": "ignored", "service": "shop", **WHEN},
    {"flag": "shadowed", "service": "depot", "mode": "shadow", **WHEN},
]
# Flags without requests: so three flags that fail are less than half of the watched ones, which would be an outage.
IDLE = [{"flag": f"idle-{number}", "service": f"idle-{number}", **WHEN} for number in range(4)]
EFFECT_S = 6
SETTINGS = {"after_flip": {"effect": f"{EFFECT_S}s", "bake": "8s"}, "automation": {"max_share": 1}}
AFTER = {
    events.FLAG_EFFECTIVE,
    events.FLAG_INEFFECTIVE,
    events.FLAG_EFFECT_UNKNOWN,
    events.FLAG_RECOVERED,
    events.FLAG_NOT_RECOVERED,
    events.FLAG_RECOVERY_UNKNOWN,
}


async def shops(deployment: Deployment, source: Telemetry, stop: asyncio.Event, answer: dict[str, int]) -> None:
    """Send requests of all services, half of them with the variant "on", whose status is `answer["on"]`."""
    while not stop.is_set():
        # Only the cart obeys its flag; the others keep their requests with "on".
        obeyed = deployment.variant("obeyed")
        for service, flag, variant in (
            ("cart", "obeyed", obeyed),
            ("shop", "ignored", "on"),
            ("depot", "shadowed", "on"),
        ):
            for given in (variant, "off"):
                status = answer["on"] if given == "on" else 200
                partition = source.sent // 2 % 8
                await source.send(partition, service, instance=f"{service}-0", status=status, flags={flag: given})
        await asyncio.sleep(0.02)
    await source.flush()


async def said(deployment: Deployment, enough: Callable[[StateTables], bool]) -> StateTables:
    """Read the incidents topic until `enough` is true, and return its content."""
    async with asyncio.timeout(120):
        while True:
            known = StateTables()
            for record in await read_to_end(deployment.topics.incidents, deployment.client):
                known.incident(record.value)
            assert known.unreadable == 0
            if enough(known):
                return known
            await asyncio.sleep(0.2)


def after(found: list[Event]) -> Counter[tuple[str, str]]:
    """How many events after a flip there are, by flag and type."""
    return Counter((event.subject, event.type) for event in found if event.type in AFTER)


async def test_what_came_of_a_flip_is_said_once_even_by_a_worker_that_takes_over(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    deployment = Deployment(tmp_path, kafka, topic_prefix, [*FLAGS, *IDLE], settings=SETTINGS)
    await deployment.create_topics()
    stop, answer = asyncio.Event(), {"on": 200}
    try:
        worker = deployment.start()
        await deployment.ready(worker)
        async with telemetry(kafka, deployment.telemetry) as source, asyncio.TaskGroup() as group:
            group.create_task(shops(deployment, source, stop, answer))
            await said_ok(deployment)
            answer["on"] = 500
            await deployment.flipped("obeyed")
            await deployment.flipped("ignored")
            await said(deployment, lambda known: len([a for a in known.after_flips.values() if a.effect]) == 2)
            deployment.kill(worker)
            await deployment.ready(deployment.start())
            known = await said(deployment, lambda known: len([a for a in known.after_flips.values() if a.bake]) == 2)
            stop.set()
        found = await deployment.events()
        assert after(found) == {
            ("production/obeyed", events.FLAG_EFFECTIVE): 1,
            ("production/obeyed", events.FLAG_RECOVERED): 1,
            ("production/ignored", events.FLAG_INEFFECTIVE): 1,
            ("production/ignored", events.FLAG_NOT_RECOVERED): 1,
        }
        assert COMMAND_SHADOWED in {event.type for event in found}
        data = {event.type: event.data for event in found if event.type in AFTER}
        # `took_s` is in seconds of event time.
        assert 0 < data[events.FLAG_EFFECTIVE]["took_s"] <= EFFECT_S + PATIENCE
        assert data[events.FLAG_EFFECTIVE]["before_rps"] > 1
        ineffective = data[events.FLAG_INEFFECTIVE]
        assert ineffective["after_rps"] > ineffective["before_rps"] / 2
        assert ineffective["instances"] == ["shop-0"]
        assert data[events.FLAG_RECOVERED]["value"] == 0.0
        failed = data[events.FLAG_NOT_RECOVERED]
        assert failed["value"] == 1.0
        # At firing the window may still contain requests from before the fault.
        assert failed["verdict"] == ("worse" if failed["was"] < 1 else "no-better")
        assert {known.incidents[a.incident].flag for a in known.after_flips.values()} == {"obeyed", "ignored"}

        shown = await asyncio.to_thread(
            subprocess.run, deployment.flipback("status", "-c", str(deployment.config)), capture_output=True, text=True
        )
        (line,) = [line for line in shown.stdout.splitlines() if "production/obeyed/errors" in line]
        assert "turned back  effective  recovered" in line
        (line,) = [line for line in shown.stdout.splitlines() if "production/ignored/errors" in line]
        assert f"turned back  ineffective  not recovered: {failed['verdict']}  " in line
    finally:
        deployment.close()


async def said_ok(deployment: Deployment) -> None:
    """Wait until every trigger is ok, that is, until the windows have enough good requests."""
    async with asyncio.timeout(120):
        while True:
            found = await deployment.events()
            if len({e.subject for e in found if e.type == events.trigger_type("ok")}) == len(FLAGS):
                return
            await asyncio.sleep(0.2)
