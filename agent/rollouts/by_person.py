"""What follows from a person's order. Roles have been checked: see `agent.rollouts.decide`."""

from __future__ import annotations

from msgspec import structs

from agent.rollouts.gate import check_name
from agent.rollouts.inputs import Abort, Approve, Hold, Person, Pin, Promote, ReportCheck, Resume, Supersede
from agent.rollouts.record import NOTHING_COUNTED, CheckResult, PauseReason, Place, RolloutRecord, last_place
from agent.rollouts.transitions import Outcome, Refusal, forward, order_of, paused, rolling_back


def approve(happened: Approve, record: RolloutRecord, actor: Person, now: float) -> Outcome | Refusal:
    asked = record.next_place
    approval = None if asked is None else record.spec.stages[asked.stage].approval
    if asked is None or approval is None or asked.stage in record.approved or record.state == "rolling-back":
        return Refusal("the next step needs no approval")
    if approval.other_than == "requester" and actor.name == record.requested_by:
        return Refusal(f"{actor.name} started the rollout; somebody else must approve it")
    approved = record.changed(approved=(*record.approved, asked.stage), actor=actor.name, cause=happened.reason)
    # Given early, it is kept until the gate asks for it.
    if record.state != "paused" or record.reason != "approval":
        return Outcome(approved)
    return forward(approved, actor, now, happened.reason)


def promote(happened: Promote, record: RolloutRecord, actor: Person, now: float) -> Outcome | Refusal:
    if record.state not in ("progressing", "baking") or record.place is None:
        return Refusal(f"rollout {record.id} is {record.state}; only one that progresses is promoted")
    end = last_place(record.spec)
    through = {
        "step": record.next_place or end,
        "stage": Place(record.place.stage + 1, 0) if record.place.stage < end.stage else end,
        "full": end,
    }[happened.through]
    if record.place == end:
        # One past the end: the bake itself is cut short.
        through = Place(end.stage + 1, 0)
    return Outcome(record.changed(promoted_to=through, actor=actor.name, cause=happened.reason))


def hold(happened: Hold, record: RolloutRecord, actor: Person, now: float) -> Outcome | Refusal:
    if record.state not in ("progressing", "baking", "paused"):
        return Refusal(f"rollout {record.id} is {record.state}: nothing to hold")
    # A conflict stays one: `hold` and `resume` would be a way around `--adopt`.
    reason: PauseReason = "conflict" if record.reason == "conflict" else "person"
    return Outcome(paused(record, reason, happened.reason, actor, now))


def resume(happened: Resume, record: RolloutRecord, actor: Person, now: float) -> Outcome | Refusal:
    if record.state != "paused":
        return Refusal(f"rollout {record.id} is {record.state}, not paused")
    if record.reason == "approval":
        return Refusal("it waits for an approval: approve it instead")
    if record.reason == "pin":
        return Refusal("the flag is pinned: the pin must end first")
    place = record.place
    if record.reason == "conflict":
        if not happened.adopt:
            return Refusal(
                "somebody else changed the flag: `--adopt` goes on from what it is now, `abort` makes it safe"
            )
        steps = [number for number, step in enumerate(record.stage.steps) if step.percent == record.percent]
        if place is None or not steps:
            shown = "no percentage of the variant" if record.percent is None else f"{record.percent:g} %"
            return Refusal(f"the flag has {shown}, which this stage of the plan does not: abort it")
        if Place(place.stage, steps[0]) > place:
            return Refusal(f"the flag has {record.percent:g} %, beyond the step that was reached: abort it")
        place = Place(place.stage, steps[0])
    verified = record.verified_at is not None or record.reason == "conflict"
    resumed = record.changed(
        state="baking" if place == last_place(record.spec) and verified else "progressing",
        since=now,
        reason=None,
        cause=happened.reason,
        actor=actor.name,
        place=place,
        verified_at=now if verified else None,
        **NOTHING_COUNTED,
        promoted_to=None,
        ordered_at=now,
        waived=record.waived or record.reason == "not-met",
    )
    return Outcome(resumed, () if verified else (order_of(resumed),))


def abort(happened: Abort, record: RolloutRecord, actor: Person, now: float) -> Outcome | Refusal:
    if record.state == "rolling-back":
        return Outcome(record)
    return rolling_back(record, happened.reason, actor, now)


def pin(happened: Pin, record: RolloutRecord, actor: Person, now: float) -> Outcome | Refusal:
    if record.state not in ("progressing", "baking", "paused"):
        return Refusal(f"rollout {record.id} is {record.state}: no percentage to pin")
    pinned = structs.replace(record, pinned_until=happened.until)
    return Outcome(paused(pinned, "pin", f"{happened.percent:g} %: {happened.reason}", actor, now))


def report_check(happened: ReportCheck, record: RolloutRecord, actor: Person, now: float) -> Outcome | Refusal:
    stage = record.at.stage
    known = record.spec.stages[stage].checks
    if happened.test not in known:
        return Refusal(f"stage {stage + 1} has no check {happened.test!r}; known are: {', '.join(known) or 'none'}")
    result = CheckResult(happened.passed, happened.url, actor.name, now)
    return Outcome(record.changed(checks={**record.checks, check_name(stage, happened.test): result}))


def supersede(happened: Supersede, record: RolloutRecord, actor: Person, now: float) -> Outcome | Refusal:
    if record.state == "rolling-back":
        return Refusal("it is being rolled back: wait until that is verified")
    return Outcome(
        record.changed(state="superseded", since=now, reason=None, cause=f"rollout {happened.by_rollout} takes over")
    )
