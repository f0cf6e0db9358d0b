"""A flag in use of which no sample comes is said, with the nearest names; one that is safe needs none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.telemetry.unseen import unseen
from detectors.cells import Scope
from detectors.conditions.grammar import parse
from detectors.conditions.spec import TriggerSpec

FLAG = ("production", "new-cart")
SPEC = TriggerSpec(
    name="errors",
    flag="new-cart",
    environment="production",
    service="recomendations",
    condition=parse("error_rate@onn > 2% for 2m"),
    safe_variant="off",
    min_samples=30,
)


def why(readings: list[tuple[TriggerSpec, int]], *scopes: Scope) -> list[str]:
    return [obstacle.why for obstacle in unseen(readings, {FLAG}, lambda: scopes)]


def test_a_service_that_no_sample_is_of_is_named_with_what_there_is() -> None:
    (said,) = why([(SPEC, 0)], Scope("production", "recommendations"))
    assert "production/new-cart in recomendations" in said
    assert "did you mean production/recommendations" in said


def test_a_variant_that_no_sample_has_is_named_with_those_there_are() -> None:
    here = replace(SPEC, service="shop")
    scopes = [Scope("production", "shop"), Scope("production", "shop", "new-cart", "on")]
    (said,) = why([(here, 0)], *scopes)
    assert "'onn'" in said
    assert "did you mean on" in said


def test_it_is_meant_so_or_passes_and_makes_no_process_unready() -> None:
    assert [obstacle.waits for obstacle in unseen([(SPEC, 0)], {FLAG}, list)] == [True]


@pytest.mark.parametrize(
    "readings",
    [
        [(SPEC, 0), (replace(SPEC, name="slow"), 12)],
        [(replace(SPEC, flag="safe"), 0)],
        [(replace(SPEC, action="alert"), 0)],
        [(replace(SPEC, shadow=True), 0)],
        [],
    ],
    ids=["another trigger sees it", "not in use", "alert", "shadow", "none"],
)
def test_where_a_trigger_sees_the_flag_or_none_would_act_nothing_is_said(
    readings: list[tuple[TriggerSpec, int]],
) -> None:
    assert why(readings) == []


def test_three_hundred_flags_are_one_obstacle_of_a_line() -> None:
    many = [(replace(SPEC, flag=f"flag-{i}"), 0) for i in range(300)]
    (obstacle,) = unseen(many, {("production", f"flag-{i}") for i in range(300)}, list)
    assert "and 297 more" in obstacle.why
    assert len(obstacle.why) < 1000
