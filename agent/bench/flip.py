"""Measures the delay from a true condition to an acknowledged command, and from there to a verified flip.

200 flips are measured for each flag system. A command is acknowledged at `commanded_at` of its incident, which flipback
takes from its clock when the broker has answered; broker, traffic and flipback share one clock here. The condition is
true at evaluation t (`fired_at`), which is possible as soon as the watermark has passed t. While nothing waits to be
read, the watermark is 2 s behind the clock.
"""

from __future__ import annotations

import asyncio
import bisect
import random
import tempfile
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

from agent.bench.measures import Measure, spread
from agent.bench.process import MAX_LATENESS, Watched, configure, flipback
from agent.bench.systems import KINDS, kinds, system
from agent.errors import FlipbackError
from agent.events.cloudevents import FLAG_VERIFIED, from_kafka
from agent.state.incidents import Incident
from agent.state.state_tables import StateTables
from streams.bench.live import LiveTraffic
from streams.bench.load import BenchTopics, bench_topics
from streams.kafka.reader import read_to_end, read_topic

FLIPS = 200
FAIL_A_SECOND = 4
"""How many services begin to fail each second."""
RATE = 4.0
"""Requests a second of each service."""
TRIGGER = "error_rate > 20% over 10s for 2s"
WARM_UP = 12.0
_PATIENCE = 30.0
_WHERE = {"flagd-file": "one file; ", "unleash": "an Unleash server on the same machine; "}


def flip(kafka: str) -> Iterator[Measure]:
    """Measure `flipback run` in a separate process."""
    for kind in kinds():
        with tempfile.TemporaryDirectory(prefix="flipback-bench-") as directory:
            measures = asyncio.run(_flip(kafka, Path(directory), kind))
        # The delays before the flip are the same for all systems, so they are reported once.
        yield from measures if kind == KINDS[0] else measures[-1:]


def names() -> dict[str, str]:
    """The services and the flag of each."""
    return {f"service-{n:03}": f"release-{n:03}" for n in range(FLIPS)}


async def _flip(kafka: str, directory: Path, kind: str) -> list[Measure]:
    services = names()
    # At a random time within the second: a fixed one would always have the same distance to the next evaluation.
    generator = random.Random(20240501)  # noqa: S311 - no secret
    fails_at = {name: WARM_UP + (n + generator.random()) / FAIL_A_SECOND for n, name in enumerate(services)}
    async with bench_topics(kafka, 60) as topics, system(kind, list(services.values()), directory) as backend:
        traffic = LiveTraffic(topics.telemetry, services, RATE, fails_at)
        watched = [Watched(flag, name, [TRIGGER]) for name, flag in services.items()]
        config = configure(directory, topics, watched, backend=backend)
        async with flipback(config) as running:
            stop = asyncio.Event()
            sending = asyncio.create_task(traffic.run(topics.client, stop))
            try:
                async with asyncio.timeout(max(fails_at.values()) + _PATIENCE):
                    verified = await _verified(topics, sending)
            except TimeoutError:
                running.child.check()
                raise FlipbackError(f"bench: not all of {FLIPS} flags were flipped; see the events topic") from None
            finally:
                stop.set()
                await sending
        tables = StateTables()
        for record in await read_to_end(topics.own.incidents, topics.client):
            tables.incident(record.value)
        incidents = list(tables.incidents.values())
        commands = len(await read_to_end(topics.own.commands, topics.client))
    if commands != FLIPS or len(incidents) != FLIPS:
        raise FlipbackError(f"bench: {commands} commands and {len(incidents)} incidents, expected {FLIPS} of each")
    since_true = [1000 * (i.commanded_at - i.fired_at - MAX_LATENESS) for i in incidents]
    since_failed = [i.commanded_at - _last_failed(traffic, i) for i in incidents]
    flips = [1000 * (verified[i.command] - i.commanded_at) for i in incidents]
    shape = (
        f"flipback run with all roles in one process on Kafka, {FLIPS} flags and services, {FLIPS * RATE:.0f} "
        f"requests/s as single JSON records over 8 partitions, `{TRIGGER}`, {FAIL_A_SECOND} services a second begin "
        "to fail"
    )
    return [
        spread(
            "command_latency",
            since_true,
            "ms",
            f"condition true at the watermark (its evaluation time + max_lateness {MAX_LATENESS:.0f} s) to the "
            f"broker's acknowledgement of the command; {shape}",
        ),
        spread(
            "sample_to_command",
            since_failed,
            "s",
            f"last failed request in the window sent to command acknowledged, max_lateness {MAX_LATENESS:.0f} s and "
            f"up to 1 s until the next evaluation included; {shape}",
        ),
        spread(
            "flip_latency",
            flips,
            "ms",
            f"command acknowledged to flag written, read back and so verified; {FLIPS} flags in "
            + _WHERE.get(kind, "a fake of the system on loopback; ")
            + shape,
            backend=kind,
        ),
    ]


async def _verified(topics: BenchTopics, sending: asyncio.Task[None]) -> dict[str, float]:
    """When each command's flip was verified, in Unix seconds by the command's id; waits until all are."""
    found: dict[str, float] = {}
    async with aclosing(read_topic(topics.own.events, topics.client)) as reads:
        async for read in reads:
            for record in read.records:
                event = from_kafka(record.value, record.headers)
                if event.type == FLAG_VERIFIED:
                    found.setdefault(event.data["command_id"], event.time)
            if len(found) >= FLIPS:
                break
            if sending.done():
                await sending
    return found


def _last_failed(traffic: LiveTraffic, incident: Incident) -> float:
    """When the last failed request before the evaluation was sent."""
    times = traffic.failed[incident.service]
    return times[bisect.bisect_left(times, incident.fired_at) - 1]
