"""A rollout goes forward on evidence or by an approver, and towards safe from everywhere."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from agent.config.rollout_file import Approval, Gate, Rollout, RolloutStage, RolloutStep
from agent.rollouts.decide import decide
from agent.rollouts.inputs import (
    Abort,
    Actor,
    Approve,
    Condition,
    FlagChanged,
    Hold,
    Input,
    MadeSafe,
    Observation,
    Order,
    Person,
    Pin,
    PreflightDone,
    Program,
    Promote,
    Report,
    ReportCheck,
    Resume,
    StepRefused,
    StepVerified,
    Supersede,
    TriggerFired,
)
from agent.rollouts.record import FINAL, Place, RolloutRecord, State
from agent.rollouts.transitions import MakeSafe, Outcome, Refusal, WriteStep
from streams.settings import WholeSeconds

OLGA, ANNA, VICTOR = Person("olga", "operator"), Person("anna", "approver"), Person("victor", "viewer")
RITA = Person("rita", "approver")
"""Who starts the rollout."""
CONTROLLER = Program("controller")
DWELL, HOLD = 120, 60


def step(percent: float) -> RolloutStep:
    return RolloutStep(percent=percent, at_least=WholeSeconds(DWELL))


PLAN = Rollout(
    api_version="flipback/v1",
    rollout="checkout",
    flag="new-checkout",
    variant="on",
    stages=[
        RolloutStage(environment="development", steps=[step(50)]),
        RolloutStage(environment="staging", steps=[step(100)], checks=["e2e"]),
        RolloutStage(environment="production", steps=[step(10), step(25), step(50), step(100)], approval=Approval()),
    ],
    gate=Gate(hold=WholeSeconds(HOLD)),
)
STEPS = [Place(s, n) for s, stage in enumerate(PLAN.stages) for n in range(len(stage.steps))]


def new() -> RolloutRecord:
    return RolloutRecord(id="checkout-1", spec=PLAN, spec_hash="0" * 64, requested_by="rita")


GOOD = Observation((Condition("triggers", "met", "none pending"), Condition("samples", "met", "1,200 of 1,000")))
FEW = Observation((Condition("triggers", "met", "none pending"), Condition("samples", "unknown", "20 of 1,000")))
PENDING = Observation((Condition("triggers", "not met", "errors is pending"), Condition("samples", "met", "1,200")))

PERCENTS = st.sampled_from([0.0, 10.0, 25.0, 50.0, 100.0])
PLACES = st.sampled_from(STEPS)
STAGES = st.integers(0, 2)
INPUTS: st.SearchStrategy[Input] = st.one_of(
    st.just(PreflightDone("met", "12 checks")),
    st.sampled_from([GOOD, GOOD, GOOD, FEW, PENDING]),
    st.builds(StepVerified, PLACES, PERCENTS, st.just("v")),
    st.builds(StepRefused, PLACES, st.just("the flag has another version"), st.booleans()),
    st.builds(TriggerFired, STAGES, st.just("errors")),
    st.builds(MadeSafe, STAGES),
    st.builds(FlagChanged, STAGES, st.none() | PERCENTS, st.just("w"), st.just("somebody")),
    st.just(Approve("fine")),
    st.builds(Promote, st.sampled_from(["step", "stage", "full"]), st.just("in a hurry")),
    st.just(Hold("lunch")),
    st.builds(Resume, st.just("back"), st.booleans()),
    st.just(Abort("no")),
    st.builds(Pin, PERCENTS, st.floats(0, 4000), st.just("for a look")),
    st.builds(ReportCheck, st.sampled_from(["e2e", "load"]), st.booleans(), st.just("https://ci.example.org/1")),
    st.just(Supersede("checkout-2")),
)
ACTORS: st.SearchStrategy[Actor] = st.sampled_from([CONTROLLER, CONTROLLER, CONTROLLER, OLGA, ANNA, RITA, VICTOR])


class Run:
    """A rollout and the answers of an executor that does what it is told."""

    def __init__(self) -> None:
        self.record, self.now = new(), 1_000.0
        self.orders: list[WriteStep | MakeSafe] = []

    @property
    def state(self) -> str:
        return self.record.state

    def happens(self, happened: Input, actor: Actor = CONTROLLER, after: float = 1.0) -> Outcome | Refusal:
        self.now += after
        found = decide(self.record, happened, actor, self.now)
        if isinstance(found, Outcome):
            self.record = found.record
            self.orders += found.orders
        return found

    def obeyed(self) -> None:
        """The executor carries out the newest order."""
        order = self.orders[-1]
        assert isinstance(order, WriteStep)
        self.happens(StepVerified(order.place, order.percent, f"version-{len(self.orders)}"))

    def watched(self, seconds: int, observed: Observation = GOOD) -> None:
        for _ in range(seconds):
            self.happens(observed)

    def at(self, place: Place) -> Run:
        """Through open gates to a verified step."""
        self.happens(PreflightDone("met", "12 checks"))
        while True:
            self.obeyed()
            if self.record.place == place:
                return self
            if self.record.stage.checks:
                self.happens(ReportCheck("e2e", True, "https://ci.example.org/1"), OLGA)
            before = len(self.orders)
            for _ in range(DWELL + 2):
                self.happens(GOOD)
                if self.record.reason == "approval":
                    self.happens(Approve("fine"), ANNA)
                if len(self.orders) > before:
                    break


def test_a_healthy_rollout_takes_each_step_of_its_plan_once_in_order_and_completes() -> None:
    run = Run().at(STEPS[-1])
    assert [order.place for order in run.orders if isinstance(order, WriteStep)] == STEPS
    assert run.state == "baking"
    run.watched(DWELL + 2)
    assert run.state == "completed"
    assert len(run.orders) == len(STEPS)


@pytest.mark.parametrize("place", STEPS[:-1], ids=str)
def test_no_step_is_ordered_before_its_least_time_has_passed(place: Place) -> None:
    run = Run().at(place)
    ordered = len(run.orders)
    run.watched(DWELL - 1)
    assert len(run.orders) == ordered
    assert run.state == "progressing"


@pytest.mark.parametrize("observed", [FEW, PENDING], ids=["unknown", "not met"])
def test_a_gate_of_which_one_condition_is_missing_stays_shut(observed: Observation) -> None:
    run = Run().at(STEPS[0])
    run.watched(400, observed)
    assert len(run.orders) == 1
    assert run.state == "progressing"


def test_after_unknown_evidence_the_rollout_goes_on_by_itself() -> None:
    run = Run().at(STEPS[0])
    run.watched(900, FEW)
    run.watched(DWELL + 2)
    assert [type(order) for order in run.orders] == [WriteStep, WriteStep]


def test_the_dwell_begins_again_after_evidence_that_was_unknown_for_long() -> None:
    run = Run().at(STEPS[0])
    run.watched(DWELL - 1)
    run.watched(31, FEW)
    run.watched(DWELL - 1)
    assert len(run.orders) == 1


def test_seconds_that_nobody_watched_do_not_count() -> None:
    run = Run().at(STEPS[0])
    run.happens(GOOD)
    run.happens(GOOD, after=3600)
    assert len(run.orders) == 1
    assert run.record.dwell_s < DWELL


def test_who_asked_for_the_rollout_cannot_approve_it() -> None:
    run = Run().at(STEPS[1])
    run.happens(ReportCheck("e2e", True, "https://ci.example.org/1"), OLGA)
    run.watched(DWELL + 2)
    assert (run.state, run.record.reason) == ("paused", "approval")
    assert isinstance(run.happens(Approve("fine"), RITA), Refusal)
    assert len(run.orders) == 2
    run.happens(Approve("fine"), ANNA)
    assert run.orders[-1] == WriteStep(STEPS[2], 10, None)


def test_an_approval_that_is_asked_for_no_longer_waits_for_the_gate() -> None:
    run = Run().at(STEPS[1])
    run.happens(ReportCheck("e2e", True, "https://ci.example.org/1"), OLGA)
    run.watched(DWELL + 2)
    run.happens(PENDING)
    run.happens(Approve("fine"), ANNA)
    assert len(run.orders) == 2, "the approval is kept, and a trigger is pending"
    run.watched(HOLD + 2)
    assert run.orders[-1] == WriteStep(STEPS[2], 10, None)


@pytest.mark.parametrize("result", [None, False], ids=["no result", "failed"])
def test_a_stage_is_left_only_once_its_checks_have_passed(result: bool | None) -> None:
    run = Run().at(STEPS[1])
    if result is not None:
        run.happens(ReportCheck("e2e", result, "https://ci.example.org/1"), OLGA)
    run.watched(400)
    assert len(run.orders) == 2
    assert run.state == "progressing"


def test_the_next_step_starts_from_the_version_that_the_step_before_left() -> None:
    run = Run().at(STEPS[3])
    order = run.orders[-1]
    assert isinstance(order, WriteStep)
    assert order.expected_version == "version-3"


@pytest.mark.parametrize("place", STEPS, ids=str)
def test_a_trigger_that_fires_makes_the_flag_of_every_stage_safe(place: Place) -> None:
    run = Run().at(place)
    reached = range(place.stage + 1)
    run.happens(TriggerFired(place.stage, "error_rate 7.1 % > 2 %"))
    assert run.state == "rolling-back"
    assert [order for order in run.orders if isinstance(order, MakeSafe)] == [
        MakeSafe(stage, "error_rate 7.1 % > 2 %") for stage in reached
    ]
    for stage in reached:
        assert run.state == "rolling-back"
        run.happens(MadeSafe(stage))
    assert run.state == "rolled-back"


def test_a_completed_rollout_is_rolled_back_too() -> None:
    run = Run().at(STEPS[-1])
    run.watched(DWELL + 2)
    run.happens(TriggerFired(2, "errors"))
    assert run.state == "rolling-back"


def test_a_trigger_and_an_open_gate_in_the_same_second_roll_back() -> None:
    run = Run().at(STEPS[3])
    run.watched(DWELL - 1)
    run.now -= 1
    run.happens(TriggerFired(2, "errors"))
    ordered = len(run.orders)
    run.watched(5)
    assert run.state == "rolling-back"
    assert len(run.orders) == ordered


def test_a_change_by_somebody_else_pauses_and_is_never_overwritten() -> None:
    run = Run().at(STEPS[3])
    run.happens(FlagChanged(2, 10.0, "theirs", "someone lowered it to 10 %"))
    assert (run.state, run.record.reason) == ("paused", "conflict")
    run.watched(400)
    assert isinstance(run.happens(Resume("go on"), ANNA), Refusal)
    ordered = len(run.orders)
    run.happens(Resume("go on", adopt=True), ANNA)
    assert run.record.place == STEPS[2]
    assert len(run.orders) == ordered
    run.watched(DWELL + 2)
    assert run.orders[-1] == WriteStep(STEPS[3], 25, "theirs")


def test_a_percentage_beyond_the_step_that_was_reached_is_not_adopted() -> None:
    run = Run().at(STEPS[3])
    run.happens(FlagChanged(2, 100.0, "theirs", "someone raised it to 100 %"))
    assert isinstance(run.happens(Resume("go on", adopt=True), ANNA), Refusal)


def test_hold_and_resume_are_no_way_around_a_conflict() -> None:
    run = Run().at(STEPS[3])
    run.happens(FlagChanged(2, 10.0, "theirs", "someone lowered it"))
    run.happens(Hold("wait"), OLGA)
    assert isinstance(run.happens(Resume("go on"), ANNA), Refusal)


def test_a_promotion_passes_over_the_gate_but_not_over_a_pending_trigger() -> None:
    run = Run().at(STEPS[2])
    run.happens(Promote("step", "hotfix"), ANNA)
    run.watched(3, PENDING)
    assert run.record.place == STEPS[2]
    run.watched(1, FEW)
    assert run.orders[-1] == WriteStep(STEPS[3], 25, run.record.version)
    run.obeyed()
    run.watched(DWELL - 1)
    assert run.record.place == STEPS[3], "one step was promoted, not two"


def test_a_pin_expires_to_paused() -> None:
    run = Run().at(STEPS[2])
    run.happens(Pin(10, run.now + 30, "a look"), ANNA)
    run.watched(20)
    assert run.record.reason == "pin"
    run.watched(20)
    assert (run.state, run.record.reason) == ("paused", "person")


def test_a_gate_that_is_not_met_for_long_pauses_once_for_a_step() -> None:
    run = Run().at(STEPS[2])
    bad = Observation((Condition("triggers", "met", "ok"), Condition("errors", "not met", "2.4 % of at most 2 %")))
    run.watched(602, bad)
    assert (run.state, run.record.reason) == ("paused", "not-met")
    assert "2.4 % of at most 2 %" in run.record.cause
    run.happens(Resume("known"), ANNA)
    run.watched(1000, bad)
    assert run.state == "progressing"


def test_an_order_without_an_answer_is_given_again() -> None:
    run = Run()
    run.happens(PreflightDone("met", "12 checks"))
    run.watched(9)
    assert len(run.orders) == 1
    run.watched(2)
    assert run.orders == [run.orders[0]] * 2


@settings(max_examples=400)
@given(st.lists(st.tuples(INPUTS, ACTORS, st.sampled_from([1.0, 1.0, 5.0, 60.0])), max_size=40), PLACES)
def test_whatever_happens_the_promises_hold(happened: list[tuple[Input, Actor, float]], begin: Place) -> None:
    run = Run().at(begin)
    for what, actor, after in happened:
        before, ordered = run.record, len(run.orders)
        found = run.happens(what, actor, after)
        new_orders = run.orders[ordered:]
        if isinstance(found, Refusal):
            assert run.record == before
            continue
        assert found.record.revision >= before.revision
        if before.state in FINAL:
            assert before.state == "completed"
            assert isinstance(what, TriggerFired)
            assert found.record.state == "rolling-back"
        for order in new_orders:
            if isinstance(order, MakeSafe):
                assert found.record.state == "rolling-back"
                continue
            again = order.place == before.place and before.verified_at is None
            # By its own gate, by an approver, or the order that is under way once more.
            assert again or order.place == before.next_place
            opened = found.gate is not None and found.gate.open
            promoted = before.promoted_to is not None and before.at < before.promoted_to
            assert again or opened or promoted or actor in (ANNA, RITA)
            assert before.state not in ("rolling-back", *FINAL)
        if isinstance(what, TriggerFired) and before.unsafe:
            assert found.record.state == "rolling-back"
        if isinstance(actor, Person) and actor.role != "approver":
            assert not any(isinstance(order, WriteStep) for order in new_orders)
        if found.record.state == "rolled-back":
            assert not found.record.unsafe
    if run.state not in FINAL:
        assert isinstance(run.happens(Abort("enough"), OLGA), Outcome)
        assert run.state in ("rolling-back", "cancelled")


ORDERS: dict[type, Order] = {
    Approve: Approve(""),
    Promote: Promote("step", ""),
    Hold: Hold(""),
    Resume: Resume(""),
    Abort: Abort(""),
    Pin: Pin(10, 9_000, ""),
    ReportCheck: ReportCheck("e2e", True, ""),
    Supersede: Supersede("checkout-2"),
}
REPORTS: dict[type, Report] = {
    PreflightDone: PreflightDone("met", ""),
    StepVerified: StepVerified(STEPS[1], 50, "v"),
    StepRefused: StepRefused(STEPS[1], "", conflict=True),
    Observation: GOOD,
    TriggerFired: TriggerFired(0, ""),
    MadeSafe: MadeSafe(0),
    FlagChanged: FlagChanged(0, 1, "v", ""),
}


@pytest.mark.parametrize("kind", get_args(Order), ids=lambda kind: kind.__name__)
def test_no_program_gives_a_persons_order(kind: type) -> None:
    assert isinstance(Run().at(STEPS[1]).happens(ORDERS[kind]), Refusal)


@pytest.mark.parametrize("kind", get_args(Report), ids=lambda kind: kind.__name__)
def test_no_person_reports_what_flipback_observes(kind: type) -> None:
    assert isinstance(Run().at(STEPS[1]).happens(REPORTS[kind], ANNA), Refusal)


@pytest.mark.parametrize("kind", [Approve, Promote, Resume, Pin, Supersede], ids=lambda kind: kind.__name__)
def test_only_an_approver_moves_a_rollout_forward(kind: type) -> None:
    run = Run().at(STEPS[1])
    if kind is Resume:
        run.happens(Hold("lunch"), OLGA)
    assert isinstance(run.happens(ORDERS[kind], OLGA), Refusal)
    assert isinstance(run.happens(ORDERS[kind], ANNA), Outcome)


@pytest.mark.parametrize("kind", [Hold, Abort, ReportCheck], ids=lambda kind: kind.__name__)
def test_an_operator_may_hold_and_make_safe_and_a_viewer_nothing(kind: type) -> None:
    run = Run().at(STEPS[1])
    assert isinstance(run.happens(ORDERS[kind], VICTOR), Refusal)
    assert isinstance(run.happens(ORDERS[kind], OLGA), Outcome)


@pytest.mark.parametrize("happened", [*ORDERS.values(), *REPORTS.values()], ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("state", sorted(FINAL))
def test_a_final_state_is_final(state: State, happened: Input) -> None:
    ended = structs.replace(Run().at(STEPS[-1]).record, state=state)
    actor = ANNA if type(happened) in ORDERS else CONTROLLER
    found = decide(ended, happened, actor, 5_000.0)
    if state == "completed" and isinstance(happened, TriggerFired):
        assert isinstance(found, Outcome)
        assert found.record.state == "rolling-back"
    else:
        assert isinstance(found, Refusal)
