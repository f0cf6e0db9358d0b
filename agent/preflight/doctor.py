"""`flipback doctor`: would a flip work now, and if not, what is missing.

It writes no flag. It makes reads and dry runs, and writes one file to the ledger's disk, which it removes.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field

from agent import backends
from agent.armed.verdict import of_telemetry, shadow_obstacle
from agent.armed.view import wanted as rules_of
from agent.backends.contract import BackendHealth, FlagBackend, FlagRef
from agent.config.flags import Flag
from agent.config.kafka import connection
from agent.config.model import Config
from agent.config.variants import unknown_variants
from agent.deployment.outside import look
from agent.errors import BackendError, ConfigError
from agent.executor.unforeseen import foreseen
from agent.heartbeats.heartbeat import Member, Obstacle, alive
from agent.ledger.identity import separate_ledgers
from agent.preflight.finding import Finding
from agent.preflight.machine import check_automation, check_keys, check_state
from agent.telemetry.look import TopicLook, look_at_telemetry
from agent.telemetry.topics import lacking, there, wanted
from agent.views.status import read_status
from streams.condition import shortened
from streams.errors import StreamsError
from streams.kafka.topics import describe

BUDGET_S = 5.0
"""Seconds for one backend: as many as a flip has."""


@dataclass(slots=True)
class _Found:
    """What has been found so far, so that each cause is reported once.

    `obstacles` has the `what` of each obstacle that was reported, `local` the details of what is wrong on this machine,
    `topics` the topics whose samples are bad, `safe` the flags that give their safe variant.
    """

    obstacles: set[str] = field(default_factory=set)
    local: set[str] = field(default_factory=set)
    topics: set[str] = field(default_factory=set)
    safe: set[FlagRef] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _DryRun:
    problems: tuple[str, ...]
    doubts: tuple[str, ...]
    took_ms: float


async def examine(config: Config, *, kafka: bool = True) -> AsyncIterator[Finding]:
    """Check keys, state directory, flags, brokers and running processes, and yield each finding as soon as it is made.

    If `kafka` is False, the checks that need brokers are left out.
    """
    found = _Found()
    state = check_state(config)
    halts = list(check_automation(config)) if state.ok else []
    found.obstacles |= {finding.what for finding in halts}
    found.local |= {finding.detail for finding in [state, *halts] if not finding.ok}
    for finding in [*check_keys(config), state, *halts]:
        yield finding
    for name, settings in config.backends.items():
        flags = [flag for flag in config.flags if flag.backend == name]
        try:
            backend = backends.make(settings)
        except ConfigError as error:
            yield Finding(what=f"backend {name}", ok=False, detail=str(error))
            continue
        try:
            async for finding in _backend(name, backend, flags, found):
                yield finding
        finally:
            await backend.close()
    shadow = shadow_obstacle(rules_of(config))
    if shadow is not None:
        found.obstacles.add(shadow.what)
        yield _finding(shadow)
    if kafka:
        brokers = await _brokers(config)
        yield brokers
        if brokers.ok:
            telemetry = [finding async for finding in _telemetry(config, found)]
            async for finding in _deployment(config, found):
                yield finding
            for finding in telemetry:
                yield finding


async def _backend(name: str, backend: FlagBackend, flags: list[Flag], found: _Found) -> AsyncIterator[Finding]:
    """Read each flag, then make a dry run of all flips. One error that several reads have in common is one finding."""
    distinct = list({FlagRef(flag.flag, flag.environment): flag.safe for flag in flags}.items())
    unread: dict[str, list[str]] = {}
    for ref, safe in distinct:
        what, start = f"{name}: {ref.environment}/{ref.flag}", time.monotonic()
        try:
            with foreseen(name):
                state = await backend.read(ref, deadline=start + BUDGET_S)
        except BackendError as error:
            unread.setdefault(str(error), []).append(f"{ref.environment}/{ref.flag}")
            continue
        if state.variant == safe:
            found.safe.add(ref)
        given = repr(state.variant) if state.variant is not None else "variants that differ or are not known"
        if state.percent is not None:
            given = f"a variant at {state.percent:g} %"
        yield Finding(what=what, ok=True, detail=f"gives {given}, safe is {safe!r}", took_ms=_since(start))
        for slip in unknown_variants([one for one in flags if (one.flag, one.environment) == ref], state.raw):
            yield Finding(what=what, ok=False, detail=slip)
    for problem, names in unread.items():
        yield Finding(what=f"{name}: {shortened(names)}", ok=False, detail=problem)
    dry = await _dry_run(name, backend, distinct)
    found.local |= {*unread, *dry.problems}
    for problem in dry.problems:
        if problem not in unread:
            yield Finding(what=f"{name}: dry run", ok=False, detail=problem, took_ms=dry.took_ms)
    for doubt in dry.doubts:
        yield Finding(what=f"{name}: to be looked at", ok=True, detail=doubt)
    if not dry.problems and not unread:
        flips = "1 flip" if len(distinct) == 1 else f"{len(distinct)} flips"
        yield Finding(what=f"{name}: dry run", ok=True, detail=f"{flips} would go through", took_ms=dry.took_ms)


async def _dry_run(name: str, backend: FlagBackend, flags: list[tuple[FlagRef, str]]) -> _DryRun:
    start = time.monotonic()
    try:
        with foreseen(name):
            health = await backend.health(flags, deadline=start + BUDGET_S)
    except BackendError as error:
        health = BackendHealth((str(error),))
    return _DryRun(health.problems, health.doubts, _since(start))


async def _brokers(config: Config) -> Finding:
    start = time.monotonic()
    names = [spec.name for spec in wanted(config)]
    try:
        async with asyncio.timeout(2 * BUDGET_S):
            client = connection(config).client
            await there(config, client)
            if lacks := await lacking(config, client):
                return Finding(what="kafka", ok=False, detail="; ".join(lacks), took_ms=_since(start), local=False)
            if config.kafka.create_topics:
                # Missing topics of flipback's own are no problem: the agent creates them when it starts.
                return Finding(what="kafka", ok=True, detail="answers", took_ms=_since(start), local=False)
            await describe(names, client)
    except (ConfigError, StreamsError) as error:
        return Finding(what="kafka", ok=False, detail=str(error), took_ms=_since(start), local=False)
    except TimeoutError:
        detail = f"no answer from {', '.join(config.kafka.brokers)} in {2 * BUDGET_S:.0f} s"
        return Finding(what="kafka", ok=False, detail=detail, took_ms=_since(start), local=False)
    answer = f"answers, {len(names)} topics are there"
    return Finding(what="kafka", ok=True, detail=answer, took_ms=_since(start), local=False)


async def _telemetry(config: Config, found: _Found) -> AsyncIterator[Finding]:
    """Check whether the newest samples have the fields that the triggers need."""
    start = time.monotonic()
    try:
        looks = await look_at_telemetry(config, found.safe)
    except StreamsError as error:
        looks = [TopicLook("telemetry", False, str(error))]
    for one in looks:
        if not one.ok and one.topic is not None:
            found.topics.add(one.topic)
        yield Finding(what=one.what, ok=one.ok, detail=one.detail, took_ms=_since(start), local=False)


async def _deployment(config: Config, found: _Found) -> AsyncIterator[Finding]:
    """Report what the running processes publish, as `flipback status` does, without what was `found` before."""
    start = time.monotonic()
    try:
        arming, members = await look(config, await read_status(config))
    except StreamsError as error:
        yield Finding(what="processes", ok=False, detail=str(error), took_ms=_since(start), local=False)
        return
    living = alive(members)
    if living:
        names = [f"{one.beat.name}, last heard {one.age:.0f} s ago" if one.quiet else one.beat.name for one in living]
        yield Finding(
            what="processes", ok=True, detail=f"alive: {shortened(names)}", took_ms=_since(start), local=False
        )
    separate = separate_ledgers(members)
    if separate is not None:
        yield Finding(what="executors: to be looked at", ok=True, detail=separate, local=False)
    samples = {one.bounded() for one in of_telemetry(rules_of(config), living) if one.what in found.topics}
    for obstacle in arming.obstacles:
        if (
            obstacle.what not in found.obstacles
            and obstacle not in samples
            and not _found_here(obstacle, living, found)
        ):
            yield _finding(obstacle)


def _found_here(obstacle: Obstacle, living: Collection[Member], found: _Found) -> bool:
    """Is it an obstacle of a process on this machine whose cause was found here too?

    Another machine has disks and permissions of its own, so its obstacles are always reported.
    """
    here = [one.beat.name for one in living if one.beat.host == socket.gethostname()]
    return any(f"({name})" in obstacle.why for name in here) and any(detail in obstacle.why for detail in found.local)


def _finding(obstacle: Obstacle) -> Finding:
    detail = f"{obstacle.why}; {obstacle.do}" if obstacle.do else obstacle.why
    return Finding(what=obstacle.what, ok=False, detail=detail, local=False)


def _since(start: float) -> float:
    return round(1000 * (time.monotonic() - start), 1)
