from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.backends.contract import Cas, FlagRef, Outcome
from agent.commands.command import BY_HAND, Command, Evidence, Reason, sign
from agent.commands.expiry import CLOCK_SKEW_S
from agent.commands.keys import PrivateKey
from agent.control.restore import orders
from agent.errors import Auth, Failed, Invalid, LedgerError, NotFound, Permission, Throttled, Transient, Unsent
from agent.events import cloudevents as events
from agent.events.cloudevents import Event, from_kafka, to_kafka
from agent.events.wording import sentence
from agent.executor.executor import Executor
from agent.executor.limits import FlipRate
from agent.executor.result import ExecutionResult
from agent.executor.settings import FlipPace, Permissions
from agent.ledger.automation import Automation
from agent.ledger.entry import Entry
from agent.ledger.ledger import Ledger
from agent.state.allowlist import ManagedFlag
from agent.state.flags import FlagWatch
from agent.views.explain import explain
from tests.support.commands import issued
from tests.support.fake_backend import FakeBackend, Fault
from tests.support.pace import AMPLE, Pace, Time

KEY = PrivateKey(Ed25519PrivateKey.generate())
REF = FlagRef("new-checkout", "production")
MANAGED = ManagedFlag("new-checkout", "production", "shop", "files", "off")
COOLDOWN = 60.0
EVIDENCE = Evidence(
    metric="error_rate",
    scope="production/shop",
    window=(940.0, 1000.0),
    op=">",
    threshold=0.02,
    value=0.2,
    samples=100,
    counts={"requests": 100, "errors": 20},
    sources=2,
    age_s=1.0,
    first_true_at=900.0,
    fired_at=1001.0,
)
DONE = [events.COMMAND_RECEIVED, events.FLAG_SNAPSHOT, events.FLAG_WRITTEN, events.FLAG_VERIFIED]


def command(**changes: object) -> Command:
    words: dict[str, object] = {
        "flag": "new-checkout",
        "environment": "production",
        "service": "shop",
        "backend": "files",
        "target": "off",
        "trigger": "errors",
        "flag_version": "g1-v-on",
        "issued_at": 1000.0,
        "rules_hash": "r",
        "evidence": EVIDENCE,
    }
    return issued(**{**words, **changes})


def signed(**changes: object) -> bytes:
    return sign(command(**changes), KEY)


class Desk:
    """An executor and all that it works with."""

    def __init__(self, directory: Path, backend: FakeBackend | None = None) -> None:
        self.backend = backend or FakeBackend()
        self.now = 1001.0
        self.told: list[Event] = []
        self.ledger = Ledger(directory)
        self.watch = FlagWatch()
        self.tell: Callable[[Event], None] = self.told.append
        self.executor = Executor(
            Permissions([MANAGED], {"files": self.backend}, {KEY.id: KEY.public}),
            self.ledger,
            Automation(directory),
            FlipPace(FlipRate(1, 600.0), cooldown_s=COOLDOWN, budget_s=AMPLE.whole_s),
            watch=self.watch,
            emit=self.emit,
            now=lambda: self.now,
        )
        # A busy machine is no slow disk.
        self.executor._disk._limit_s = 30.0

    async def emit(self, event: Event) -> None:
        _, value, headers = to_kafka(event)
        self.tell(from_kafka(value, headers))

    async def execute(self, raw: bytes) -> ExecutionResult:
        return await self.executor.execute(raw)

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.told]

    @property
    def entry(self) -> Entry | None:
        return self.ledger.get(command().id)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "ledger")


async def test_a_valid_command_makes_the_flag_safe_and_every_step_is_told(desk: Desk) -> None:
    result = await desk.execute(signed())
    assert (result.outcome, result.final) == (Outcome.APPLIED, True)
    assert result.status is not None
    assert result.status.safe
    assert result.status.version == "g2-v-off"
    assert desk.backend.writes == ["off"]
    # A backend that keeps the operation beside the flag is asked for the very one.
    assert desk.backend.written_by == desk.backend.read_back == [command().id]
    assert desk.types == DONE
    assert msgspec.convert(desk.told[0].data["command"], Command) == command()
    # The definition may hold secrets: what is published names it, what restores it stays in the ledger.
    assert "raw" not in desk.told[1].data
    assert desk.told[1].data["sha256"] == hashlib.sha256(b"on").hexdigest()
    assert desk.told[1].data["bytes"] == 2
    assert {event.data["incident"] for event in desk.told} == {command().incident}
    assert {event.subject for event in desk.told} == {"production/new-checkout"}


