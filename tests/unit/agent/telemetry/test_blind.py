"""A trigger of a flag in use that is blind disarms, however well the flag's other triggers see."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from agent.telemetry.blind import Blind, unjudged
from agent.telemetry.unseen import unseen_by
from detectors.cells import Cells, Scope
from detectors.conditions.spec import TriggerSpec
from streams.monitor.shard import Shard
from tests.support.cells import Cell, cells
from tests.unit.streams.monitor.test_shard import ON, SERVICE, T, said, shard, spec

Form = Mapping[Scope, Mapping[str, int]]

OFF = ON._replace(variant="off")
FLAG = ("production", "new")
TRIGGERS = (
    spec("error_rate@on > 2% over 10s for 10s", name="fails"),
    spec("error_rate@on > control", name="worse"),
    spec("error_rate > 20% over 10s", name="errors"),
    spec("latency_p95 > 45s over 10s", name="slow"),
    spec("cache_hit_rate < 40% over 10s", name="cold"),
    replace(spec("availability < 99% over 30s", name="down"), min_samples=5_900),
)
WELL = {"requests": 20, "latency_count": 20, "latency_us": 100_000, "cache_hits": 15, "cache_lookups": 20}
HALF = {name: count // 2 for name, count in WELL.items()}
SEEN: Form = {SERVICE: WELL, ON: HALF, OFF: HALF}


def without_outcome(form: Form) -> Form:
    return {scope: {**counts, "no_outcome": counts["requests"]} for scope, counts in form.items()}


def second(at: int, form: Form) -> Cells:
    """Every request took 5 ms."""
    rows = [
        (
            scope,
            Cell(counts, {100: counts.get("latency_count", 0)} if counts.get("latency_count") else {}, {"i": counts}),
        )
        for scope, counts in form.items()
    ]
    return cells(at, *rows)


def watched(
    of_second: Callable[[int], Form],
    *,
    seconds: int = 40,
    safe: bool = False,
    triggers: tuple[TriggerSpec, ...] = TRIGGERS,
) -> Shard:
    target = shard(*triggers)
    target.flag_changed(*FLAG, None, 0.5, safe=safe)
    for at in range(T, T + seconds):
        form = of_second(at - T)
        for _ in target.take(said(at + 1.0, *([second(at, form)] if form else [])), at + 3.0):
            pass
    return target


def why(target: Shard) -> list[str]:
    found = list(unseen_by([target], {FLAG}))
    assert all(one.what == "telemetry" and one.do and one.waits for one in found)
    return [one.why for one in found]


FORMS: dict[str, tuple[Form, str]] = {
    "status as text": (without_outcome(SEEN), "outcome known for 0 % of requests"),
    "status_code": (without_outcome(SEEN), "fails, worse, errors and 1 more"),
    "true as variant": ({SERVICE: WELL}, "no sample carries flag 'new'"),
    "variants true and false": (
        {SERVICE: WELL, ON._replace(variant="true"): HALF, ON._replace(variant="false"): HALF},
        "variants of 'new' that were seen are 'false', 'true'",
    ),
    "the flag's name mistyped": (
        {SERVICE: WELL, ON._replace(flag="nwe"): HALF, OFF._replace(flag="nwe"): HALF},
        "no sample carries flag 'new'",
    ),
    "no flags": ({SERVICE: WELL}, "is not judged by fails, worse since"),
    "no cache": (
        {scope: {**counts, "cache_hits": 0, "cache_lookups": 0} for scope, counts in SEEN.items()},
        "is not judged by cold since 22:13:21 UTC: no sample has cache",
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_one_blind_trigger_disarms_with_its_reason_though_others_see(form: str) -> None:
    counts, reason = FORMS[form]
    (told,) = why(watched(lambda _: counts))
    assert told.startswith("production/new is not judged by ")
    assert reason in told
    assert len(told) <= 500


@pytest.mark.parametrize("form", FORMS)
def test_of_a_flag_that_is_safe_nothing_is_told(form: str) -> None:
    assert why(watched(lambda _: FORMS[form][0], safe=True)) == []


@pytest.mark.parametrize("form", FORMS)
def test_after_a_start_it_waits_for_half_a_minute(form: str) -> None:
    assert why(watched(lambda _: FORMS[form][0], seconds=29)) == []


def test_where_all_is_seen_it_is_armed_though_one_trigger_still_gathers_samples() -> None:
    target = watched(lambda _: SEEN)
    assert [row.trigger for row in target.triggers() if row.state == "unknown"] == ["down"]
    assert why(target) == []


def test_few_samples_at_night_disarm_only_once_that_is_announced() -> None:
    night = {scope: {**dict.fromkeys(counts, 1), "cache_hits": 1} for scope, counts in SEEN.items()}
    rule = replace(TRIGGERS[2], min_samples=30, unknown_alert=120)
    pair = (rule, replace(TRIGGERS[3], min_samples=1))
    assert why(watched(lambda _: night, seconds=100, triggers=pair)) == []
    (told,) = why(watched(lambda _: night, seconds=130, triggers=pair))
    assert "not judged by errors since 22:13:21 UTC: samples 10 < min_samples 30" in told


def test_a_service_at_rest_is_none_of_a_blind_trigger() -> None:
    rare = {SERVICE: {**dict.fromkeys(WELL, 1), "no_outcome": 0}}
    kept = tuple(replace(one, min_samples=1) for one in (TRIGGERS[0], TRIGGERS[3]))
    assert why(watched(lambda at: rare if at % 8 == 0 else {}, triggers=kept)) == []


def test_a_variant_that_falls_silent_disarms_after_half_a_minute() -> None:
    assert why(watched(lambda at: SEEN if at < 20 else {SERVICE: WELL}, seconds=45)) == []
    (told,) = why(watched(lambda at: SEEN if at < 20 else {SERVICE: WELL}, seconds=80))
    assert "none since" in told


@pytest.mark.parametrize("change", [{"action": "alert"}, {"shadow": True}], ids=str)
def test_a_trigger_that_turns_nothing_back_keeps_none_from_it(change: dict[str, object]) -> None:
    others = tuple(replace(one, **change) for one in TRIGGERS[:3])  # type: ignore[arg-type]
    assert why(watched(lambda _: FORMS["no flags"][0], triggers=(*others, TRIGGERS[3]))) == []


def test_a_flag_that_nothing_sees_is_one_obstacle_and_three_hundred_blind_ones_are_six() -> None:
    (told,) = why(watched(lambda _: FORMS["no flags"][0], triggers=TRIGGERS[:2]))
    assert told.startswith("no sample came in the windows")
    many = [Blind(replace(TRIGGERS[0], flag=f"flag-{i:03}"), T, "never seen" * 100) for i in range(300)]
    found = list(unjudged(many, ()))
    assert len(found) == 6
    assert "295 more flags" in found[-1].why
    assert all(len(one.why) <= 500 for one in found)
