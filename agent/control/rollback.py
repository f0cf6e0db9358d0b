"""A person's rollback: the same command, checks, ledger and audit log as a trigger's, without a trigger.

A person's order goes before the agent's rules: neither the cooldown nor the limits nor a halt nor shadow mode stops it.
Each flag gets an incident of its own, so that a flag that somebody turned on again can be rolled back again, whatever
happened to the other flags of its group.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.armed.group import of_roles
from agent.backends.contract import BackendHealth, FlagBackend, FlagRef
from agent.commands.command import BY_HAND, Command, Evidence, FlipTarget, issue, sign
from agent.commands.keys import PrivateKey, load_private
from agent.config.flags import Flag
from agent.config.kafka import connection
from agent.config.load import rules_hash
from agent.config.model import Config
from agent.deployment.outside import read_members
from agent.errors import BackendError, FlipbackError, MalformedEvent
from agent.events import cloudevents as events
from agent.events.cloudevents import Event, from_kafka
from agent.executor.build import make_backends, make_executor, open_ledger
from agent.executor.generations import watch_from
from agent.executor.result import ExecutionResult
from agent.executor.unforeseen import foreseen
from agent.state.flags import FlagStatus
from agent.state.state_tables import StateTables
from streams.kafka.reader import read_to_end, read_topic
from streams.kafka.topics import Topics, describe
from streams.kafka.writer import send

WAIT_S = 30.0
"""Seconds to wait for an executor to publish the outcome of a command that was sent through Kafka."""

DIRECT_WHERE = "where the executor's state directory is"

_HEALTH_S = 2.0
"""Seconds for a health check of the backend during a direct rollback."""

_LOOK_BACK_S = 60.0
"""Seconds before now from which events are read, because the executor's clock may be behind this one."""

FINAL = {
    events.FLAG_VERIFIED,
    events.FLAG_UNVERIFIED,
    events.FLAG_ALREADY,
    events.FLAG_CONFLICT,
    events.FLAG_NOT_WRITTEN,
    events.FLAG_UNRESOLVED,
    events.COMMAND_REJECTED,
}
"""Types of the last event of a command."""


def order(config: Config, flag: Flag, status: FlagStatus, *, reason: str, by: str) -> Command:
    """Make a person's command for the version of the flag in `status`."""
    now = time.time()
    evidence = Evidence(
        metric=BY_HAND,
        scope=f"{flag.environment}/{flag.service}",
        window=(now, now),
        op=BY_HAND,
        threshold=0.0,
        value=0.0,
        samples=0,
        counts={},
        sources=0,
        age_s=0.0,
        first_true_at=now,
        fired_at=now,
        by=by,
        reason=reason,
    )
    return issue(
        FlipTarget(flag.flag, flag.environment, flag.service, flag.backend, flag.safe),
        trigger=BY_HAND,
        flag_version=status.version,
        issued_at=now,
        rules_hash=rules_hash(config),
        evidence=evidence,
        lifetime_s=config.command.expires,
    )


async def direct(
    config: Config, flags: Sequence[Flag], *, reason: str, by: str
) -> AsyncIterator[tuple[Flag, ExecutionResult | BackendError, BackendHealth]]:
    """Make each flag safe from this process, without Kafka and without a running agent. One failure stops no other.

    Yields each flag with its result and a health report of its backend: problems that may keep applications from seeing
    the flip. The write does not wait for that report. Raises ConfigError and LedgerError if no flip can be begun.
    """
    key = PrivateKey(Ed25519PrivateKey.generate())
    ledger = open_ledger(config)
    backends = make_backends(config, {flag.backend for flag in flags})
    executor = make_executor(config, ledger, watch_from(ledger), backends, [key.public], emit=None)
    try:
        for flag in flags:
            # Started before the write, because the write hides a hard link to a flagd file; awaited after it.
            health = asyncio.create_task(_health(backends[flag.backend], flag))
            try:
                status = await executor.read_flag(flag.flag, flag.environment)
            except BackendError as error:
                health.cancel()
                yield flag, error, BackendHealth(())
                continue
            result = await executor.execute(sign(order(config, flag, status, reason=reason, by=by), key))
            yield flag, result, await health
    finally:
        executor.close()
        await asyncio.gather(*(backend.close() for backend in backends.values()))


