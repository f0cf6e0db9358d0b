"""Two executors, people, repeated deliveries, lost responses and crashes at any step, in a thousand random orders.

In any order, the flag ends as the newest decision requires: safe if a command judged the state that a person last set,
else as that person left it. No command writes twice, or over a state that it did not judge, and the audit log has every
step of the ledger, by its id.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest

from agent.backends.contract import FlagRef
from agent.commands.command import Command, sign
from agent.errors import Permission, Transient, Unsent
from agent.events import cloudevents as events
from agent.events.cloudevents import Event
from agent.executor.executor import Executor
from agent.executor.limits import FlipRate
from agent.executor.settings import FlipPace, Permissions
from agent.ledger.automation import Automation
from agent.ledger.entry import Entry
from agent.ledger.ledger import Ledger
from agent.state.flags import FlagWatch
from agent.storage.disk import Disk
from tests.support.fake_backend import FakeBackend, Fault
from tests.unit.agent.executor.test_executor import KEY, MANAGED, command

REF = FlagRef(MANAGED.flag, MANAGED.environment)
RUNS, CHUNKS = 1000, 4
NOW = 1001.0
SETTLED = {events.FLAG_VERIFIED, events.FLAG_ALREADY, events.FLAG_CONFLICT, events.FLAG_NOT_WRITTEN}
STEPS = {"get", "open", "append", "announced", "mark", "snapshot", "apply", "verify", "read"}


class Crash(BaseException):
    """The process dies here. A BaseException, so that no handler of errors catches it."""


class Change(NamedTuple):
    """The flag became `after`, by a command's operation, or by a person if `op_id` is empty."""

    before: str
    after: str
    op_id: str


class Changes(list[str]):
    """The list of the operations that have written; `all` has every change of the flag, in order."""

    def __init__(self, initial: str) -> None:
        self.all = [Change("", initial, "")]

    def change(self, after: str, op_id: str) -> None:
        self.all.append(Change(self.all[-1].after, after, op_id))

    def append(self, op_id: str) -> None:
        super().append(op_id)
        self.change("off", op_id)


class Recorded(FakeBackend):
    """A backend that records every change, including the first state."""

    def __init__(self) -> None:
        super().__init__("on-0")
        self.written_by: Changes = Changes("on-0")

    def edit(self, variant: str) -> None:
        super().edit(variant)
        self.written_by.change(variant, "")

    @property
    def changes(self) -> list[Change]:
        return self.written_by.all


