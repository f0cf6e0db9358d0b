"""A process may die between any two steps; what is delivered again must find out, and never write twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.backends import settings as backend_settings
from agent.backends.contract import Outcome
from agent.backends.flagd.backend import FlagdFileBackend
from agent.commands.command import Command, verify
from agent.events import cloudevents as events
from agent.events.cloudevents import Event
from agent.executor.executor import Executor
from agent.executor.limits import FlipRate
from agent.executor.settings import FlipPace, Permissions
from agent.ledger.automation import Automation
from agent.ledger.ledger import Ledger
from agent.state.flags import FlagStatus, FlagWatch
from tests.support.fake_backend import FakeBackend
from tests.unit.agent.executor.test_executor import DONE, KEY, MANAGED, REF, Desk, command, signed


class Crash(BaseException):
    """The process dies here. No handler of errors takes it for one."""


class Points:
    """Counts the places where a process may die, and makes it die at one of them."""

    def __init__(self, fatal: int) -> None:
        self.fatal = fatal
        self.passed = 0

    def pass_one(self) -> None:
        self.passed += 1
        if self.passed == self.fatal:
            raise Crash

    def around(self, target: object, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the process die before or after a method, sync or async."""
        original: Callable[..., Any] = getattr(target, name)

        def sync(*args: Any, **kwargs: Any) -> Any:
            self.pass_one()
            result = original(*args, **kwargs)
            self.pass_one()
            return result

        async def coroutine(*args: Any, **kwargs: Any) -> Any:
            self.pass_one()
            result = await original(*args, **kwargs)
            self.pass_one()
            return result

        monkeypatch.setattr(target, name, coroutine if asyncio.iscoroutinefunction(original) else sync)


STEPS = 2 * (
    len(["get", "open", "mark", "append", "append", "announced"]) + len(["snapshot", "apply", "verify"]) + len(DONE)
)


async def die(desk: Desk, raw: bytes, fatal: int) -> bool:
    """Execute a command and die at the numbered place; False where there is no such place."""
    points = Points(fatal)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("get", "open", "mark", "append", "announced"):
            points.around(desk.ledger, name, patch)
        for name in ("snapshot", "apply", "verify"):
            points.around(desk.backend, name, patch)
        points.around(desk.executor._outbox, "_emit", patch)
        try:
            await desk.execute(raw)
        except Crash:
            return True
    return False


@pytest.mark.parametrize("fatal", range(1, STEPS + 1))
async def test_after_a_crash_at_any_step_the_next_delivery_writes_exactly_once_in_all(
    tmp_path: Path, fatal: int
) -> None:
    dead = Desk(tmp_path)
    assert await die(dead, signed(), fatal)
    reborn = Desk(tmp_path, dead.backend)
    # What was published of the flag before the crash is known to the next process.
    known = dead.watch.current(REF)
    if known is not None:
        reborn.watch.prime(known)
    await reborn.executor.recover()
    result = await reborn.execute(signed())
    assert result.outcome in (Outcome.APPLIED, Outcome.DUPLICATE)
    assert dead.backend.writes == ["off"]
    assert dead.backend.variant == "off"
    told = {event.id: event.type for event in dead.told + reborn.told}
    assert sorted(kind for kind in told.values() if kind != events.COMMAND_REJECTED) == sorted(DONE)


async def test_the_places_to_die_are_all_of_them(tmp_path: Path) -> None:
    assert not await die(Desk(tmp_path), signed(), STEPS + 1)


@pytest.mark.parametrize("fatal", range(1, STEPS + 1))
async def test_what_a_person_set_after_a_crash_is_left_alone(tmp_path: Path, fatal: int) -> None:
    dead = Desk(tmp_path)
    await die(dead, signed(), fatal)
    begun = dead.ledger.get(command().id) is not None
    written = len(dead.backend.writes)
    # The variant that was judged: the same words as before, by another hand.
    dead.backend.edit("on" if begun else "beta")
    human = dead.backend.variant
    reborn = Desk(tmp_path, dead.backend)
    await reborn.executor.recover()
    result = await reborn.execute(signed())
    assert result.outcome in (Outcome.CONFLICT, Outcome.DUPLICATE)
    assert dead.backend.variant == human
    assert len(dead.backend.writes) == written


