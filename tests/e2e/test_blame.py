"""Outages without a release, two flags at once, an instance with false reports, a wrong clock: on a real Kafka.

The tests compare what flipback did, and why, with the output of `flipback explain`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agent.events.cloudevents import FLAG_VERIFIED, INABILITY, Event, trigger_type
from agent.events.wording import sentence
from agent.views.evidence_lines import evidence_lines
from agent.views.explain import explain
from tests.support.telemetry import Telemetry, telemetry
from tests.support.worker import Deployment

PATIENCE = 120.0
BUNDLE = 6
"""Requests that are sent at once: a Kafka request for each single one would cost more than all else."""
ERRORS = {"name": "errors", "when": "error_rate > 20% over 5s for 2s"}

Answer = Callable[[int, str], Mapping[str, Any]]
"""The fields of a sample, from its number and the variant that its request got."""


async def traffic(source: Telemetry, stop: asyncio.Event, service: str, flag: str, answer: Answer) -> None:
    """Send 100 requests/s, half of them with the flag's variant on."""
    number = 0
    while not stop.is_set():
        for variant in ("on", "off"):
            number += 1
            fields = dict(answer(number, variant))
            await source.send(number % 8, service, flags={flag: variant}, **fields)
        if number % BUNDLE == 0:
            await asyncio.sleep(BUNDLE / 100)


async def until(deployment: Deployment, found: Callable[[list[Event]], bool]) -> list[Event]:
    """Wait until `found` accepts the events; return all of them, each once."""
    async with asyncio.timeout(PATIENCE):
        while True:
            events = list({event.id: event for event in await deployment.events()}.values())
            if found(events):
                return events
            await asyncio.sleep(0.2)


def of(events: list[Event], kind: str, subject: str | None = None) -> list[Event]:
    return [event for event in events if event.type == kind and subject in (None, event.subject)]


def explained(events: list[Event], what: str) -> str:
    """Return the explanation as the command prints it, without times."""
    found = explain(events, what)
    evidence = list(evidence_lines(found.evidence)) if found.evidence is not None else []
    return "\n".join([*evidence, *map(sentence, found.events)])


def flag(name: str, service: str, *triggers: dict[str, Any]) -> dict[str, Any]:
    return {"flag": name, "service": service, "triggers": list(triggers or [ERRORS])}


