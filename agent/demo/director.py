"""Runs the demo: starts its processes, injects the fault, waits for the flip, and stops everything."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from agent.config.load import load as load_config
from agent.demo.broker import SESSION_TIMEOUT, broker_command
from agent.demo.children import Child, DemoFailed, free_port, listens, start, stop
from agent.demo.load import Load
from agent.demo.needs import check_answers, check_extras
from agent.demo.scene import FAULT_AFTER, FAULT_RATE, INSTANCES, RATE, Scene, new_prefix
from agent.demo.steps import FlipStep, unfinished
from agent.demo.story import Screen, Story
from agent.demo.witness import read_commands, read_events, read_health
from agent.demo.words import closing
from agent.logs.setup import configure, log_event
from agent.telemetry.topics import wanted
from streams.errors import StreamsError
from streams.kafka.admin import remove
from streams.kafka.topics import create

START_TIMEOUT = 30.0
"""Seconds for each process to answer; on two idle cores all of them together take five."""
FLIP_TIMEOUT = 45.0
"""Seconds from the fault to the recovery of the shop; usually it takes 25."""

_FLIPBACK = "from agent.cli import main; main()"
_logger = logging.getLogger(__name__)


async def play(kafka: str | None, screen_of: Callable[[Story], Screen]) -> int:
    """Show the demo on brokers `kafka` (host:port), or on an embedded one; returns the exit status.

    At the end its topics are removed, and its directory unless the demo failed; then the message names the directory.
    Raises DemoFailed if the demo cannot be shown at all.
    """
    check_extras(embedded=kafka is None)
    if kafka is not None:
        await check_answers(kafka)
    directory = Path(tempfile.mkdtemp(prefix="flipback-demo-"))
    scene = Scene(
        directory=directory,
        brokers=kafka or f"127.0.0.1:{free_port()}",
        embedded=kafka is None,
        prefix=new_prefix(),
        health_port=free_port(),
        session_timeout=SESSION_TIMEOUT if kafka is None else None,
    )
    scene.logs.mkdir()
    keep = False
    try:
        with (scene.logs / "demo.log").open("w") as log:
            # Logs go to a file: only the screen may write to the terminal.
            configure("info", json=True, stream=log)
            status = await _Play(scene, screen_of).run()
            keep = status != 0
            return status
    except DemoFailed:
        keep = True
        raise
    except Exception as error:
        keep = True
        raise DemoFailed(f"{error!r}; see {scene.logs}") from error
    finally:
        configure("warning", stream=sys.stderr)
        if not keep:
            shutil.rmtree(directory, ignore_errors=True)


class _Play:
    """One run of the demo."""

    def __init__(self, scene: Scene, screen_of: Callable[[Story], Screen]) -> None:
        self._scene = scene
        self._story = Story(scene)
        self._screen = self._story.screen = screen_of(self._story)
        self._urls = [f"http://127.0.0.1:{free_port()}" for _ in INSTANCES]
        self._load = Load(self._urls, RATE, self._switched)
        self._children: list[Child] = []

    async def run(self) -> int:
        self._scene.write()
        async with self._cleaned_up(), self._screen.running():
            await self._start()
            await self._observe()
        missing = self._story.timeline.missing
        if missing:
            failed = [f"Failed: {unfinished(missing[0])}.", f"Not seen: {', '.join(missing)}."]
            self._screen.close([*failed, f"Logs: {self._scene.logs}"], success=False)
            return 1
        self._screen.close(list(closing(self._story, self._load)), success=True)
        return 0

    @contextlib.asynccontextmanager
    async def _cleaned_up(self) -> AsyncIterator[None]:
        """At the end stop every process, the embedded broker last, and remove the topics from other brokers."""
        try:
            yield
        finally:
            broker = [child for child in self._children if child.name == "broker"]
            await stop(*(child for child in self._children if child not in broker))
            if not self._scene.embedded:
                await self._remove_topics()
            await stop(*broker)

    async def _remove_topics(self) -> None:
        names = [spec.name for spec in wanted(load_config(self._scene.config))]
        try:
            await remove(names, self._scene.connection)
        except StreamsError as error:
            log_event(_logger, "demo.topics_left", level=logging.WARNING, topics=names, error=str(error))

    async def _start(self) -> None:
        scene, story = self._scene, self._story
        if scene.embedded:
            waiting = story.begin("embedded broker (Tansu)")
            port = int(scene.brokers.rpartition(":")[2])
            broker = await self._begin("broker", broker_command(port))
            await broker.answers(lambda: listens("127.0.0.1", port), START_TIMEOUT)
            story.end(waiting, f"answers on {scene.brokers}")
        config = load_config(scene.config)
        await create(wanted(config), replication=config.kafka.replication, connection=scene.connection)
        run = [sys.executable, "-c", _FLIPBACK, "run", "-c", str(scene.config), "--log-json"]
        flipback = await self._begin("flipback", run)
        shops = []
        for name, url in zip(INSTANCES, self._urls, strict=True):
            arguments = [name, url.rpartition(":")[2], str(scene.flags), scene.topic, scene.brokers]
            shops.append(await self._begin(name, [sys.executable, "-m", "agent.demo.shop", *arguments]))
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as http:
            ready = f"http://127.0.0.1:{scene.health_port}/readyz"
            await _together(
                self._answers("flipback run, all roles", flipback, http, ready),
                *(
                    self._answers(f"{shop.name}, the HTTP service", shop, http, f"{url}/healthz")
                    for shop, url in zip(shops, self._urls, strict=True)
                ),
            )

    async def _begin(self, name: str, command: Sequence[str]) -> Child:
        child = await start(name, command, self._scene.logs)
        self._children.append(child)
        return child

    async def _answers(self, text: str, child: Child, http: aiohttp.ClientSession, url: str) -> None:
        async def probe() -> bool:
            try:
                async with http.get(url) as answer:
                    return answer.status == 200
            except (aiohttp.ClientError, TimeoutError):
                return False

        waiting = self._story.begin(text)
        await child.answers(probe, START_TIMEOUT)
        self._story.end(waiting, "ready")

    async def _observe(self) -> None:
        """Send healthy traffic, inject the fault and watch; returns when all steps were seen or the time is up."""
        story = self._story
        background = _together(
            read_health(story),
            read_events(story),
            read_commands(story, load_config(self._scene.config)),
            self._load.run(),
            self._guard(),
        )
        script, watching = asyncio.create_task(self._script()), asyncio.create_task(background)
        try:
            done, _ = await asyncio.wait([script, watching], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await _end(script, watching)

    async def _script(self) -> None:
        story = self._story
        waiting = story.begin("healthy traffic, then the fault", due=time.time() + FAULT_AFTER)
        await asyncio.sleep(FAULT_AFTER)
        story.end(waiting, f"{self._load.sent} requests, {self._load.failed} failed")
        await self._until("flipback's first verdict on the shop", START_TIMEOUT, self._judged)
        if self._judged():
            await self._inject()
            await self._until("flip and recovery", FLIP_TIMEOUT, lambda: not story.timeline.missing)

    def _judged(self) -> bool:
        return any(second.trigger.state == "ok" for second in self._story.seconds)

    async def _until(self, text: str, within: float, condition: Callable[[], bool]) -> None:
        if condition():
            return
        waiting = self._story.begin(text)
        end = time.monotonic() + within
        while not condition() and time.monotonic() < end:  # noqa: ASYNC110 - conditions of several kinds
            await asyncio.sleep(0.02)
        self._story.end(waiting, "seen" if condition() else "not seen")

    async def _inject(self) -> None:
        # Take the time before the first instance gets the fault, so that no measured delay is too short.
        at = time.time()
        async with aiohttp.ClientSession() as http:
            for answer in await asyncio.gather(
                *(http.post(f"{url}/fault", params={"rate": str(FAULT_RATE)}) for url in self._urls)
            ):
                answer.raise_for_status()
        self._story.mark(FlipStep.INJECTED, at, f"{FAULT_RATE:.0%} of the new path's requests fail")

    def _switched(self, user: str, at: float) -> None:
        self._story.mark(FlipStep.OLD_PATH, at, f"{user} had the new path and now got the old one")

    async def _guard(self) -> None:
        """Raise DemoFailed as soon as a process has ended."""
        while True:
            for child in self._children:
                child.check()
            await asyncio.sleep(0.2)


async def _together(*work: Coroutine[Any, Any, None]) -> None:
    """Run all concurrently; if one fails, the others are cancelled."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        await _end(*tasks)


async def _end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
