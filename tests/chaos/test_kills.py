"""Workers are killed at random times: every second is still counted exactly once, and an incident flips once."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

from agent.events.cloudevents import FLAG_VERIFIED
from tests.support.telemetry import Telemetry, counted, telemetry
from tests.support.worker import Deployment

SAMPLES = 200_000
SECONDS = 75
KILLS = 20
SERVICES = 40
BROKEN, WELL = "s0", "s1"

_TRIGGER = {"name": "errors", "when": "error_rate@on > 20% over 10s for 10s", "min_samples": 30, "fast": False}


async def test_kills_and_rebalances_change_no_count_and_an_incident_flips_once(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    deployment = Deployment(
        tmp_path,
        kafka,
        topic_prefix,
        [
            {"flag": "bad", "service": BROKEN, "triggers": [_TRIGGER]},
            {"flag": "good", "service": WELL, "triggers": [_TRIGGER]},
        ],
        # A long lateness, because broker and workers share a busy machine; this test is about counts, not delays.
        settings={"max_lateness": "8s"},
    )
    await deployment.create_topics()
    rng = random.Random(7)
    try:
        await deployment.ready(deployment.start())
        async with telemetry(kafka, deployment.telemetry) as source:
            async with asyncio.timeout(SECONDS + 120):
                await asyncio.gather(_produce(source, deployment), _disturb(deployment, rng))
            await source.flush()
        deadline = time.monotonic() + 120
        while True:
            frames = await deployment.health()
            found = counted(frames)
            if found == dict(source.exact) or time.monotonic() > deadline:
                break
            await asyncio.sleep(1)
        assert source.sent >= SAMPLES
        assert {key: (n, found.get(key)) for key, n in source.exact.items() if found.get(key) != n} == {}
        assert set(found) <= set(source.exact)
        assert counted(frames, "errors") == dict(source.errors)
        assert (deployment.variant("bad"), deployment.variant("good")) == ("off", "on")
        flips = {event.id: event for event in await deployment.events() if event.type == FLAG_VERIFIED}
        assert [event.data["flag"] for event in flips.values()] == ["bad"]
    finally:
        deployment.close()


async def _produce(source: Telemetry, deployment: Deployment) -> None:
    """Send SAMPLES in SECONDS, and go on at that rate until the flip."""
    rng = random.Random(1)
    begun = time.monotonic()
    while source.sent < SAMPLES or deployment.variant("bad") == "on":
        elapsed = time.monotonic() - begun
        for _ in range(int(elapsed * SAMPLES / SECONDS) - source.sent):
            service = f"s{rng.randrange(SERVICES)}"
            variant = rng.choice(["on", "off"])
            broken = service == BROKEN and variant == "on" and elapsed > SECONDS / 3
            flags = {BROKEN: {"bad": variant}, WELL: {"good": variant}}.get(service, {})
            status = 500 if broken and rng.random() < 0.8 else 200
            await source.send(rng.randrange(8), service, status=status, latency_ms=5.0, flags=flags)
        # 90 samples at once: a Kafka request for every few would cost more than all else.
        await asyncio.sleep(1 / 30)


async def _disturb(deployment: Deployment, rng: random.Random) -> None:
    """Kill the first worker repeatedly; meanwhile two others join and leave."""
    pause = SECONDS * 0.9 / KILLS
    first = deployment.workers[0]
    others = []
    for kill in range(KILLS):
        await asyncio.sleep(rng.uniform(0.5, 1.5) * pause)
        if kill in (KILLS // 4, KILLS // 2):
            others.append(deployment.start())
        if kill in (KILLS * 5 // 8, KILLS * 7 // 8) and others:
            leaving = others.pop(0)
            leaving.terminate()
            while leaving.poll() is None:
                await asyncio.sleep(0.05)
        deployment.kill(first)
        first = deployment.start()
    await deployment.ready(first)
