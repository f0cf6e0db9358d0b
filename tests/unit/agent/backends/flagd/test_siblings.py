"""Flags of one flagd file are independent: an edit of one is no change of another."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.backends import settings
from agent.backends.contract import Outcome, ReadBack, Snapshot, Verdict
from agent.backends.flagd.backend import FlagdFileBackend
from agent.commands.command import sign
from agent.events import cloudevents as events
from agent.events.cloudevents import Event
from agent.executor import audit
from agent.executor.executor import Executor
from agent.executor.limits import FlipRate
from agent.executor.settings import FlipPace, Permissions
from agent.ledger.automation import Automation
from agent.ledger.ledger import Ledger
from agent.state.allowlist import ManagedFlag
from agent.state.flags import FlagWatch
from tests.support.pace import AMPLE, Pace, Time
from tests.unit.agent.executor.test_executor import KEY, command

NAMES = ["a", "b", "c"]


class Crash(BaseException):
    """The process ends here. A BaseException, so that no error handler catches it."""


class House:
    """A flagd file with three flags, and executors that are started and stopped on one ledger."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "flags.json"
        self.write()
        self.watch = FlagWatch()
        self.told: list[Event] = []
        self.backend, self.executor = self.restart()

    def write(self, **variants: str) -> None:
        flags = {
            name: {
                "state": "ENABLED",
                "variants": {"on": True, "off": False},
                "defaultVariant": variants.get(name, "on"),
            }
            for name in NAMES
        }
        self.path.write_text(json.dumps({"flags": flags}, indent=1))

    def variants(self) -> dict[str, str]:
        return {name: flag["defaultVariant"] for name, flag in json.loads(self.path.read_text())["flags"].items()}

    def restart(self) -> tuple[FlagdFileBackend, Executor]:
        self.backend = FlagdFileBackend(settings.FlagdFile(path=self.path))
        self.executor = Executor(
            Permissions(
                [ManagedFlag(name, "production", "shop", "files", "off") for name in NAMES],
                {"files": self.backend},
                {KEY.id: KEY.public},
            ),
            Ledger(self.directory / "ledger"),
            Automation(self.directory),
            FlipPace(FlipRate(9, 600.0), cooldown_s=60.0, budget_s=AMPLE.whole_s),
            watch=self.watch,
            emit=self.emit,
            now=lambda: 1001.0,
        )
        return self.backend, self.executor

    async def emit(self, event: Event) -> None:
        self.told.append(event)

    def types(self, name: str) -> list[str]:
        return [event.type for event in self.told if event.subject == f"production/{name}"]

    async def command(self, name: str) -> bytes:
        version = (await self.executor.read_flag(name, "production")).version
        return sign(command(flag=name, flag_version=version), KEY)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


async def die_before(house: House, name: str, raw: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:

        async def dies(*_: object, **__: object) -> None:
            raise Crash

        patch.setattr(house.backend, name, dies)
        with pytest.raises(Crash):
            await house.executor.execute(raw)


async def test_a_flip_that_a_crash_cut_short_is_finished_although_a_sibling_was_flipped_meanwhile(
    house: House,
) -> None:
    raw_a, raw_b = await house.command("a"), await house.command("b")
    await die_before(house, "apply", raw_b)
    assert (await house.executor.execute(raw_a)).outcome is Outcome.APPLIED
    _, executor = house.restart()
    await executor.recover()
    assert house.variants() == {"a": "off", "b": "off", "c": "on"}
    assert house.types("b")[-2:] == [events.FLAG_WRITTEN, events.FLAG_VERIFIED]


async def test_what_a_person_took_back_stays_although_a_crash_came_before_the_read_back(house: House) -> None:
    raw = await house.command("b")
    await die_before(house, "verify", raw)
    assert house.variants()["b"] == "off"
    house.write()
    _, executor = house.restart()
    await executor.recover()
    assert house.variants()["b"] == "on"
    assert house.types("b")[-1] == events.FLAG_CONFLICT
    assert (await executor.execute(raw)).outcome is Outcome.DUPLICATE
    assert house.variants()["b"] == "on"


async def test_flags_of_one_file_are_all_flipped_on_a_slow_disk(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = [await house.command(name) for name in NAMES]
    # The times of the product, with which one call waits for at most two slow ones.
    Pace(monkeypatch, Time(whole_s=5.0, call_s=1.0))
    replace: Callable[..., bool] = FlagdFileBackend._replace

    def slow(self: FlagdFileBackend, *rest: object) -> bool:
        time.sleep(0.6)
        return replace(self, *rest)

    monkeypatch.setattr(FlagdFileBackend, "_replace", slow)
    results = await asyncio.gather(*(house.executor.execute(raw) for raw in commands))
    assert Outcome.CONFLICT not in {result.outcome for result in results}
    for raw in commands:
        # An even slower machine needs another delivery of the command, which the running agent makes.
        async with asyncio.timeout(60):
            while not (await house.executor.execute(raw)).final:
                await asyncio.sleep(0)
    assert set(house.variants().values()) == {"off"}


@pytest.fixture
async def conflict(house: House) -> bytes:
    """A command that ended as a conflict, as in an earlier version of flipback after an edit of another flag."""
    raw = await house.command("b")
    await die_before(house, "apply", raw)
    entry = next(iter(Ledger(house.directory / "ledger").entries()))
    data = {"flag_version": entry.command.flag_version, "variant": "on", "expected": entry.command.flag_version}
    house.restart()
    house.executor._ledger.append(entry, audit.step(entry.command, events.FLAG_CONFLICT, data, "0", 1001.0))
    return raw


async def test_a_conflict_whose_flag_is_the_one_that_was_judged_is_tried_again(house: House, conflict: bytes) -> None:
    assert (await house.executor.execute(conflict)).outcome is Outcome.APPLIED
    assert house.variants() == {"a": "on", "b": "off", "c": "on"}
    assert house.types("b")[-3:] == [events.FLAG_SNAPSHOT, events.FLAG_WRITTEN, events.FLAG_VERIFIED]
    assert (await house.executor.execute(conflict)).outcome is Outcome.DUPLICATE


async def test_a_conflict_that_is_tried_again_and_cut_short_by_a_crash_is_finished(
    house: House, conflict: bytes
) -> None:
    await die_before(house, "apply", conflict)
    assert house.variants()["b"] == "on"
    _, executor = house.restart()
    await executor.recover()
    assert house.variants()["b"] == "off"


async def test_a_conflict_of_a_flag_that_somebody_changed_and_changed_back_is_a_new_version(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = await house.command("b")

    async def other(snapshot: Snapshot, *_: object, **__: object) -> ReadBack:
        return ReadBack(Verdict.OTHER, snapshot.state)

    monkeypatch.setattr(house.backend, "verify", other)
    await die_before(house, "apply", raw)
    result = await house.executor.execute(raw)
    assert result.outcome is Outcome.CONFLICT
    assert result.status is not None
    assert result.status.version.startswith("g2-")
    assert (await house.executor.execute(raw)).outcome is Outcome.DUPLICATE
    assert house.variants()["b"] == "on"


async def test_what_a_person_changed_and_changed_back_is_another_flag_and_its_conflict_stays(house: House) -> None:
    raw = await house.command("b")
    house.write(b="off")
    await house.executor.read_flag("b", "production")
    house.write()
    assert (await house.executor.execute(raw)).outcome is Outcome.CONFLICT
    assert (await house.executor.execute(raw)).outcome is Outcome.DUPLICATE
    assert house.variants()["b"] == "on"
