from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.backends import settings
from agent.backends.contract import FlagBackend, FlagState, Outcome
from agent.backends.flagd.backend import FlagdFileBackend
from agent.control.restore import flipped, restore
from agent.errors import ConfigError, RestoreRefused, Transient
from agent.events.cloudevents import FLAG_RESTORED
from agent.executor.executor import Executor
from agent.executor.limits import FlipRate
from agent.executor.settings import FlipPace, Permissions
from agent.ledger.automation import Automation
from agent.ledger.ledger import Ledger
from agent.state.flags import FlagWatch
from tests.support.fake_backend import FakeBackend, Fault
from tests.unit.agent.executor.test_executor import DONE, KEY, MANAGED, REF, Desk, command, signed

TEXT = """{"flags" :
 {"new-checkout": {"state" : "ENABLED", "variants": {"on": 1.0, "off": 0e0}, "defaultVariant": "\\u006fn",
   "targeting": {"if": [{"var": "beta"}, "on", "off"]}}}}
"""


class Shop:
    """A flagd file that a command has flipped, and the ledger of that flip."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "flags.json"
        self.path.write_text(TEXT)
        self.backend = FlagdFileBackend(settings.FlagdFile(path=self.path))
        self.ledger = Ledger(directory / "ledger")
        self.incident = ""

    async def flip(self) -> None:
        version = (await self.backend.read(REF, deadline=time.monotonic() + 60)).version

        async def emit(_: object) -> None:
            return None

        executor = Executor(
            Permissions([MANAGED], {"files": self.backend}, {KEY.id: KEY.public}),
            self.ledger,
            Automation(self.path.parent),
            FlipPace(FlipRate(1, 600.0), cooldown_s=60.0),
            watch=FlagWatch(),
            emit=emit,
            now=lambda: 1001.0,
        )
        flag_version = f"g1-{version}"
        self.incident = command(flag_version=flag_version).incident
        assert (await executor.execute(signed(flag_version=flag_version))).outcome is Outcome.APPLIED
        executor.close()

    async def restore(self, incident: str | None = None) -> tuple[Outcome, FlagState]:
        (entry,) = flipped(self.ledger, incident or self.incident)
        backends: dict[str, FlagBackend] = {"files": self.backend}
        return await restore(self.ledger, backends, entry, reason="fixed", by="ann", now=lambda: 2000.0)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    shop = Shop(tmp_path)
    await shop.flip()
    yield shop
    await shop.backend.close()


async def test_the_file_is_as_it_was_byte_for_byte(shop: Shop) -> None:
    assert shop.path.read_text() != TEXT
    assert (await shop.restore())[0] is Outcome.APPLIED
    assert shop.path.read_text() == TEXT


async def test_who_restored_and_why_is_on_record(shop: Shop) -> None:
    await shop.restore()
    event = flipped(Ledger(shop.path.parent / "ledger"), shop.incident)[0].events[-1]
    assert event.type == FLAG_RESTORED
    assert (event.data["by"], event.data["reason"], event.time) == ("ann", "fixed", 2000.0)
    assert event.data["incident"] == shop.incident


async def test_restoring_twice_changes_nothing_and_is_recorded_once(shop: Shop) -> None:
    await shop.restore()
    assert (await shop.restore())[0] is Outcome.ALREADY
    types = [event.type for event in flipped(shop.ledger, shop.incident)[0].events]
    assert types == [*DONE, FLAG_RESTORED]


async def test_what_a_person_changed_since_the_flip_is_left_alone(shop: Shop) -> None:
    edited = shop.path.read_text().replace('"off"}', '"on"}').replace("1.0", "2.0")
    shop.path.write_text(edited)
    with pytest.raises(RestoreRefused, match="changed since"):
        await shop.restore()
    assert shop.path.read_text() == edited
    assert flipped(shop.ledger, shop.incident)[0].find(FLAG_RESTORED) is None


async def test_a_change_to_another_part_of_the_file_is_kept(shop: Shop) -> None:
    shop.path.write_text(shop.path.read_text() + "\n\n")
    await shop.restore()
    assert shop.path.read_text() == TEXT + "\n\n"


async def test_an_unknown_incident_is_refused(shop: Shop) -> None:
    with pytest.raises(RestoreRefused, match="no incident"):
        await shop.restore("unknown")


async def test_an_incident_whose_flag_was_not_written_is_refused(tmp_path: Path) -> None:
    desk = Desk(tmp_path, FakeBackend("off"))
    assert (await desk.execute(signed())).outcome is Outcome.ALREADY
    with pytest.raises(RestoreRefused, match="did not write"):
        flipped(desk.ledger, command().incident)


async def test_a_backend_that_is_no_longer_configured_is_named(shop: Shop) -> None:
    with pytest.raises(ConfigError, match="'files'"):
        await restore(shop.ledger, {}, flipped(shop.ledger, shop.incident)[0], reason="", by="ann", now=lambda: 0.0)


async def undo(desk: Desk) -> Outcome:
    (entry,) = flipped(desk.ledger, command().incident)
    return (await restore(desk.ledger, {"files": desk.backend}, entry, reason="", by="ann", now=lambda: 0.0))[0]


async def test_a_restore_whose_answer_was_lost_is_found_by_reading(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    await desk.execute(signed())
    desk.backend.faults["restore"] = [Fault.DROP_AFTER]
    assert await undo(desk) is Outcome.APPLIED
    assert desk.backend.variant == "on"


@pytest.mark.parametrize("fault", [Transient("503"), Fault.LIE])
async def test_a_restore_that_did_not_happen_is_not_said_to_have(tmp_path: Path, fault: str | Transient) -> None:
    desk = Desk(tmp_path)
    await desk.execute(signed())
    desk.backend.faults["restore"] = [fault]
    with pytest.raises(Transient, match="not restored"):
        await undo(desk)
    assert flipped(desk.ledger, command().incident)[0].find(FLAG_RESTORED) is None
    assert await undo(desk) is Outcome.APPLIED
