"""`flipback status`: what it tells of an incident after its flip."""

from __future__ import annotations

import pytest

from agent.cli.status import after_flip
from agent.incidents import Aftermath, Bake, Effect
from agent.status import Status
from tests.unit.test_aftermath import INCIDENT


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