REFUSED: list[tuple[str, bytes, Reason]] = [
    ("forged", sign(command(), PrivateKey(Ed25519PrivateKey.generate())), Reason.UNKNOWN_KEY),
    ("altered", signed()[:-1] + b"!", Reason.BAD_SIGNATURE),
    ("garbage", b"garbage", Reason.MALFORMED),
    ("empty", b"", Reason.MALFORMED),
    ("oversized", b"FBC1" + bytes(70_000), Reason.OVERSIZED),
    ("wrong id", sign(msgspec.structs.replace(command(), id=command().incident), KEY), Reason.WRONG_ID),
    ("unknown flag", signed(flag="other"), Reason.UNKNOWN_FLAG),
    ("other environment", signed(environment="staging"), Reason.UNKNOWN_FLAG),
    ("other service", signed(service="search"), Reason.WRONG_SERVICE),
    ("other backend", signed(backend="elsewhere"), Reason.WRONG_BACKEND),
    ("unsafe state", signed(target="on"), Reason.WRONG_STATE),
    ("undeclared state", signed(target="maybe"), Reason.WRONG_STATE),
    ("expired", signed(issued_at=1001.0 - 60), Reason.EXPIRED),
    ("long expired", signed(issued_at=0.0), Reason.EXPIRED),
    ("from the future", signed(issued_at=1001.5 + CLOCK_SKEW_S), Reason.FROM_THE_FUTURE),
]