class World:
    """A flag, the people who edit it, the monitor that judges it, and an executor that dies and comes again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.backend = FakeBackend()
        self.published = FlagWatch()
        self.now = 1001.0
        self.sent: list[bytes] = []
        self.desk = self.new_desk()

    def new_desk(self) -> Desk:
        desk = Desk(self.directory, self.backend)
        desk.now = self.now
        status = self.published.current(REF)
        if status is not None:
            desk.watch.prime(status)
        return desk

    async def publish(self) -> FlagStatus:
        """Time passes, and the flag is seen as it is now."""
        self.now += 100
        self.desk.now = self.now
        state = await self.backend.read(REF, deadline=0.0)
        status = self.published.observe(REF, state, safe="off", at=self.now)
        self.desk.watch.prime(status)
        return status

    async def step(self, kind: str, choice: int) -> None:
        status = await self.publish()
        before = self.backend.variant
        judged = {entry.command.flag_version for entry in self.desk.ledger.entries() if not entry.settled}
        if kind == "person":
            self.backend.edit(("on", "off", "beta")[choice % 3])
            return
        if kind == "recover":
            self.desk = self.new_desk()
            await self.desk.executor.recover()
        elif kind == "replay" and self.sent:
            raw = self.sent[choice % len(self.sent)]
            judged = {verified(raw).flag_version}
            await self.desk.execute(raw)
        else:
            raw = signed(flag_version=status.version, issued_at=self.now)
            self.sent.append(raw)
            judged = {status.version}
            if kind == "die":
                await die(self.desk, raw, 1 + choice % STEPS)
                self.desk = self.new_desk()
            else:
                await self.desk.execute(raw)
        if self.backend.variant != before:
            assert self.backend.variant == "off"
            assert status.version in judged


def verified(raw: bytes) -> Command:
    checked = verify(raw, {KEY.id: KEY.public})
    assert isinstance(checked, Command)
    return checked


kinds = st.sampled_from(["deliver", "replay", "die", "recover", "person", "person"])


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(st.tuples(kinds, st.integers(0, 1000)), max_size=12))
def test_in_any_order_only_the_flag_that_was_judged_is_written_and_once_a_command(steps: list[tuple[str, int]]) -> None:
    async def live() -> None:
        with TemporaryDirectory() as directory:
            world = World(Path(directory))
            for kind, choice in steps:
                await world.step(kind, choice)
            assert len(set(world.backend.written_by)) == len(world.backend.written_by)

    asyncio.run(live())


def machines(tmp_path: Path, path: Path, shared: bool) -> list[tuple[Executor, FlagdFileBackend, list[Event]]]:
    """Sixteen executors of one file, each with its ledger, or all with one."""
    made = []
    for number in range(16):
        told: list[Event] = []
        backend = FlagdFileBackend(backend_settings.FlagdFile(path=path))

        async def emit(event: Event, told: list[Event] = told) -> None:
            told.append(event)

        executor = Executor(
            Permissions([MANAGED], {"files": backend}, {KEY.id: KEY.public}),
            Ledger(tmp_path / ("ledger" if shared else f"ledger-{number}")),
            Automation(tmp_path / ("state" if shared else f"state-{number}")),
            FlipPace(FlipRate(1, 600.0), cooldown_s=60.0),
            watch=FlagWatch(),
            emit=emit,
            now=lambda: 1001.0,
        )
        made.append((executor, backend, told))
    return made


@pytest.mark.parametrize("shared", [True, False], ids=["one ledger", "a ledger each"])
async def test_sixteen_executors_and_one_command_make_one_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    path = tmp_path / "flags.json"
    path.write_text(
        '{"flags": {"new-checkout":'
        ' {"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "on"}}}'
    )
    replaced: list[Path] = []
    original = Path.replace

    def counted(self: Path, target: Path) -> Path:
        replaced.append(self)
        return original(self, target)

    monkeypatch.setattr(Path, "replace", counted)
    made = machines(tmp_path, path, shared)
    version = (await made[0][1].read(REF, deadline=time.monotonic() + 60)).version
    raw = signed(flag_version=f"g1-{version}")
    results = await asyncio.gather(*(executor.execute(raw) for executor, _, _ in made))
    assert len(replaced) == 1
    outcomes = {result.outcome for result in results}
    assert Outcome.APPLIED in outcomes
    assert outcomes <= {Outcome.APPLIED, Outcome.ALREADY, Outcome.DUPLICATE}
    if not shared:
        assert [result.outcome for result in results].count(Outcome.APPLIED) == 1
    written = {event.id for _, _, told in made for event in told if event.type == events.FLAG_WRITTEN}
    assert len(written) == 1
    for executor, backend, _ in made:
        executor.close()
        await backend.close()
