"""Part (d): a condition that is true to an acknowledged command, and that to a verified flip, 200 times a flag system.

The command is acknowledged at `commanded_at` of its incident, which flipback takes from its clock when the broker has
answered; broker, traffic and flipback share one clock here. The condition is true at evaluation t (`fired_at`), which
may be made as soon as the watermark, 2 s behind the clock where nothing waits to be read, has passed t.
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
from streams.bench.load import Place, place
from streams.kafka.reader import read_to_end, read_topic

FLIPS = 200
A_SECOND = 4
"""Services that begin to fail."""
RATE = 4.0
"""Requests a second of each service."""
TRIGGER = "error_rate > 20% over 10s for 2s"
WARM_UP = 12.0
_PATIENCE = 30.0
_WHERE = {"flagd-file": "one file; ", "unleash": "an Unleash server on the same machine; "}


def flip(kafka: str) -> Iterator[Measure]:
    """Measure against the real roles in a process of their own."""
    for kind in kinds():
        with tempfile.TemporaryDirectory(prefix="flipback-bench-") as directory:
            measures = asyncio.run(_flip(kafka, Path(directory), kind))
        # What comes before the flip is the same for all.
        yield from measures if kind == KINDS[0] else measures[-1:]


def names() -> dict[str, str]:
    """The services and the flag of each."""
    return {f"service-{n:03}": f"release-{n:03}" for n in range(FLIPS)}


async def _flip(kafka: str, directory: Path, kind: str) -> list[Measure]:
    services = names()
    # At random within the second: a fixed phase would measure one distance to the next evaluation only.
    chance = random.Random(20240501)  # noqa: S311 - no secret
    fails_at = {name: WARM_UP + (n + chance.random()) / A_SECOND for n, name in enumerate(services)}
    async with place(kafka, 60) as at, system(kind, list(services.values()), directory) as backend:
        traffic = LiveTraffic(at.telemetry, services, RATE, fails_at)
        watched = [Watched(flag, name, [TRIGGER]) for name, flag in services.items()]
        config = configure(directory, at, watched, backend=backend)
        async with flipback(config) as running:
            stop = asyncio.Event()
            sending = asyncio.create_task(traffic.run(at.client, stop))
            try:
                async with asyncio.timeout(max(fails_at.values()) + _PATIENCE):
                    verified = await _verified(at, sending)
            except TimeoutError:
                running.child.check()
                raise FlipbackError(f"bench: not all of {FLIPS} flags were flipped; see the events topic") from None
            finally:
                stop.set()
                await sending
        known = StateTables()
        for record in await read_to_end(at.topics.incidents, at.client):
            known.incident(record.value)
        incidents = list(known.incidents.values())
        commands = len(await read_to_end(at.topics.commands, at.client))
    if commands != FLIPS or len(incidents) != FLIPS:
        raise FlipbackError(f"bench: {commands} commands and {len(incidents)} incidents, expected {FLIPS} of each")
    ready = [1000 * (i.commanded_at - i.fired_at - MAX_LATENESS) for i in incidents]
    bad = [i.commanded_at - _last_bad(traffic, i) for i in incidents]
    flips = [1000 * (verified[i.command] - i.commanded_at) for i in incidents]
    shape = (
        f"flipback run with all roles in one process on Kafka, {FLIPS} flags and services, {FLIPS * RATE:.0f} "
        f"requests/s as single JSON records over 8 partitions, `{TRIGGER}`, {A_SECOND} services a second begin to fail"
    )
    return [
        spread(
            "command_latency",
            ready,
            "ms",
            f"condition true at the watermark (its evaluation time + max_lateness {MAX_LATENESS:.0f} s) to the "
            f"broker's acknowledgement of the command; {shape}",
        ),
        spread(
            "sample_to_command",
            bad,
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


async def _verified(at: Place, sending: asyncio.Task[None]) -> dict[str, float]:
    """When each command's flip was verified, in Unix seconds by the command's id; returns when all are."""
    found: dict[str, float] = {}
    async with aclosing(read_topic(at.topics.events, at.client)) as reads:
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


def _last_bad(traffic: LiveTraffic, incident: Incident) -> float:
    """When the last failed request before the evaluation was sent."""
    times = traffic.bad[incident.service]
    return times[bisect.bisect_left(times, incident.fired_at) - 1]