async def test_an_outage_that_hits_both_variants_turns_no_flag_back(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    deployment = Deployment(tmp_path, kafka, topic_prefix, [flag("new", "shop")])
    await deployment.create_topics()
    stop, broken = asyncio.Event(), asyncio.Event()
    try:
        await deployment.ready(deployment.start())
        async with telemetry(kafka, deployment.telemetry) as source, asyncio.TaskGroup() as group:

            def answer(number: int, variant: str) -> dict[str, Any]:
                return {"status": 500 if broken.is_set() and number % 4 < 3 else 200}

            group.create_task(traffic(source, stop, "shop", "new", answer))
            await until(deployment, lambda events: bool(of(events, trigger_type("ok"))))
            broken.set()
            # The inability may be published before the verdict that led to it.
            events = await until(
                deployment,
                lambda events: bool(of(events, INABILITY, "production/new") and of(events, trigger_type("firing"))),
            )
            stop.set()
        assert deployment.variant("new") == "on"
        assert of(events, trigger_type("firing"))
        assert "the control breaches too: error_rate@off" in explained(events, "production/new")
    finally:
        deployment.close()


async def test_half_of_everything_failing_at_once_is_one_message_and_no_flip(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    # Without variants in the samples there is no control: only the number of ill flags shows the outage.
    services = [f"s{number}" for number in range(4)]
    slow = {"name": "errors", "when": "error_rate > 20% over 5s for 4s"}
    deployment = Deployment(tmp_path, kafka, topic_prefix, [flag(f"f-{name}", name, slow) for name in services])
    await deployment.create_topics()
    stop, broken = asyncio.Event(), asyncio.Event()

    async def send(source: Telemetry) -> None:
        while not stop.is_set():
            for name in services:
                await source.send(source.sent // 4 % 8, name, status=500 if broken.is_set() else 200)
            await asyncio.sleep(0.03)

    try:
        await deployment.ready(deployment.start())
        async with telemetry(kafka, deployment.telemetry) as source, asyncio.TaskGroup() as group:
            group.create_task(send(source))
            await until(deployment, lambda events: len(of(events, trigger_type("ok"))) == len(services))
            broken.set()
            events = await until(deployment, lambda events: bool(of(events, INABILITY, "automation")))
            stop.set()
        assert not of(events, FLAG_VERIFIED)
        (message,) = of(events, INABILITY, "automation")
        assert "watched flags are ill at once" in message.data["reason"]
        assert "watched flags are ill at once" in explained(events, "f-s0")
    finally:
        deployment.close()


async def test_of_two_flags_changed_at_once_the_one_proven_worse_is_turned_back_and_the_other_stays(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    settings = {"automation": {"max_share": 1.0}, "after_flip": {"effect": "5s", "bake": "10s"}}
    deployment = Deployment(
        tmp_path, kafka, topic_prefix, [flag("guilty", "shop"), flag("innocent", "shop")], settings=settings
    )
    await deployment.create_topics()
    stop, broken = asyncio.Event(), asyncio.Event()

    async def send(source: Telemetry) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            # The variants are independent. A request with guilty on fails, and half of these also have innocent on.
            guilty = "on" if number % 2 and deployment.variant("guilty") == "on" else "off"
            innocent = "on" if number // 2 % 2 else "off"
            status = 500 if broken.is_set() and guilty == "on" else 200
            await source.send(number % 8, "shop", status=status, flags={"guilty": guilty, "innocent": innocent})
            if number % BUNDLE == 0:
                await asyncio.sleep(BUNDLE / 100)

    try:
        await deployment.ready(deployment.start())
        async with telemetry(kafka, deployment.telemetry) as source, asyncio.TaskGroup() as group:
            group.create_task(send(source))
            await until(deployment, lambda events: len(of(events, trigger_type("ok"))) == 2)
            broken.set()
            await deployment.flipped("guilty")
            # The service has recovered: neither the old window nor the time that passes turns the other flag back.
            events = await until(deployment, lambda events: bool(of(events, "flipback.flag.recovered")))
            stop.set()
        assert deployment.variant("innocent") == "on"
        (verified,) = of(events, FLAG_VERIFIED)
        assert verified.subject == "production/guilty"
        held = [event.data["reason"] for event in of(events, INABILITY, "production/innocent")]
        # Both reasons are right: guilty has the stronger proof, and innocent's control fails as often as its new path.
        assert all("'guilty'" in reason or "the control breaches too" in reason for reason in held)
        assert "error_rate of production/shop was" in explained(events, verified.data["incident"])
    finally:
        deployment.close()


async def test_one_instance_of_ten_that_reports_only_errors_turns_nothing_back(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    low = {"name": "errors", "when": "error_rate > 5% over 5s for 2s"}
    deployment = Deployment(tmp_path, kafka, topic_prefix, [flag("new", "shop", low)])
    await deployment.create_topics()
    stop, lying = asyncio.Event(), asyncio.Event()

    def answer(number: int, variant: str) -> dict[str, Any]:
        liar = number % 10 == 0
        return {"status": 500 if liar and lying.is_set() else 200, "instance": f"pod-{number % 10}"}

    async def send(source: Telemetry) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            fields = answer(number, "on")
            await source.send(number % 8, "shop", **fields)
            if number % BUNDLE == 0:
                await asyncio.sleep(BUNDLE / 100)

    try:
        await deployment.ready(deployment.start())
        async with telemetry(kafka, deployment.telemetry) as source, asyncio.TaskGroup() as group:
            group.create_task(send(source))
            await until(deployment, lambda events: bool(of(events, trigger_type("ok"))))
            lying.set()
            events = await until(deployment, lambda events: bool(of(events, INABILITY, "production/new")))
            stop.set()
        assert deployment.variant("new") == "on"
        assert not of(events, FLAG_VERIFIED)
        assert "only instance 'pod-0' breaches" in explained(events, "new")
    finally:
        deployment.close()


async def test_a_clock_30_s_ahead_neither_hides_a_fault_nor_makes_one(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    deployment = Deployment(tmp_path, kafka, topic_prefix, [flag("new", "shop"), flag("calm", "search")])
    await deployment.create_topics()
    stop, broken = asyncio.Event(), asyncio.Event()

    async def send(source: Telemetry) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            # One of four instances has a wrong clock; the timestamps of the records are right.
            now = time.time()
            its = now + 30 if number % 4 == 0 else now
            for service in ("shop", "search"):
                status = 500 if service == "shop" and broken.is_set() and number % 3 else 200
                name = f"i-{number % 4}"
                await source.send(number % 8, service, ts=its, recorded=now, instance=name, status=status)
            if number % BUNDLE == 0:
                await asyncio.sleep(BUNDLE / 100)

    try:
        await deployment.ready(deployment.start())
        async with telemetry(kafka, deployment.telemetry) as source, asyncio.TaskGroup() as group:
            group.create_task(send(source))
            await until(deployment, lambda events: len(of(events, trigger_type("ok"))) == 2)
            broken.set()
            await deployment.flipped("new")
            events = await until(deployment, lambda events: bool(of(events, FLAG_VERIFIED)))
            stop.set()
        assert deployment.variant("calm") == "on"
        assert not of(events, trigger_type("firing"), "production/calm")
        assert "late" not in explained(events, of(events, FLAG_VERIFIED)[0].data["incident"])
    finally:
        deployment.close()