@pytest.mark.parametrize(("raw", "reason"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
async def test_what_is_refused_does_nothing_and_is_audited(desk: Desk, raw: bytes, reason: Reason) -> None:
    result = await desk.execute(raw)
    assert (result.outcome, result.reason, result.final) == (Outcome.REJECTED, reason, True)
    assert desk.backend.calls == []
    assert desk.entry is None
    assert desk.types == [events.COMMAND_REJECTED]
    assert desk.told[0].data["reason"] == reason
    assert desk.told[0].data["detail"]


async def test_a_refusal_that_is_delivered_again_has_the_same_id(desk: Desk) -> None:
    for raw in (b"garbage", b"garbage", b"other", signed(target="on"), signed(target="on")):
        await desk.execute(raw)
    ids = [event.id for event in desk.told]
    assert ids[0] == ids[1] != ids[2]
    assert ids[3] == ids[4]


async def test_a_forgers_words_are_not_repeated_in_the_audit(desk: Desk) -> None:
    await desk.execute(sign(command(flag="lies"), PrivateKey(Ed25519PrivateKey.generate())))
    assert "lies" not in str(desk.told)


async def test_a_clock_that_is_a_little_behind_refuses_nothing(desk: Desk) -> None:
    assert (await desk.execute(signed(issued_at=1001.0 + CLOCK_SKEW_S))).outcome is Outcome.APPLIED


async def test_a_replayed_command_is_known_and_does_nothing(desk: Desk) -> None:
    await desk.execute(signed())
    desk.backend.edit("on")
    # Long after it expired, too: it is known for what it is.
    for now in (1002.0, 2000.0):
        desk.now = now
        result = await desk.execute(signed())
        assert (result.outcome, result.reason) == (Outcome.DUPLICATE, Reason.DUPLICATE)
    assert desk.backend.variant == "on"
    assert desk.backend.writes == ["off"]
    assert desk.types == [*DONE, events.COMMAND_REJECTED, events.COMMAND_REJECTED]
    assert desk.told[-1].data["reason"] == Reason.DUPLICATE


async def test_the_same_incident_signed_again_is_the_same_command(desk: Desk) -> None:
    await desk.execute(signed())
    desk.now = 1100.0
    assert (await desk.execute(signed(issued_at=1099.0))).outcome is Outcome.DUPLICATE


async def test_a_flag_that_is_safe_already_is_left_alone(desk: Desk) -> None:
    desk.backend.edit("off")
    result = await desk.execute(signed())
    assert result.outcome is Outcome.ALREADY
    assert desk.backend.writes == []
    assert desk.types == [events.COMMAND_RECEIVED, events.FLAG_ALREADY]


async def test_a_second_trigger_of_the_same_outage_finds_the_flag_safe(desk: Desk) -> None:
    await desk.execute(signed())
    assert (await desk.execute(signed(trigger="slow"))).outcome is Outcome.ALREADY
    assert desk.backend.writes == ["off"]


async def test_a_flag_is_not_flipped_twice_within_the_cooldown(desk: Desk) -> None:
    await desk.execute(signed())
    desk.backend.edit("on")
    desk.watch.observe(REF, await desk.backend.read(REF, deadline=0.0), safe="off", at=1002.0)
    desk.now = 1000.5 + COOLDOWN
    later = signed(flag_version="g3-v-on", issued_at=desk.now)
    result = await desk.execute(later)
    assert (result.outcome, result.reason) == (Outcome.REJECTED, Reason.COOLDOWN)
    assert desk.types[-1] == events.COMMAND_REJECTED
    desk.now = 1001.5 + COOLDOWN
    assert (await desk.execute(later)).outcome is Outcome.APPLIED


async def test_a_flag_that_a_person_changed_since_it_was_judged_is_left_alone(desk: Desk) -> None:
    desk.backend.edit("beta")
    result = await desk.execute(signed())
    assert result.outcome is Outcome.CONFLICT
    assert desk.backend.variant == "beta"
    assert desk.backend.writes == []
    assert desk.types == [events.COMMAND_RECEIVED, events.FLAG_CONFLICT]
    assert desk.told[-1].data["expected"] == "g1-v-on"
    assert desk.told[-1].data["flag_version"] == "g1-v-beta"


async def test_a_flag_turned_off_and_on_again_is_not_the_one_that_was_judged(desk: Desk) -> None:
    for variant in ("on", "off", "on"):
        desk.backend.edit(variant)
        desk.watch.observe(REF, await desk.backend.read(REF, deadline=0.0), safe="off", at=1000.0)
    assert (await desk.execute(signed())).outcome is Outcome.CONFLICT
    assert desk.backend.variant == "on"


async def test_a_flag_turned_off_and_on_again_between_two_attempts_is_left_alone(desk: Desk) -> None:
    desk.backend.faults["apply"] = [Permission("403")]
    assert not (await desk.execute(signed())).final
    for variant in ("off", "on"):
        desk.backend.edit(variant)
        await desk.executor.read_flag(*REF)
    result = await desk.execute(signed())
    assert (result.outcome, desk.backend.variant, desk.backend.writes) == (Outcome.CONFLICT, "on", [])
    assert desk.types[-1] == events.FLAG_CONFLICT
    assert desk.entry is not None
    assert desk.entry.settled


@pytest.mark.parametrize("operation", ["apply", "verify"])
async def test_a_persons_edit_in_the_middle_of_a_flip_stays(
    desk: Desk, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = desk.backend._begin

    async def edit_first(name: str, ref: FlagRef, deadline: float) -> str | None:
        fault = await original(name, ref, deadline)
        if name == operation:
            desk.backend.edit("beta")
        return fault

    monkeypatch.setattr(desk.backend, "_begin", edit_first)
    result = await desk.execute(signed())
    assert result.outcome is Outcome.CONFLICT
    assert desk.backend.variant == "beta"
    assert desk.types[-1] == events.FLAG_CONFLICT


async def test_a_flag_turned_on_again_before_the_flip_was_read_back_is_a_new_version(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = desk.backend._begin

    async def edit_first(name: str, ref: FlagRef, deadline: float) -> str | None:
        if name == "verify":
            desk.backend.edit("on")
        return await original(name, ref, deadline)

    monkeypatch.setattr(desk.backend, "_begin", edit_first)
    result = await desk.execute(signed())
    assert (result.outcome, desk.backend.variant) == (Outcome.CONFLICT, "on")
    # Were it the version that was judged, its trigger would stay latched, and nothing guard the flag from here on.
    assert result.status is not None
    assert (result.status.version, result.status.changed_at) == ("g3-v-on", desk.now)
    assert desk.told[-2].data["flag_version"] == "g2-v-off"


async def test_the_snapshot_is_durable_before_anything_is_written(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Entry | None] = []
    original = desk.backend._write

    async def look(*arguments: object) -> object:
        found.append(Ledger(tmp_path / "ledger").get(command().id))
        return await original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(desk.backend, "_write", look)
    await desk.execute(signed())
    (entry,) = found
    assert entry is not None
    assert entry.opened.snapshot.state.raw == "on"
    assert not entry.settled


async def test_the_flag_is_safe_before_the_first_event_is_told(desk: Desk) -> None:
    seen: list[str] = []
    desk.tell = lambda event: seen.append(desk.backend.variant)
    await desk.execute(signed())
    assert seen == ["off"] * 4


async def test_a_hanging_audit_log_holds_up_no_other_command(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    hang, second_told = asyncio.Event(), asyncio.Event()

    async def emit(event: Event) -> None:
        if event.data["trigger"] == "slow":
            second_told.set()
        await hang.wait()

    desk.executor._outbox._emit = emit
    first = asyncio.create_task(desk.execute(signed()))
    second = asyncio.create_task(desk.execute(signed(trigger="slow")))
    await second_told.wait()
    assert desk.backend.variant == "off"
    hang.set()
    assert [(await first).outcome, (await second).outcome] == [Outcome.APPLIED, Outcome.ALREADY]


async def test_events_that_could_not_be_told_are_told_later(desk: Desk) -> None:
    def fail(event: Event) -> None:
        if event.type == events.FLAG_SNAPSHOT:
            raise OSError("broker away")
        desk.told.append(event)

    desk.tell = fail
    assert (await desk.execute(signed())).outcome is Outcome.APPLIED
    first = [*desk.told]
    desk.tell = desk.told.append
    await desk.executor.publish_pending()
    again = desk.told[len(first) :]
    assert [event.type for event in again] == DONE
    assert {event.id for event in first} < {event.id for event in again}
    await desk.executor.publish_pending()
    assert len(desk.told) == len(first) + len(again)


async def test_a_step_that_another_process_adds_is_told(desk: Desk, tmp_path: Path) -> None:
    await desk.execute(signed())
    other = Ledger(tmp_path / "ledger")
    entry = other.get(command().id)
    assert entry is not None
    other.append(entry, msgspec.structs.replace(desk.told[-1], type=events.FLAG_RESTORED, id="restored"))
    for _ in range(3):
        await desk.executor.publish_pending()
    assert desk.types == [*DONE, events.FLAG_RESTORED]


async def test_the_same_inability_is_told_once(desk: Desk) -> None:
    desk.backend.faults["snapshot"] = [Permission("403"), Permission("403"), NotFound("404")]
    for _ in range(3):
        assert not (await desk.execute(signed())).final
    assert [event.data["reason"] for event in desk.told] == ["403", "404"]


async def test_a_look_at_a_flag_waits_for_a_flip_and_sees_its_end(desk: Desk) -> None:
    first = await desk.executor.read_flag("new-checkout", "production")
    assert (first.version, first.safe) == ("g1-v-on", False)
    flip = asyncio.create_task(desk.execute(signed()))
    # One turn of the loop: the flip begins.
    await asyncio.sleep(0)
    looked = await desk.executor.read_flag("new-checkout", "production")
    assert (looked.version, looked.safe) == ("g2-v-off", True)
    assert (await flip).status is not None


@pytest.mark.parametrize("fault", [Fault.DROP_AFTER, Fault.HANG_AFTER])
async def test_a_write_whose_answer_was_lost_is_found_by_reading_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    Pace(monkeypatch, Time(call_s=0.05))
    desk = Desk(tmp_path)
    desk.backend.faults["apply"] = [fault]
    assert (await desk.execute(signed())).outcome is Outcome.APPLIED
    assert desk.backend.calls.count("apply") == 1
    assert desk.types == DONE


@pytest.mark.parametrize("cas", [Cas.NATIVE, Cas.LOCAL])
@pytest.mark.parametrize("fault", [Transient("503"), Fault.HANG])
async def test_a_write_that_did_not_land_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str | Transient, cas: Cas
) -> None:
    Pace(monkeypatch, Time(call_s=0.05))
    desk = Desk(tmp_path, FakeBackend(cas=cas))
    desk.backend.faults["apply"] = [fault]
    assert (await desk.execute(signed())).outcome is Outcome.APPLIED
    assert desk.backend.calls == ["snapshot", "apply", "verify", "apply", "verify"]
    assert desk.backend.writes == ["off"]
    (written,) = [event for event in desk.told if event.type == events.FLAG_WRITTEN]
    assert (written.data["attempts"], written.data["version"]) == (2, "v-off")


async def test_without_compare_and_set_a_doubtful_write_is_not_made_again(tmp_path: Path) -> None:
    desk = Desk(tmp_path, FakeBackend(cas=Cas.NONE))
    desk.backend.faults["apply"] = [Transient("503")]
    result = await desk.execute(signed())
    assert (result.outcome, result.final) == (Outcome.AMBIGUOUS, False)
    assert desk.backend.calls.count("apply") == 1
    assert desk.types[-1] == events.FLAG_AMBIGUOUS
    assert "a second one is not safe" in result.detail


async def test_a_write_that_was_confirmed_and_cannot_be_seen_is_ambiguous_and_never_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Pace(monkeypatch, Time(tries=3))
    desk = Desk(tmp_path)
    desk.backend.faults["apply"] = [Fault.LIE]
    result = await desk.execute(signed())
    assert result.outcome is Outcome.AMBIGUOUS
    assert "confirmed" in result.detail
    assert (await desk.execute(signed())).outcome is Outcome.AMBIGUOUS
    assert desk.backend.calls.count("apply") == 1
    assert desk.types.count(events.FLAG_AMBIGUOUS) == 1
    assert len({event.id for event in desk.told}) == len(desk.told)


async def test_what_was_acknowledged_and_cannot_be_read_back_is_settled_as_unverified(desk: Desk) -> None:
    desk.backend.blind = True
    result = await desk.execute(signed())
    assert (result.outcome, result.final) == (Outcome.APPLIED, True)
    assert "acknowledged; it cannot be read back" in result.detail
    assert desk.types == [*DONE[:-1], events.FLAG_UNVERIFIED]
    assert desk.told[-1].data["detail"] == result.detail
    assert (await desk.execute(signed())).outcome is Outcome.DUPLICATE
    assert desk.backend.calls.count("apply") == 1


async def test_a_lost_acknowledgement_that_cannot_be_read_back_is_ambiguous_and_tried_no_more(tmp_path: Path) -> None:
    desk = Desk(tmp_path, FakeBackend(cas=Cas.NONE))
    desk.backend.blind = True
    desk.backend.faults["apply"] = [Fault.DROP_AFTER]
    result = await desk.execute(signed())
    assert (result.outcome, result.final) == (Outcome.AMBIGUOUS, True)
    assert "cannot be read back" in result.detail
    assert desk.types[-1] == events.FLAG_AMBIGUOUS
    assert (await desk.execute(signed())).outcome is Outcome.AMBIGUOUS
    assert desk.backend.calls.count("apply") == 1


async def test_a_write_that_the_system_itself_says_has_failed_is_made_again(tmp_path: Path) -> None:
    desk = Desk(tmp_path, FakeBackend(cas=Cas.NONE))
    desk.backend.faults["apply"] = [Failed("503")]
    assert (await desk.execute(signed())).outcome is Outcome.APPLIED
    assert desk.backend.calls == ["snapshot", "apply", "verify", "apply", "verify"]


async def test_what_never_reached_the_backend_is_sent_again_without_a_read_back(tmp_path: Path) -> None:
    desk = Desk(tmp_path, FakeBackend(cas=Cas.NONE))
    desk.backend.blind = True
    desk.backend.faults["apply"] = [Unsent("refused"), Unsent("refused")]
    assert (await desk.execute(signed())).outcome is Outcome.APPLIED
    assert desk.backend.calls == ["snapshot", "apply", "apply", "apply", "verify"]
    assert desk.backend.writes == ["off"]


@pytest.mark.parametrize("operation", ["snapshot", "apply", "verify"])
async def test_a_backend_that_hangs_leaves_an_outcome_within_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    Pace(monkeypatch, Time(call_s=0.05, tries=3))
    desk = Desk(tmp_path)
    desk.backend.faults[operation] = [Fault.HANG] * 100
    async with asyncio.timeout(20):
        result = await desk.execute(signed())
    expected = Outcome.REJECTED if operation == "snapshot" else Outcome.AMBIGUOUS
    assert (result.outcome, result.final) == (expected, False)
    assert desk.types[-1] == (events.INABILITY if operation == "snapshot" else events.FLAG_AMBIGUOUS)
    desk.backend.faults.clear()
    assert (await desk.execute(signed())).outcome is Outcome.APPLIED
    assert desk.backend.writes == ["off"]


async def test_a_throttled_backend_is_given_the_time_it_asks_for(desk: Desk) -> None:
    desk.backend.faults["snapshot"] = [Throttled("429", 0.01)]
    desk.backend.faults["apply"] = [Throttled("429", 0.01)]
    assert (await desk.execute(signed())).outcome is Outcome.APPLIED
    assert desk.backend.calls == ["snapshot", "snapshot", "apply", "apply", "verify"]


@pytest.mark.parametrize("operation", ["snapshot", "apply"])
async def test_a_backend_that_asks_for_more_time_than_there_is_is_given_up_at_once(desk: Desk, operation: str) -> None:
    desk.backend.faults[operation] = [Throttled("429", 60.0)]
    async with asyncio.timeout(20):
        result = await desk.execute(signed())
    assert (result.outcome, result.final) == (Outcome.REJECTED, False)
    assert desk.types[-1] == events.INABILITY
    assert desk.backend.writes == []


@pytest.mark.parametrize("operation", ["snapshot", "apply"])
@pytest.mark.parametrize("error", [Permission("403"), Auth("401"), NotFound("404"), Invalid("400")])
async def test_a_backend_that_refuses_is_announced_and_not_asked_again(
    desk: Desk, operation: str, error: Permission
) -> None:
    desk.backend.faults[operation] = [error]
    result = await desk.execute(signed())
    assert (result.outcome, result.detail, result.final) == (Outcome.REJECTED, str(error), False)
    assert desk.backend.calls.count(operation) == 1
    assert desk.types[-1] == events.INABILITY
    assert desk.told[-1].data["reason"] == str(error)
    # What was wrong is put right, and the command comes again before it expires.
    assert (await desk.execute(signed())).outcome is Outcome.APPLIED


async def test_an_unfinished_command_is_not_written_after_it_expired(desk: Desk) -> None:
    desk.backend.faults["apply"] = [Permission("403")]
    await desk.execute(signed())
    desk.now = 1100.0
    result = await desk.execute(signed())
    assert (result.outcome, result.reason, result.final) == (Outcome.REJECTED, Reason.EXPIRED, True)
    assert desk.backend.writes == []


async def test_an_unfinished_command_that_was_written_is_finished_after_it_expired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Pace(monkeypatch, Time(call_s=0.05, tries=3))
    desk = Desk(tmp_path)
    desk.backend.faults["apply"] = [Fault.HANG_AFTER]
    desk.backend.faults["verify"] = [Fault.HANG] * 100
    assert (await desk.execute(signed())).outcome is Outcome.AMBIGUOUS
    desk.now = 1100.0
    desk.backend.faults.clear()
    assert (await desk.execute(signed())).outcome is Outcome.APPLIED
    assert desk.backend.writes == ["off"]


async def test_without_a_durable_snapshot_nothing_is_written(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("agent.ledger.ledger.os.fsync", full)
        result = await desk.execute(signed())
    assert (result.outcome, result.final) == (Outcome.REJECTED, False)
    assert "No space" in result.detail
    assert desk.backend.calls == ["snapshot"]
    assert desk.types == [events.INABILITY]
    assert (await desk.execute(signed())).outcome is Outcome.APPLIED


async def test_a_disk_that_fails_after_the_write_stops_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise LedgerError("No space left on device")

    monkeypatch.setattr(Ledger, "_append", full)
    assert (await desk.execute(signed())).outcome is Outcome.APPLIED
    assert desk.types == DONE
    assert desk.backend.writes == ["off"]


async def test_a_command_of_any_service_that_watches_the_flag_is_carried_out(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    other = ManagedFlag("new-checkout", "production", "payment", "files", "off")
    desk.executor._allowed._flags[REF].append(other)
    assert (await desk.execute(signed(service="payment"))).outcome is Outcome.APPLIED


def by_hand(by: str, reason: str, at: float) -> bytes:
    seen = msgspec.structs.replace(EVIDENCE, by=by, reason=reason, fired_at=at)
    return signed(trigger=BY_HAND, evidence=seen, issued_at=at)


async def test_an_order_that_is_given_again_before_it_is_done_keeps_each_persons_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Pace(monkeypatch, Time(tries=3))
    desk = Desk(tmp_path)
    desk.backend.faults["apply"] = [Fault.LIE]
    first, second = by_hand("ann", "customers call", 1000.0), by_hand("bob", "still broken", 1000.5)
    third = by_hand("cem", "please", 1000.75)
    for raw in (first, first, second, second, third):
        assert (await desk.execute(raw)).outcome is Outcome.AMBIGUOUS
    received = [event for event in desk.told if event.type == events.COMMAND_RECEIVED]
    assert [event.data["command"]["evidence"]["by"] for event in received] == ["ann", "bob", "cem"]
    assert len({event.id for event in received}) == 3
    found = explain(desk.told, received[0].data["incident"])
    assert found.evidence is not None
    assert (found.evidence.by, found.evidence.reason) == ("cem", "please")
    assert [sentence(event).rpartition(" by ")[2] for event in found.events if event in received] == [
        "ann: customers call",
        "bob: still broken",
        "cem: please",
    ]
    (entry,) = desk.ledger.entries()
    assert orders(entry) == [("ann", "customers call"), ("bob", "still broken"), ("cem", "please")]
