"""What is turned back without a person has a limit; what would be more halts it, for good, until a person resumes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import cli
from agent.backends.contract import Outcome
from agent.commands.command import BY_HAND, Reason, sign
from agent.config.model import AutomationSettings
from agent.errors import Permission
from agent.events import cloudevents as events
from agent.ledger.automation import ITSELF, Automation
from agent.ledger.ledger import Ledger
from tests.support.fake_backend import Fault
from tests.support.fleet import WITHIN, Fleet
from tests.support.pace import Pace, Time
from tests.unit.agent.cli.test_keys_and_restore import CONFIG
from tests.unit.agent.executor.test_executor import KEY


def halt(fleet: Fleet, by: str = "ann") -> None:
    with fleet.automation.locked():
        assert fleet.automation.halt("enough", by=by, at=fleet.now) is not None


def resume(fleet: Fleet) -> None:
    with fleet.automation.locked():
        assert fleet.automation.resume("it was the database", by="ann", at=fleet.now) is not None


async def halted(fleet: Fleet, name: str, **words: str) -> bool:
    """Is a command refused because of a halt?"""
    result = await fleet.flip(name, **words)
    assert (result.reason is Reason.HALTED) == (result.outcome is Outcome.REJECTED)
    return result.reason is Reason.HALTED


@pytest.mark.parametrize(
    ("managed", "most"),
    [(1, 1), (10, 1), (11, 1), (19, 1), (20, 2), (29, 2), (30, 3), (1000, 3)],
)
def test_the_limit_is_three_flags_and_a_tenth_of_the_managed_ones_but_one_at_least(managed: int, most: int) -> None:
    assert AutomationSettings().most(managed) == most


def test_a_share_is_what_it_says_in_spite_of_floating_point() -> None:
    assert AutomationSettings(max_flips=1000, max_share=0.29).most(100) == 29
    assert AutomationSettings(max_flips=5, max_share=0).most(100) == 1


async def test_one_flag_more_than_the_limit_is_left_alone_and_halts_the_automation(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 4, 2)
    assert [await halted(fleet, name) for name in fleet.names] == [False, False, True, True]
    assert fleet.written == ["f0", "f1"]
    (page,) = fleet.of(events.AUTOMATION_HALTED)
    assert page.data["by"] == ITSELF
    assert page.data["flags"] == ["production/f0", "production/f1"]
    assert "production/f2" in page.data["reason"]
    assert "flipback resume" in page.data["todo"]
    refused = fleet.of(events.COMMAND_REJECTED)
    assert [event.data["reason"] for event in refused] == [Reason.HALTED, Reason.HALTED]
    assert "flipback resume" in refused[0].data["detail"]


async def test_what_is_refused_leaves_nothing_in_the_ledger(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 2, 1)
    await fleet.flip("f0")
    made = fleet.command("f1")
    assert await halted(fleet, "f1")
    assert fleet.ledger.get(made.id) is None


async def test_a_halt_outlives_the_process_and_time(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 2, 1)
    await fleet.flip("f0")
    assert await halted(fleet, "f1")
    reborn = fleet.reborn()
    await reborn.executor.recover()
    reborn.now += 100 * WITHIN
    assert await halted(reborn, "f1")
    assert reborn.of(events.AUTOMATION_HALTED) == []
    assert reborn.written == ["f0"]


async def test_after_a_person_resumes_the_same_command_is_carried_out(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 2, 1)
    await fleet.flip("f0")
    raw = sign(fleet.command("f1"), KEY)
    assert (await fleet.executor.execute(raw)).reason is Reason.HALTED
    resume(fleet)
    assert (await fleet.executor.execute(raw)).outcome is Outcome.APPLIED
    await fleet.executor.publish_pending()
    (resumed,) = fleet.of(events.AUTOMATION_RESUMED)
    assert (resumed.data["by"], resumed.data["reason"]) == ("ann", "it was the database")
    assert "production/f1" in resumed.data["halted_because"]


async def test_after_a_resumption_flips_are_counted_anew(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 3, 1)
    await fleet.flip("f0")
    assert await halted(fleet, "f1")
    fleet.now += 1
    resume(fleet)
    fleet.now += 1
    assert [await halted(fleet, "f1"), await halted(fleet, "f2")] == [False, True]


async def test_what_an_earlier_process_turned_back_counts(tmp_path: Path) -> None:
    await Fleet(tmp_path, 2, 1).flip("f0")
    assert await halted(Fleet(tmp_path, 2, 1), "f1")


async def test_flips_count_for_the_time_that_is_set(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 3, 1)
    await fleet.flip("f0")
    fleet.now += WITHIN + 1
    assert not await halted(fleet, "f1")
    fleet.now += WITHIN - 1
    assert await halted(fleet, "f2")


async def test_of_many_commands_at_the_same_instant_no_more_than_the_limit_are_carried_out(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 12, 3)
    results = await asyncio.gather(*(fleet.flip(name) for name in fleet.names))
    assert len(fleet.written) == 3
    assert [result.reason for result in results].count(Reason.HALTED) == 9
    assert len(fleet.of(events.AUTOMATION_HALTED)) == 1


async def test_executors_that_share_the_disk_share_the_limit(tmp_path: Path) -> None:
    first = Fleet(tmp_path, 6, 2)
    second = first.reborn()
    await asyncio.gather(*((first, second)[n % 2].flip(name) for n, name in enumerate(first.names)))
    assert len(first.written) == 2


async def test_a_flag_that_is_safe_already_costs_nothing_and_neither_does_one_that_somebody_changed(
    tmp_path: Path,
) -> None:
    fleet = Fleet(tmp_path, 4, 1)
    fleet.backends["f0"].edit("off")
    fleet.backends["f1"].edit("beta")
    assert (await fleet.flip("f0")).outcome is Outcome.ALREADY
    assert (await fleet.flip("f1")).outcome is Outcome.CONFLICT
    assert (await fleet.flip("f2")).outcome is Outcome.APPLIED
    assert await halted(fleet, "f3")
    # What needs no write is answered during a halt too.
    fleet.backends["f3"].edit("off")
    assert (await fleet.flip("f3")).outcome is Outcome.ALREADY


async def test_one_flag_counts_once_however_often_it_is_turned_back(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 2, 1)
    for _ in range(3):
        assert not await halted(fleet, "f0")
        fleet.backends["f0"].edit("on")
        await fleet.executor.read_flag("f0", "production")
    assert await halted(fleet, "f1")


async def test_a_flag_that_could_not_be_written_holds_no_place_and_is_counted_when_it_can_be(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 2, 1)
    raw = sign(fleet.command("f0"), KEY)
    fleet.backends["f0"].faults["apply"] = [Permission("403")]
    assert not (await fleet.executor.execute(raw)).final
    assert (await fleet.flip("f1")).outcome is Outcome.APPLIED
    assert (await fleet.executor.execute(raw)).reason is Reason.HALTED
    assert fleet.written == ["f1"]


async def test_a_flag_whose_command_is_sent_again_counts_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Pace(monkeypatch, Time(call_s=0.2))
    fleet = Fleet(tmp_path, 2, 1)
    fleet.backends["f0"].faults["apply"] = [Permission("403"), Fault.HANG_AFTER]
    assert not (await fleet.flip("f0")).final
    # The first sending has expired, and a second one finds its entry.
    fleet.now += 65.0
    again = asyncio.create_task(fleet.flip("f0"))
    while not fleet.written:
        await asyncio.sleep(0)
    assert await halted(fleet, "f1")
    assert (await again).outcome is Outcome.APPLIED
    assert fleet.written == ["f0"]


async def test_the_companion_of_a_flag_that_is_sent_again_keeps_its_place_whatever_became_of_it_at_first(
    tmp_path: Path,
) -> None:
    fleet = Fleet(tmp_path, 3, 2, groups={"f0": ["f1"]})
    fleet.backends["f0"].faults["apply"] = [Permission("403")]
    first = fleet.command("f1", of="f0")
    assert not (await fleet.flip("f0")).final
    fleet.backends["f1"].edit("beta")
    assert (await fleet.executor.execute(sign(first, KEY))).outcome is Outcome.CONFLICT
    fleet.backends["f1"].edit("on")
    await fleet.executor.read_flag("f1", "production")
    fleet.now += 65.0
    again = fleet.command("f1", of="f0")
    assert (await fleet.flip("f0")).outcome is Outcome.APPLIED
    assert await halted(fleet, "f2")
    assert (await fleet.executor.execute(sign(again, KEY))).outcome is Outcome.APPLIED
    assert fleet.written == ["f0", "f1"]


async def test_a_flag_that_a_person_made_safe_before_the_second_attempt_costs_nothing_and_halts_nothing(
    tmp_path: Path,
) -> None:
    fleet = Fleet(tmp_path, 2, 1)
    raw = sign(fleet.command("f0"), KEY)
    fleet.backends["f0"].faults["apply"] = [Permission("403")]
    assert not (await fleet.executor.execute(raw)).final
    assert (await fleet.flip("f1")).outcome is Outcome.APPLIED
    fleet.backends["f0"].edit("off")
    await fleet.executor.read_flag("f0", "production")
    assert (await fleet.executor.execute(raw)).outcome is Outcome.ALREADY
    assert fleet.automation.halted() is None
    assert fleet.written == ["f1"]


@pytest.mark.parametrize("recovered", [False, True])
async def test_a_write_that_a_crash_left_without_a_record_counts_before_and_after_it_is_found(
    tmp_path: Path, recovered: bool
) -> None:
    fleet = Fleet(tmp_path, 2, 1)
    fleet.backends["f0"].faults["apply"] = [Fault.HANG_AFTER]
    flip = asyncio.create_task(fleet.flip("f0"))
    while not fleet.written:
        await asyncio.sleep(0)
    flip.cancel()
    await asyncio.wait([flip])
    reborn = fleet.reborn()
    if recovered:
        await reborn.executor.recover()
        assert len(reborn.of(events.FLAG_WRITTEN)) == 1
    assert await halted(reborn, "f1")


async def test_a_write_of_which_nobody_knows_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Pace(monkeypatch, Time(tries=3))
    fleet = Fleet(tmp_path, 2, 1)
    fleet.backends["f0"].faults["apply"] = [Fault.LIE]
    assert (await fleet.flip("f0")).outcome is Outcome.AMBIGUOUS
    fleet.now += 61
    assert await halted(fleet, "f1")


async def test_a_halt_in_the_middle_of_a_flip_stops_a_second_attempt_and_not_the_reading_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Pace(monkeypatch, Time(call_s=0.05))
    fleet = Fleet(tmp_path, 2, 2)
    fleet.backends["f0"].faults["apply"] = [Fault.HANG]
    flip = asyncio.create_task(fleet.flip("f0"))
    while "apply" not in fleet.backends["f0"].calls:
        await asyncio.sleep(0)
    halt(fleet)
    result = await flip
    assert (result.reason, result.final) == (Reason.HALTED, True)
    assert fleet.written == []
    assert fleet.backends["f0"].calls[-1] == "verify"


async def test_a_person_halts_and_resumes_whatever_was_counted(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 1, 1)
    halt(fleet)
    assert await halted(fleet, "f0")
    resume(fleet)
    assert not await halted(fleet, "f0")
    await fleet.executor.publish_pending()
    told = [event.type for event in fleet.told if event.type.startswith("flipback.automation.")]
    assert told == [events.AUTOMATION_HALTED, events.AUTOMATION_RESUMED]


async def test_what_a_person_orders_neither_counts_nor_is_refused(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 4, 1)
    assert not await halted(fleet, "f0", trigger=BY_HAND)
    assert not await halted(fleet, "f1")
    assert await halted(fleet, "f2")
    assert not await halted(fleet, "f2", trigger=BY_HAND)
    assert fleet.written == ["f0", "f1", "f2"]


async def test_who_halted_is_told_once_however_often_it_is_looked_for(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 1, 1)
    halt(fleet)
    for process in (fleet, fleet.reborn()):
        for _ in range(3):
            await process.executor.publish_pending()
        assert [event.type for event in process.told] == ([events.AUTOMATION_HALTED] if process is fleet else [])


async def test_a_halt_that_could_not_be_told_is_told_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet(tmp_path, 1, 1)
    halt(fleet)

    async def away(_: object) -> None:
        raise OSError("broker away")

    with monkeypatch.context() as patch:
        patch.setattr(fleet.executor._outbox, "_emit", away)
        await fleet.executor.publish_pending()
    await fleet.executor.publish_pending()
    assert [event.type for event in fleet.told] == [events.AUTOMATION_HALTED]


async def test_a_process_that_stands_still_with_the_lock_is_named_and_a_person_is_not_kept(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 2, 2)
    with Automation(tmp_path).locked():
        result = await fleet.flip("f0")
        assert (result.outcome, result.final) == (Outcome.REJECTED, False)
        assert "does not let go" in result.detail
        assert (await fleet.flip("f1", trigger=BY_HAND)).outcome is Outcome.APPLIED
    assert (await fleet.flip("f0")).outcome is Outcome.APPLIED


def test_a_halt_that_a_crash_cut_short_was_never_made(tmp_path: Path) -> None:
    automation = Automation(tmp_path)
    with automation.locked():
        automation.halt("first", by="ann", at=1.0)
        automation.resume("well", by="ann", at=2.0)
        (path,) = tmp_path.glob("automation*")
        whole = path.read_bytes()
        automation.halt("second", by="ann", at=3.0)
        for cut in range(len(whole), len(path.read_bytes()) - 1):
            path.write_bytes((whole + path.read_bytes()[len(whole) :])[:cut])
            assert automation.halted() is None
        assert automation.halt("third", by="ann", at=4.0) is not None
    halt = Automation(tmp_path).halted()
    assert halt is not None
    assert halt.data["reason"] == "third"


DAY = 86_400.0


@pytest.mark.parametrize("ahead", [10.0, DAY])
async def test_a_resumption_noted_by_a_clock_that_was_ahead_lets_no_more_through_than_the_limit(
    tmp_path: Path, ahead: float
) -> None:
    fleet = Fleet(tmp_path, 10, 1)
    halt(fleet)
    fleet.now += ahead
    resume(fleet)
    fleet.now -= ahead
    for name in fleet.names:
        fleet.now += 0.5
        await fleet.flip(name)
    assert len(fleet.written) == 1


async def test_a_flip_noted_by_a_clock_that_was_ahead_counts_for_the_time_that_is_set_and_no_longer(
    tmp_path: Path,
) -> None:
    fleet = Fleet(tmp_path, 4, 2)
    fleet.now += 7 * DAY
    await fleet.flip("f0")
    fleet.now -= 7 * DAY
    assert not await halted(fleet, "f1")
    fleet.now += WITHIN + 1
    assert not await halted(fleet, "f2")
    # To the next process it is as of now once more.
    assert await halted(fleet.reborn(), "f3")


async def test_a_write_that_was_given_up_counts_for_the_time_that_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = Fleet(tmp_path, 2, 1)
    fleet.backends["f0"].faults["apply"] = [Fault.DROP_AFTER]
    fleet.backends["f0"].faults["verify"] = [Permission("403")] * 100
    raw = sign(fleet.command("f0"), KEY)
    await fleet.executor.execute(raw)
    monkeypatch.setattr("agent.executor.ambiguity.GIVE_UP_S", 0.0)
    assert (await fleet.executor.execute(raw)).final
    assert await halted(fleet, "f1")
    fleet.now += WITHIN + 1
    resume(fleet)
    assert not await halted(fleet, "f1")


GROUP = {"f0": ["f1", "f2"]}


async def test_a_group_counts_as_its_flags_and_is_refused_as_a_whole(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 4, 3, groups=GROUP)
    assert not await halted(fleet, "f3")
    assert [await halted(fleet, name, of="f0") for name in ("f0", "f1", "f2")] == [True, True, True]
    assert fleet.written == ["f3"]


async def test_the_rest_of_a_group_is_carried_out_although_another_incident_has_halted_meanwhile(
    tmp_path: Path,
) -> None:
    fleet = Fleet(tmp_path, 4, 3, groups=GROUP)
    made = [sign(fleet.command(name, of="f0"), KEY) for name in ("f0", "f1", "f2")]
    assert (await fleet.executor.execute(made[0])).outcome is Outcome.APPLIED
    # Two of the three places are held for the rest of the group.
    assert await halted(fleet, "f3")
    for raw in made[1:]:
        assert (await fleet.executor.execute(raw)).outcome is Outcome.APPLIED
    assert fleet.written == ["f0", "f1", "f2"]


async def test_a_persons_halt_stops_what_is_still_to_be_written_of_a_group(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 3, 3, groups=GROUP)
    made = [sign(fleet.command(name, of="f0"), KEY) for name in ("f0", "f1", "f2")]
    await fleet.executor.execute(made[0])
    halt(fleet)
    assert (await fleet.executor.execute(made[1])).reason is Reason.HALTED
    assert fleet.written == ["f0"]


async def test_flags_of_a_group_that_are_safe_already_cost_nothing(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 4, 2, groups=GROUP)
    fleet.backends["f1"].edit("off")
    for name in fleet.names:
        await fleet.executor.read_flag(name, "production")
    made = [sign(fleet.command(name, of="f0"), KEY) for name in ("f0", "f1", "f2")]
    outcomes = [(await fleet.executor.execute(raw)).outcome for raw in made]
    assert outcomes == [Outcome.APPLIED, Outcome.ALREADY, Outcome.APPLIED]
    assert await halted(fleet, "f3")


steps = st.lists(
    st.tuples(
        st.sampled_from(["flip", "flip", "flip", "both", "on", "off", "wait", "restart", "resume", "deny"]),
        st.integers(0, 5),
        st.integers(1, 300),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(steps=steps, most=st.integers(1, 3))
def test_no_more_flags_than_the_limit_are_ever_written_within_the_time(
    steps: list[tuple[str, int, int]], most: int
) -> None:
    async def live(directory: Path) -> None:
        fleet = Fleet(directory, 6, most)
        writes: list[tuple[float, str]] = []
        resumed = 0.0
        for kind, number, seconds in steps:
            name = f"f{number}"
            before = fleet.written
            if kind == "flip":
                await fleet.flip(name)
            elif kind == "both":
                await asyncio.gather(fleet.flip(name), fleet.flip(f"f{(number + 1) % 6}"))
            elif kind == "wait":
                fleet.now += seconds
            elif kind == "restart":
                fleet = fleet.reborn()
                await fleet.executor.recover()
            elif kind == "deny":
                fleet.backends[name].faults["apply"] = [Permission("403")]
            elif kind == "resume":
                with fleet.automation.locked():
                    if fleet.automation.resume("", by="ann", at=fleet.now):
                        resumed = fleet.now
            else:
                fleet.backends[name].edit(kind)
                await fleet.executor.read_flag(name, "production")
            new = fleet.written
            for flag in set(new):
                writes += [(fleet.now, flag)] * (new.count(flag) - before.count(flag))
            since = max(fleet.now - WITHIN, resumed)
            assert len({flag for at, flag in writes if at > since}) <= most
        fleet.executor.close()

    with TemporaryDirectory() as directory:
        asyncio.run(live(Path(directory)))


def run(home: Path, *arguments: str) -> int:
    with pytest.raises(SystemExit) as exited:
        cli.main([*arguments, "-c", str(home / "flipback.yaml")])
    assert isinstance(exited.value.code, int)
    return exited.value.code


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "flipback.yaml").write_text(CONFIG)
    return tmp_path


def test_halt_and_resume_need_nothing_but_the_state_directory(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    automation, ledger = Automation(home / ".flipback"), Ledger(home / ".flipback" / "ledger")
    assert run(home, "halt", "--reason", "database is down") == 0
    halt = automation.halted()
    assert halt is not None
    assert halt.data["reason"] == "database is down"
    assert halt.data["by"] != ITSELF
    assert run(home, "halt", "--reason", "again") == 0
    assert "halted already" in capsys.readouterr().out
    assert run(home, "resume", "--reason", "it is up") == 0
    assert "database is down" in capsys.readouterr().out
    assert automation.halted() is None
    assert run(home, "resume", "--reason", "again") == 0
    assert "not halted" in capsys.readouterr().out
    assert list(ledger.entries()) == []


@pytest.mark.parametrize("name", ["halt", "resume"])
def test_a_reason_must_be_given(home: Path, name: str) -> None:
    assert run(home, name) == 2
