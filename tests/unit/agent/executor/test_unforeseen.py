"""An exception that no backend should raise reaches a person with its type and message, and leaves nothing undone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from agent.backends.flagd.backend import FlagdFileBackend
from agent.control.rollback import direct
from agent.errors import Unforeseen
from agent.events import cloudevents as events
from agent.executor.attempt import IN_FLIGHT_S
from agent.executor.unforeseen import words
from tests.support.fake_backend import FakeBackend
from tests.support.pace import Pace, Time
from tests.unit.agent.executor.test_executor import REF, Desk, command, signed
from tests.unit.agent.executor.test_service import House

DEFECT = TypeError("unsupported operand " + "x" * 5_000)
NAMED = "an error of flipback in backend files: TypeError('unsupported operand"


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    Pace(monkeypatch, Time(tries=3))
    return Desk(tmp_path / "ledger")


@pytest.mark.parametrize("operation", ["snapshot", "apply", "verify"])
async def test_it_is_told_as_an_inability_and_the_same_command_ends_with_the_flag_safe(
    desk: Desk, operation: str
) -> None:
    desk.backend.faults[operation] = [DEFECT] * 1000
    result = await desk.execute(signed())
    assert NAMED in result.detail
    assert len(result.detail) <= 600
    assert (result.final, result.unforeseen) == (False, True)
    told = [event for event in desk.told if event.type == events.INABILITY]
    assert [NAMED in event.data["reason"] for event in told] == [True]
    assert len(told[0].data["reason"]) <= 600

    desk.backend.faults.clear()
    await desk.execute(signed())
    assert desk.backend.variant == "off"
    assert desk.backend.writes == ["off"]


async def test_an_exception_after_the_write_is_settled_by_the_read_back(desk: Desk) -> None:
    class Late(FakeBackend):
        async def apply(self, *given: Any, **named: Any) -> Any:
            await super().apply(*given, **named)
            raise KeyError("etag")

    desk = Desk(desk.ledger.directory, Late())
    result = await desk.execute(signed())
    assert (result.outcome, result.final, result.unforeseen) == ("applied", True, False)
    assert "KeyError('etag')" in result.detail
    assert events.FLAG_VERIFIED in desk.types


async def test_what_fails_beside_the_backend_is_told_too_and_is_given_up_when_nothing_can_be_under_way(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("no second")

    monkeypatch.setattr(desk.ledger, "get", broken)
    result = await desk.execute(signed())
    assert (result.outcome, result.final, result.unforeseen) == ("ambiguous", False, True)
    assert result.command == command()
    assert "an error of flipback in the executor: ZeroDivisionError('no second')" in result.detail
    assert desk.types == [events.INABILITY]
    nothing_under_way_from = command().expires_at + IN_FLIGHT_S
    for desk.now in (nothing_under_way_from - 0.001, nothing_under_way_from):
        assert (await desk.execute(signed())).final is (desk.now >= nothing_under_way_from)


async def test_a_look_at_a_flag_names_the_backend_and_the_exception(desk: Desk) -> None:
    desk.backend.faults["read"] = [DEFECT]
    with pytest.raises(Unforeseen, match=re.escape(NAMED)):
        await desk.executor.read_flag(*REF)


async def test_the_executor_is_not_armed_until_a_command_of_that_backend_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(tmp_path)
    (name,) = house.config.backends
    try:
        apply = FlagdFileBackend.apply

        async def broken(*_: object, **__: object) -> None:
            raise DEFECT

        assert await house.flips.check() == []
        monkeypatch.setattr(FlagdFileBackend, "apply", broken)
        made = await house.command()
        await house.execute(made)
        (said,) = await house.flips.check()
        assert said.startswith(f"backend {name}: its last command failed: ")
        assert "TypeError('unsupported operand" in said
        assert len(said) < 800
        await house.until(lambda: bool(house.results))
        assert "TypeError('unsupported operand" in house.results[0].detail

        monkeypatch.setattr(FlagdFileBackend, "apply", apply)
        await house.until(lambda: '"defaultVariant": "off"' in house.file.read_text())
        await house.until(lambda: house.results[-1].outcome in ("applied", "already"))
        assert await house.flips.check() == []
    finally:
        await house.flips.close()


async def test_a_rollback_without_kafka_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(tmp_path)
    await house.flips.close()

    async def broken(*_: object, **__: object) -> None:
        raise DEFECT

    monkeypatch.setattr(FlagdFileBackend, "health", broken)
    monkeypatch.setattr(FlagdFileBackend, "read", broken)
    ((_, found, _),) = [one async for one in direct(house.config, house.config.flags, reason="bad", by="ann")]
    assert isinstance(found, Unforeseen)
    assert "TypeError" in str(found)


def test_what_a_codec_could_not_read_is_not_repeated() -> None:
    content = b'{"secret": "hunter2", "name": "\xff"}'
    with pytest.raises(UnicodeDecodeError) as found:
        content.decode()
    said = words("backend files", found.value)
    assert said == "an error of flipback in backend files: UnicodeDecodeError('utf-8', 'invalid start byte')"
    with pytest.raises(UnicodeEncodeError) as lone:
        "hunter2 \ud800".encode()
    assert "hunter2" not in words("backend files", lone.value)