class World:
    """One flag, and processes that crash and are started again. `seed` determines everything."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.directory = directory
        self.backend = Recorded()
        # Shared by all processes, as through the flags topic.
        self.watch = FlagWatch()
        self.published: list[Event] = []
        self.shared = self.rng.random() < 0.5
        self.issued: list[tuple[Command, bool]] = []
        self.processes = [Process(self, 0), Process(self, 1)]
        for process in self.processes:
            process.recovered.set()

    async def pause(self) -> None:
        for _ in range(self.rng.randrange(4)):
            await asyncio.sleep(0)

    async def live(self) -> None:
        """Run people, monitor, crashes and faults concurrently."""
        chance = self.rng.random
        await asyncio.gather(
            self.people(self.rng.randrange(4)),
            self.monitor(self.rng.randrange(1, 4)),
            *(self.death() for _ in range(self.rng.randrange(3))),
            *(self.trouble() for _ in range(self.rng.randrange(3)) if chance() < 0.7),
        )

    async def people(self, edits: int) -> None:
        for number in range(edits):
            await self.idle()
            # Each edit sets a new state, or the safe one.
            self.backend.edit("off" if self.rng.random() < 0.2 else f"on-{number + 1}")

    async def monitor(self, commands: int) -> None:
        deliveries = []
        for number in range(commands):
            await self.idle()
            status = self.watch.observe(REF, self.backend._state(), safe="off", at=NOW)
            if status.safe:
                continue
            late = self.rng.random() < 0.15
            made = command(
                trigger=f"t{number % 2}", flag_version=status.version, issued_at=NOW - 61.0 if late else NOW - 1.0
            )
            self.issued.append((made, late))
            deliveries += [asyncio.create_task(self.deliver(made)) for _ in range(self.rng.randrange(1, 4))]
        await asyncio.gather(*deliveries)

    async def deliver(self, made: Command) -> None:
        await self.idle()
        await self.rng.choice(self.processes).execute(sign(made, KEY))

    async def death(self) -> None:
        await self.idle()
        self.rng.choice(self.processes).dies_in = self.rng.randrange(1, 30)

    async def trouble(self) -> None:
        await self.idle()
        operation = self.rng.choice(["snapshot", "apply", "apply", "verify"])
        lost: list[Any] = [Transient("503")]
        if operation == "apply":
            lost += [Fault.DROP_AFTER, Permission("403"), Unsent("refused")]
        self.backend.faults[operation].append(self.rng.choice(lost))

    async def idle(self) -> None:
        for _ in range(self.rng.randrange(60)):
            await asyncio.sleep(0)

    async def settle(self) -> None:
        """End the faults: restart every process, and deliver every command once more."""
        self.backend.faults.clear()
        for number, process in enumerate(self.processes):
            process.alive = False
            self.processes[number] = process = Process(self, number)
            await process.recover()
            for made, _ in self.issued:
                await process.execute(sign(made, KEY))
            await process.executor.publish_pending()

    def check(self) -> None:
        by_id = {made.id: made for made, _ in self.issued}
        written = [change for change in self.backend.changes if change.op_id]
        assert len({change.op_id for change in written}) == len(written), "a command has written twice"
        for change in written:
            judged = {made.flag_version.partition("-v-")[2] for made, late in self.issued if made.id == change.op_id}
            assert change.before in judged, "written on what was not judged"
            assert not all(late for made, late in self.issued if made.id == change.op_id), "written after it expired"
        last = next(change.after for change in reversed(self.backend.changes) if not change.op_id)
        judged_last = any(made.flag_version.endswith(f"-v-{last}") and not late for made, late in self.issued)
        assert self.backend.variant == ("off" if judged_last else last)
        published = {event.id: event for event in self.published}
        for entry in self.entries():
            assert entry.settled, "nobody knows what became of a command"
            for event in entry.events:
                assert published[event.id].type == event.type
                assert published[event.id].data["command_id"] == entry.command.id
        ids = {event.id for entry in self.entries() for event in entry.events}
        refusals = {events.COMMAND_REJECTED, events.INABILITY}
        assert {event.id for event in published.values() if event.type not in refusals} == ids
        for position, change in enumerate(self.backend.changes):
            if change.op_id:
                kinds = {event.type for event in published.values() if event.data["command_id"] == change.op_id}
                assert kinds >= {events.COMMAND_RECEIVED, events.FLAG_SNAPSHOT}
                assert kinds & SETTLED
                # If a crash follows the write and a person edits after the crash, it is unknown who wrote.
                edited = any(not later.op_id for later in self.backend.changes[position + 1 :])
                assert events.FLAG_WRITTEN in kinds or (edited and events.FLAG_CONFLICT in kinds)
                assert by_id[change.op_id].target == change.after

    def entries(self) -> list[Entry]:
        return [
            entry for path in {process.ledger_path for process in self.processes} for entry in Ledger(path).entries()
        ]


class Process:
    """An executor that crashes after `dies_in` steps, with all that it is doing."""

    def __init__(self, world: World, number: int) -> None:
        self.world, self.number = world, number
        self.alive, self.dies_in = True, -1
        self.recovered = asyncio.Event()
        self.ledger_path = world.directory / ("ledger" if world.shared else f"ledger-{number}")
        self.executor = Executor(
            Permissions([MANAGED], {"files": self.mortal(world.backend)}, {KEY.id: KEY.public}),
            self.mortal(Ledger(self.ledger_path)),
            Automation(self.ledger_path),
            FlipPace(FlipRate(1000, 600.0), cooldown_s=0.0, budget_s=60.0),
            watch=world.watch,
            emit=self.emit,
            now=lambda: NOW,
        )

    def step(self) -> None:
        self.dies_in -= 1
        if self.dies_in == 0:
            self.alive = False
        if not self.alive:
            raise Crash

    async def emit(self, event: Event) -> None:
        await self.world.pause()
        self.step()
        self.world.published.append(event)

    async def execute(self, raw: bytes) -> None:
        """Execute a command. If the process crashes, its successor begins with the commands that are still open."""
        await self.recovered.wait()
        try:
            await self.executor.execute(raw)
        except Crash:
            await self.world.processes[self.number].succeed(self)

    async def succeed(self, dead: Process) -> None:
        if dead is not self:
            return
        reborn = self.world.processes[self.number] = Process(self.world, self.number)
        await reborn.recover()

    async def recover(self) -> None:
        try:
            await self.executor.recover()
        except Crash:
            await self.world.processes[self.number].succeed(self)
        self.recovered.set()

    def mortal(self, target: Any) -> Any:
        """A proxy of the object, with which the process may crash before and after each step."""
        process = self

        class Mortal:
            def __getattr__(self, name: str) -> Any:
                value = getattr(target, name)
                return process.around(value) if name in STEPS else value

        return Mortal()

    def around(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def sync(*args: Any, **kwargs: Any) -> Any:
            self.step()
            result = original(*args, **kwargs)
            self.step()
            return result

        async def coroutine(*args: Any, **kwargs: Any) -> Any:
            await self.world.pause()
            self.step()
            result = await original(*args, **kwargs)
            await self.world.pause()
            self.step()
            return result

        return coroutine if asyncio.iscoroutinefunction(original) else sync


async def _inline(self: Disk, work: Callable[[], Any]) -> Any:
    """`Disk.run` without threads, whose order would not depend on the seed."""
    await asyncio.sleep(0)
    return work()


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_in_any_order_the_newest_decision_holds_and_every_step_is_told(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Disk, "run", _inline)
    # Only processes crash here, not the machine, so nothing needs to be flushed to disk.
    monkeypatch.setattr("agent.ledger.ledger.os.fsync", lambda _: None)
    monkeypatch.setattr("agent.executor.budget._jitter", lambda _: 0.0)
    happened = {"writes": 0, "deaths": 0, "edits": 0}
    for seed in range(chunk * RUNS // CHUNKS, (chunk + 1) * RUNS // CHUNKS):
        with TemporaryDirectory() as directory:
            world = World(Path(directory), seed)
            first = list(world.processes)

            async def run(world: World = world) -> None:
                await world.live()
                await world.settle()

            try:
                asyncio.run(run())
                world.check()
            except AssertionError as error:
                raise AssertionError(f"seed {seed}: {error}") from error
            happened["writes"] += len(world.backend.writes)
            happened["edits"] += sum(not change.op_id for change in world.backend.changes[1:])
            happened["deaths"] += sum(not process.alive for process in first)
    # Without such events the test would prove nothing.
    assert min(happened.values()) > 50, happened
