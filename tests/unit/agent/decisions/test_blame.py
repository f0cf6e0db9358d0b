"""Which of several flags is turned back, one at a time; none if half of the watched flags are ill at once."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.decisions.blame import AT_ONCE_S, Blame, BlameRules, JudgedFlags, Suspect, first, infrastructure
from agent.decisions.turns import AutomationLimit, FlagKey
from agent.state.flags import FlagStatus
from agent.state.incidents import Incident
from agent.state.state_tables import StateTables
from detectors.conditions.grammar import parse
from detectors.sequential.likelihood_ratio import PROOF, signed_likelihood_ratio
from streams.monitor.evidence import FiringEvidence
from tests.unit.agent.decisions.test_commander import T, evidence, spec

NOW = float(T)
BAKE = 120.0


def of(
    flag: str, *, service: str = "shop", when: str = "error_rate > 2% for 20s", proof: float | None = None
) -> FiringEvidence:
    return evidence(of=replace(spec(), flag=flag, service=service, condition=parse(when)), proof=proof)


def status(flag: str, *, changed_at: float | None = None, safe: bool = False) -> tuple[FlagKey, FlagStatus]:
    seen = FlagStatus(
        flag=flag,
        environment="production",
        version="g2-b" if safe else "g1-a",
        variant="off" if safe else "on",
        safe=safe,
        at=NOW,
        changed_at=changed_at,
    )
    return ("production", flag), seen


def incident(flag: str, at: float) -> Incident:
    return Incident(
        id=f"i-{flag}",
        environment="production",
        flag=flag,
        service="shop",
        trigger="errors",
        flag_version="g1-a",
        outcome="commanded",
        command="c",
        fired_at=at,
        commanded_at=at,
        expires_at=at + 60,
    )


def table(flags: dict[FlagKey, FlagStatus], *incidents: Incident) -> StateTables:
    known = StateTables()
    known.flags = flags
    known.incidents = {one.id: one for one in incidents}
    return known


WATCHED: dict[FlagKey, list[str]] = {("production", f"f{n}"): [f"s{n}"] for n in range(5)}


def blame(watched: dict[FlagKey, list[str]] | None = None, *, until: float = math.inf) -> Blame:
    return Blame(lambda: JudgedFlags(watched or {}, until), BlameRules(3600, BAKE, AutomationLimit(9, 600.0)))


def blamed(
    firing: list[FiringEvidence], flags: dict[FlagKey, FlagStatus], *incidents: Incident, now: float = NOW
) -> list[str]:
    """Return the firing flags without an objection."""
    made = blame()
    made.observe(firing, [], T, NOW)
    return [one.spec.flag for one in firing if made.objection(one, [], table(flags, *incidents), NOW) is None]


def test_of_two_flags_of_a_service_the_last_to_change_is_turned_back_first() -> None:
    flags = dict([status("old", changed_at=NOW - 3000), status("new", changed_at=NOW - 60)])
    assert blamed([of("old"), of("new")], flags) == ["new"]


def test_a_change_of_long_ago_is_not_blamed_before_one_that_was_not_seen() -> None:
    flags = dict([status("b", changed_at=NOW - 7200), status("a")])
    assert blamed([of("a"), of("b")], flags) == ["a"]


def test_a_flag_that_is_proven_worse_than_its_control_goes_before_a_later_change() -> None:
    flags = dict([status("old", changed_at=NOW - 3000), status("new", changed_at=NOW - 60)])
    assert blamed([of("old", proof=PROOF + 1), of("new", proof=PROOF - 1)], flags) == ["old"]
    assert blamed([of("old", proof=PROOF + 1), of("new", proof=PROOF + 9)], flags) == ["new"]


def test_the_next_flag_waits_until_the_first_has_had_its_time() -> None:
    for passed, turn in ((BAKE - 1, []), (BAKE, ["old"])):
        # The time counts from the flip, which may be long after the command was first sent.
        flags = dict([status("new", changed_at=NOW - passed, safe=True), status("old", changed_at=NOW - 3000)])
        assert blamed([of("old")], flags, incident("new", NOW - 400)) == turn


def test_a_flag_whose_own_requests_are_worse_waits_for_no_other() -> None:
    flags = dict([status("old", changed_at=NOW - 3000), status("new", changed_at=NOW - 60)])
    own = of("old", when="error_rate@on > 2% for 20s")
    assert blamed([own, of("new")], flags, incident("new", NOW - 1)) == ["old", "new"]


def test_flags_of_different_services_do_not_wait_for_each_other() -> None:
    flags = dict([status("a"), status("b")])
    assert blamed([of("a"), of("b", service="search")], flags) == ["a", "b"]


def test_a_flag_that_is_safe_or_in_shadow_is_not_blamed_for_another() -> None:
    flags = dict([status("new", changed_at=NOW - 60, safe=True), status("old")])
    assert "old" in blamed([of("new"), of("old")], flags)
    shadow = of("new")
    shadow = replace(shadow, spec=replace(shadow.spec, shadow=True))
    flags = dict([status("new", changed_at=NOW - 60), status("old")])
    assert "old" in blamed([shadow, of("old")], flags)


def test_what_no_longer_fires_is_forgotten() -> None:
    made, flags = blame(), dict([status("old"), status("new", changed_at=NOW - 60)])
    made.observe([of("new")], [], T, NOW)
    made.observe([of("old")], [], T, NOW + AT_ONCE_S + 0.1)
    assert made.objection(of("old"), [], table(flags), NOW + AT_ONCE_S + 0.1) is None


def test_an_outage_lasts_from_one_evaluation_to_the_next_however_far_apart_they_are() -> None:
    made = Blame(
        lambda: JudgedFlags(WATCHED, math.inf),
        BlameRules(3600, BAKE, AutomationLimit(9, 600.0), evaluate_every=5),
    )
    flags = dict(status(f"f{n}") for n in range(5))
    for round_ in (0, 5, 10):
        for n in range(5):
            alarm, now = replace(of(f"f{n}", service=f"s{n}"), t=T + round_), NOW + round_ + n / 100
            made.observe([alarm], [], T + round_, now)
            assert made.early(alarm) is (round_ == 0)
            objection = made.objection(alarm, [], table(flags), now)
            if round_:
                assert objection is not None
                assert objection.shared


@pytest.mark.parametrize(("ill", "shared"), [(0, False), (1, False), (2, False), (3, True), (5, True)])
def test_more_than_half_of_the_watched_flags_in_several_services_are_an_outage(ill: int, shared: bool) -> None:
    made, flags = blame(WATCHED), dict(status(f"f{n}") for n in range(5))
    firing = [of(f"f{n}", service=f"s{n}") for n in range(ill)]
    made.observe(firing, [], T, NOW)
    objections = [made.objection(one, [], table(flags), NOW) for one in firing]
    assert all((found is not None and found.shared) is shared for found in objections)


def test_what_is_ill_and_does_not_fire_yet_counts_for_an_outage() -> None:
    made, flags = blame(WATCHED), dict(status(f"f{n}") for n in range(5))
    made.observe([of("f0", service="s0")], [("production", "f1"), ("production", "f2")], T, NOW)
    objection = made.objection(of("f0", service="s0"), [], table(flags), NOW)
    assert objection is not None
    assert objection.shared


def at(t: int, *, number: int = 0) -> FiringEvidence:
    return replace(of(f"f{number}", service=f"s{number}"), t=t)


def test_what_fires_when_it_is_first_ill_waits_for_the_next_evaluation_in_which_others_are_ill_too() -> None:
    made = blame(WATCHED)
    made.observe([at(T)], [], T, NOW)
    assert made.early(at(T))
    made.observe([at(T, number=n) for n in range(1, 4)], [], T, NOW + 0.1)
    made.observe([at(T + 1)], [], T + 1, NOW + 1)
    assert not made.early(at(T + 1))
    objection = made.objection(at(T + 1), [], table({}), NOW + 1)
    assert objection is not None
    assert objection.shared


def test_the_next_evaluation_decides_nothing_before_all_shards_have_had_the_one_of_the_alarm() -> None:
    # After a stall one shard may be judged for two seconds before another one is judged for the first.
    for until, early in ((T - 1, True), (T, False)):
        made = blame(WATCHED, until=until)
        made.observe([at(T)], [], T, NOW)
        made.observe([at(T + 1)], [], T + 1, NOW + 0.01)
        assert made.early(at(T + 1)) is early


def test_what_was_ill_before_it_fires_does_not_wait() -> None:
    made = blame(WATCHED)
    made.observe([], [("production", "f0")], T, NOW)
    # If the shard reads late, the two evaluations follow each other at once.
    made.observe([at(T + 1)], [], T + 1, NOW + 0.01)
    assert not made.early(at(T + 1))


def test_nothing_waits_for_others_where_too_few_services_are_watched_for_an_outage() -> None:
    made = blame({("production", "f0"): ["s0"], ("production", "f1"): ["s1"]})
    made.observe([at(T)], [], T, NOW)
    assert not made.early(at(T))


def test_services_that_stay_ill_with_their_flag_safe_are_no_outage_of_the_others() -> None:
    made = blame(WATCHED)
    flags = dict(status(f"f{n}", safe=n < 2) for n in range(5))
    firing = [of(f"f{n}", service=f"s{n}") for n in range(4)]
    made.observe(firing, [], T, NOW)
    assert made.objection(firing[2], [], table(flags), NOW) is None


def test_flags_of_one_service_are_no_outage_of_everything() -> None:
    assert (
        infrastructure([("production", "a"), ("production", "b")], {("production", n): ["shop"] for n in "ab"}) is None
    )


suspects = st.builds(
    Suspect, st.text(min_size=1, max_size=3), st.none() | st.floats(-20, 40), st.none() | st.floats(0, NOW)
)


@given(st.lists(suspects, min_size=1, max_size=6))
def test_one_is_chosen_whatever_the_order(found: list[Suspect]) -> None:
    chosen = first(found, NOW, 3600)
    assert chosen in found
    assert first(found[::-1], NOW, 3600) == chosen or len({one.flag for one in found}) < len(found)
    strongest = max((one.proof or 0 for one in found), default=0)
    if strongest >= PROOF:
        assert chosen.proof == strongest


@given(st.integers(0, 50), st.integers(1, 50), st.integers(0, 50), st.integers(1, 50))
def test_the_comparison_changes_its_sign_with_the_sides_and_is_0_where_both_are_alike(
    bad: int, more: int, other_bad: int, other_more: int
) -> None:
    one, other = (bad, bad + more), (other_bad, other_bad + other_more)
    value = signed_likelihood_ratio(*one, *other)
    if bad + other_bad == 0:
        assert value is None
        return
    assert value is not None
    assert value == pytest.approx(-(signed_likelihood_ratio(*other, *one) or 0.0), abs=1e-9)
    assert (value > 1e-9) == (one[0] * other[1] > other[0] * one[1]) or abs(value) < 1e-9


def test_what_was_ill_before_the_clock_was_set_back_is_ill_no_longer() -> None:
    made = blame(WATCHED)
    flags = dict([status(f"f{n}") for n in range(5)])
    made.observe([of(f"f{n}", service=f"s{n}") for n in range(5)], [], T, NOW + 3600)
    guilty = of("f0", service="s0")
    made.observe([guilty], [], T + 10, NOW)
    assert made.objection(guilty, [], table(flags), NOW) is None