async def _health(backend: FlagBackend, flag: Flag) -> BackendHealth:
    ref = FlagRef(flag.flag, flag.environment)
    try:
        with foreseen(flag.backend):
            return await backend.health([(ref, flag.safe)], deadline=time.monotonic() + _HEALTH_S)
    except BackendError as error:
        return BackendHealth((f"its health is not known: {error}",))


async def by_kafka(
    config: Config,
    flags: Sequence[Flag],
    *,
    reason: str,
    by: str,
    step: Callable[[Event], None],
    sent: Callable[[float], None],
    nobody: Callable[[str], None],
) -> dict[FlagRef, tuple[FlagStatus, Event | None]]:
    """Send a signed command for each flag, and wait until an executor has published the outcome of all of them.

    `step` is called with each event of the commands, `sent` with the time at which they expire (Unix seconds), and
    `nobody` with the reason if heartbeats say that no executor would receive them. Returns, for each flag, its status
    before the commands and its last event; that is None if none arrived within WAIT_S.

    Raises KeyFileError without the signing key, TopicError without brokers, and FlipbackError if no executor has
    published the version of a flag.
    """
    key, topics, client = load_private(config.signing_key), Topics(config.kafka.prefix), connection(config).client
    await describe([topics.flags, topics.commands, topics.events], client)
    tables = StateTables()
    for record in await read_to_end(topics.flags, client):
        tables.flag(record.value)
    before = {FlagRef(flag.flag, flag.environment): _published(tables.flags, flag) for flag in flags}
    # The same order given a moment ago has the same id; its events are no answer to this one.
    since = time.time() - _LOOK_BACK_S
    seen = {event.id for record in await read_to_end(topics.events, client, since=since) if (event := _event(record))}
    # Commands expire, so nothing is read between making them and sending them.
    made = [
        order(config, flag, status, reason=reason, by=by) for flag, status in zip(flags, before.values(), strict=True)
    ]
    commands = {command.id: command for command in made}
    records = [(f"{command.environment}/{command.flag}".encode(), sign(command, key)) for command in made]
    await send(topics.commands, records, client)
    sent(max(command.expires_at for command in made))
    last: dict[str, Event] = {}
    # After the send: heartbeats may be wrong, and an executor that starts in time still executes the commands.
    checking = asyncio.create_task(_check_executors(config, nobody))
    try:
        async with asyncio.timeout(WAIT_S):
            await _follow(topics.events, client, commands, seen, last, step)
    except TimeoutError:
        pass
    finally:
        checking.cancel()
        await asyncio.gather(checking, return_exceptions=True)
    return {ref: (status, last.get(command.id)) for (ref, status), command in zip(before.items(), made, strict=True)}


async def _check_executors(config: Config, nobody: Callable[[str], None]) -> None:
    """Call `nobody` with the reason if heartbeats say that no executor would receive a command."""
    members = await read_members(config)
    for obstacle in of_roles(members or ()):
        # None: the heartbeats could not be read, which does not mean that no executor is alive.
        if members is not None and obstacle.what == "executor":
            nobody(obstacle.why)


async def _follow(
    topic: str,
    client: dict[str, object],
    commands: Mapping[str, Command],
    seen: set[str],
    last: dict[str, Event],
    step: Callable[[Event], None],
) -> None:
    """Read events until each of the commands has its last one, without the events in `seen`."""
    async with aclosing(read_topic(topic, client, since=time.time() - _LOOK_BACK_S)) as reads:
        async for read in reads:
            for record in read.records:
                event = _event(record)
                name = "" if event is None else str(event.data.get("command_id"))
                if event is not None and name in commands and event.id not in seen:
                    seen.add(event.id)
                    last[name] = event
                    step(event)
            if all(name in last and last[name].type in FINAL for name in commands):
                return


def _event(record: Any) -> Event | None:
    try:
        return from_kafka(record.value, record.headers)
    except MalformedEvent:
        return None


def _published(statuses: Mapping[tuple[str, str], FlagStatus], flag: Flag) -> FlagStatus:
    status = statuses.get((flag.environment, flag.flag))
    if status is None:
        raise FlipbackError(
            f"no executor has published the state of {flag.environment}/{flag.flag}; use --direct, {DIRECT_WHERE}"
        )
    return status
