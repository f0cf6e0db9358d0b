"""`flipback status`: what it says of an incident, and of what people ordered."""

from __future__ import annotations

import msgspec
import pytest

from agent.cli.status import after_flip, listed, outcome
from agent.incidents import Aftermath, Bake, CommandResult, Effect, ResultOutcome
from agent.status import Status
from tests.unit.test_aftermath import INCIDENT
from tests.unit.test_by_hand import ROLLBACK


def said(service: str = "shop", effect: Effect | None = None, bake: Bake | None = None) -> Aftermath:
    return Aftermath(incident=INCIDENT.id, service=service, effect=effect, bake=bake)


@pytest.mark.parametrize(
    ("aftermaths", "words"),
    [
        ([], []),
        ([said(effect="effective")], ["effective"]),
        ([said(effect="effective", bake="recovered")], ["effective", "recovered"]),
        ([said(effect="ineffective", bake="worse")], ["ineffective", "not recovered: worse"]),
        ([said(effect="unknown", bake="unknown")], ["effect unknown", "recovery unknown"]),
        (
            [said("cart", "ineffective"), said(effect="effective", bake="no-better")],
            ["effective", "not recovered: no-better", "ineffective in cart"],
        ),
        ([Aftermath(incident="another", service="shop", effect="effective")], []),
    ],
)
def test_an_incident_shows_its_effect_and_its_bake_its_own_service_first(
    aftermaths: list[Aftermath], words: list[str]
) -> None:
    status = Status(flags=[], incidents=[INCIDENT], aftermaths=aftermaths)
    assert list(after_flip(INCIDENT, status.after(INCIDENT))) == words


def result(outcome: ResultOutcome, reason: str | None = None, detail: str = "") -> CommandResult:
    return CommandResult(sent="s", command=INCIDENT.command, outcome=outcome, reason=reason, detail=detail, at=1.0)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, "commanded"),
        (result("applied"), "turned back"),
        (result("already"), "was safe already"),
        (
            result("rejected", "unknown-key", "signed with key k2, accepted are k1"),
            "NOT TURNED BACK, rejected unknown-key: signed with key k2, accepted are k1",
        ),
    ],
)
def test_an_incident_shows_what_became_of_its_command(found: CommandResult | None, words: str) -> None:
    assert outcome(INCIDENT, found) == words


def test_what_nobody_commanded_has_no_result() -> None:
    assert outcome(msgspec.structs.replace(INCIDENT, outcome="shadow"), result("applied")) == "shadow"


def test_orders_of_people_stand_among_the_incidents_with_what_was_put_back() -> None:
    restore = msgspec.structs.replace(ROLLBACK, what="restore", by="bob", reason="fixed", at=9.0)
    of_trigger = msgspec.structs.replace(restore, incident=INCIDENT.id, flag=INCIDENT.flag)
    status = Status(flags=[], incidents=[INCIDENT], orders=[of_trigger, restore, ROLLBACK])
    trigger, hand = (line for _, line in listed(status))
    assert trigger.endswith(f"commanded  put back by bob: 'fixed'  {INCIDENT.id}")
    assert hand == "production/bad/by-hand  rolled back, by ann: 'kafka gone'  put back by bob: 'fixed'  i1"
