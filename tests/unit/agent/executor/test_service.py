"""What the executor's process makes of commands: none waits for what is said of it, and the monitor hears of each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from agent.backends.flagd.backend import FlagdFileBackend
from agent.commands.command import Command, Reason, sign
from agent.commands.keys import generate, load_private
from agent.config.load import load
from agent.errors import LedgerError, Permission
from agent.events import cloudevents as events
from agent.events.cloudevents import Event
from agent.executor.audit import digest
from agent.executor.service import Flips
from agent.executor.untrusted import BURST
from agent.ledger.automation import Automation
from agent.ledger.entry import Entry
from agent.ledger.ledger import Ledger
from agent.state.incidents import CommandResult
from tests.support.commands import issued
from tests.unit.agent.cli.test_keys_and_restore import CONFIG
from tests.unit.agent.executor.test_executor import EVIDENCE
from tests.unit.agent.ledger.test_disk import FLAGS


class House:
    """`Flips` over a flagd file; `told` and `results` are what it has published."""

    def __init__(self, directory: Path) -> None:
        (directory / "flipback.yaml").write_text(CONFIG)
        self.file = directory / "flags.json"
        self.file.write_text(FLAGS)
        self.config = load(directory / "flipback.yaml")
        private, _ = generate(self.config.state_dir)
        self.key = load_private(private)
        self.told: list[Event] = []
        self.results: list[CommandResult] = []
        self.open = asyncio.Event()
        self.open.set()
        self.flips = Flips(self.config, self._emit, self._result)

    async def _emit(self, event: Event) -> None:
        await self.open.wait()
        self.told.append(event)

    async def _result(self, result: CommandResult) -> None:
        self.results.append(result)

    async def command(self, **changes: Any) -> Command:
        (flag,) = self.config.flags
        status = await self.flips._executor.read_flag(flag.flag, flag.environment)
        words: dict[str, Any] = {
            "flag": flag.flag,
            "environment": flag.environment,
            "service": flag.service,
            "backend": flag.backend,
            "target": flag.safe,
            "trigger": "errors",
            "flag_version": status.version,
            "issued_at": time.time(),
            "rules_hash": "r",
            "evidence": EVIDENCE,
        }
        return issued(**{**words, **changes})

    async def execute(self, made: Command) -> bytes:
        raw = sign(made, self.key)
        await self.flips.execute(raw)
        return raw

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.005)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path)
    yield made
    await made.flips.close()


async def test_no_command_waits_for_the_audit_log(house: House) -> None:
    house.open.clear()
    for trigger in ("errors", "slow", "third"):
        await house.execute(await house.command(trigger=trigger))
    assert '"defaultVariant": "off"' in house.file.read_text()
    assert house.told == []
    house.open.set()
    await house.until(lambda: [event.type for event in house.told].count(events.FLAG_ALREADY) == 2)


async def test_the_monitor_hears_of_a_refusal_and_when_to_try_again(house: House) -> None:
    await house.execute(await house.command())
    house.file.write_text(FLAGS)
    made = await house.command()
    await house.execute(made)
    await house.until(lambda: len(house.results) == 2)
    applied, refused = house.results
    assert (applied.outcome, applied.retry_at) == ("applied", None)
    assert (refused.outcome, refused.reason, refused.command) == ("rejected", Reason.COOLDOWN, made.id)
    assert refused.retry_at is not None
    assert 0 < refused.retry_at - time.time() <= house.config.command.cooldown


async def test_the_monitor_hears_of_a_resumption_for_each_command_that_the_halt_refused(house: House) -> None:
    switch = Automation(house.config.state_dir)
    with switch.locked():
        switch.halt("maintenance", by="ann", at=time.time())
    made = await house.command()
    raw = await house.execute(made)
    watching = asyncio.create_task(house.flips.publish_pending())
    try:
        await house.until(lambda: any(event.type == events.AUTOMATION_HALTED for event in house.told))
        assert [(one.reason, one.retry_at) for one in house.results] == [(Reason.HALTED, None)]
        with switch.locked():
            switch.resume("it is over", by="ann", at=time.time())
        await house.until(lambda: len(house.results) == 2)
    finally:
        watching.cancel()
    answer = house.results[1]
    assert (answer.command, answer.sent, answer.reason) == (made.id, digest(raw), Reason.HALTED)
    assert answer.retry_at is not None
    assert answer.retry_at <= answer.at
    # Once: what is sent again gets an answer of its own.
    assert not house.flips._refused._waiting


async def test_the_monitor_hears_of_a_resumption_while_the_audit_log_takes_nothing(house: House) -> None:
    switch = Automation(house.config.state_dir)
    with switch.locked():
        switch.halt("maintenance", by="ann", at=time.time())
    house.open.clear()
    await house.execute(await house.command())
    watching = asyncio.create_task(house.flips.publish_pending())
    try:
        await house.until(lambda: len(house.results) == 1)
        with switch.locked():
            switch.resume("it is over", by="ann", at=time.time())
        await house.until(lambda: len(house.results) == 2)
    finally:
        watching.cancel()
    assert house.results[1].retry_at is not None
    assert house.told == []


async def test_of_a_flood_of_garbage_few_are_published_and_all_are_counted(house: House) -> None:
    house.flips.refuse([b"garbage %d" % n for n in range(5000)])
    await house.until(lambda: len(house.results) >= BURST)
    await asyncio.sleep(0)
    assert len(house.told) == len(house.results) <= BURST + 5
    assert house.flips._executor._untrusted.count == 5000


async def test_the_next_refusal_after_a_flood_says_how_many_were_not_published(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.flips.refuse([b"garbage %d" % n for n in range(1000)])
    await house.until(lambda: len(house.told) >= BURST)
    published = len(house.told)
    bucket = house.flips._executor._untrusted
    monkeypatch.setattr(bucket, "_monotonic", lambda: time.monotonic() + 60.0)
    house.flips.refuse([b"one more"])
    await house.until(lambda: len(house.told) > published)
    assert house.told[-1].data["suppressed"] == 1000 - published


async def test_copies_of_an_old_command_are_answered_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = await house.execute(await house.command())
    looked: list[str] = []
    get = Ledger.get

    def counted(ledger: Ledger, name: str) -> Entry | None:
        looked.append(name)
        return get(ledger, name)

    monkeypatch.setattr(Ledger, "get", counted)
    for _ in range(100):
        await house.flips.execute(raw)
    assert len(looked) == 1
    await house.until(lambda: bool(house.told) and house.told[-1].type == events.COMMAND_REJECTED)
    assert [event.data["reason"] for event in house.told if event.type == events.COMMAND_REJECTED] == ["duplicate"]


async def test_a_ledger_that_cannot_be_read_at_the_start_is_tried_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []
    recover = house.flips._executor.recover

    async def fail_first(later: Any) -> Any:
        tried.append(1)
        if len(tried) < 3:
            raise (LedgerError("the disk of the ledger did not answer within 1 s"), KeyError("an error"))[
                len(tried) - 1
            ]
        return await recover(later)

    monkeypatch.setattr(house.flips._executor, "recover", fail_first)
    monkeypatch.setattr("agent.executor.service.RECOVER_EVERY", 0.01)
    house.flips.recover()
    # Commands are carried out meanwhile.
    await house.execute(await house.command())
    assert '"defaultVariant": "off"' in house.file.read_text()
    await house.until(lambda: len(tried) == 3)


async def test_what_an_earlier_process_left_open_is_done_while_the_audit_log_takes_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply = FlagdFileBackend.apply

    async def refused(*_: object, **__: object) -> None:
        raise Permission("403")

    monkeypatch.setattr(FlagdFileBackend, "apply", refused)
    await house.execute(await house.command())
    await house.flips.close()
    house.open.clear()
    house.flips = Flips(house.config, house._emit, house._result)
    house.flips.recover()
    await house.until(lambda: bool(house.flips._retries._newest))
    monkeypatch.setattr(FlagdFileBackend, "apply", apply)
    await house.until(lambda: '"defaultVariant": "off"' in house.file.read_text())


async def test_a_file_that_is_gone_is_one_cause_for_the_backend_and_for_its_flags(house: House) -> None:
    async def publish(_: object) -> None: ...

    house.file.unlink()
    watching = asyncio.create_task(house.flips.watch(publish))
    try:
        await house.until(lambda: bool(house.flips.unreadable()))
        assert len(house.flips.unread()) == 1
        assert await house.flips.check() == [f"backend files: {house.file}: there is no such file"]
        assert house.flips.unread() == []
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
