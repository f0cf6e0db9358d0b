"""The states of a trigger: each rule by its own test, and all at once against a plain model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.state import BEFORE
from detectors.triggers.state_machine import State, TriggerStates

TRUTH = {"1": 1, "0": 0, "?": -1}
LETTER = {State.OK: "o", State.PENDING: "p", State.FIRING: "F", State.UNKNOWN: "?"}


def states(truth: str, hold: int, grace: int = 0, every: int = 1, start: int = 1000) -> str:
    """Return one letter per evaluation: o ok, p pending, F firing, ? unknown."""
    triggers = TriggerStates(np.array([hold]), np.array([grace]))
    return "".join(
        LETTER[State(triggers.update(start + i * every, np.array([TRUTH[letter]], dtype=np.int8))[0])]
        for i, letter in enumerate(truth)
    )


def test_fires_at_the_evaluation_where_the_held_time_reaches_the_hold_not_one_earlier() -> None:
    assert states("0111110", hold=4) == "oppppFo"


def test_two_minutes_at_fifteen_seconds_are_nine_evaluations() -> None:
    assert states("1" * 9, hold=120, every=15) == "ppppppppF"


def test_evaluations_that_miss_the_end_of_the_hold_fire_at_the_next() -> None:
    assert states("1111", hold=10, every=4) == "pppF"


def test_a_hold_of_zero_fires_at_once() -> None:
    assert states("0110", hold=0) == "oFFo"


def test_false_clears_and_the_hold_begins_again() -> None:
    assert states("1110111", hold=3) == "pppoppp"
    assert states("11101111", hold=3) == "pppopppF"


def test_false_ends_a_firing() -> None:
    assert states("1101", hold=1) == "pFop"


def test_nothing_is_ok_before_something_is_known() -> None:
    assert states("??0", hold=1) == "??o"
    assert TriggerStates(np.array([1]), np.array([1])).states.tolist() == [State.UNKNOWN]


def test_a_gap_within_the_grace_stops_the_clock() -> None:
    assert states("11111", hold=4, grace=3) == "ppppF"
    assert states("11???111", hold=4, grace=3) == "pp???ppF"


def test_a_gap_longer_than_the_grace_forgets() -> None:
    assert states("11????11111", hold=4, grace=3) == "pp????ppppF"


def test_short_gaps_do_not_add_up_to_the_grace() -> None:
    assert states("1??1??1??11", hold=4, grace=2) == "p??p??p??pF"


def test_grace_counts_from_the_last_known_evaluation() -> None:
    assert states("11?111", hold=20, grace=9, every=10) == "pp?ppF"
    assert states("11?111", hold=20, grace=10, every=10) == "pp?FFF"
    assert states("11??11", hold=30, grace=19, every=10) == "pp??pp"
    assert states("11??11", hold=30, grace=20, every=10) == "pp??pF"


def test_without_grace_unknown_is_what_a_missing_sample_is_to_prometheus() -> None:
    assert states("111?1111", hold=3, grace=0) == "ppp?pppF"
    assert states("11?11", hold=1, grace=0) == "pF?pF"


def test_a_firing_that_comes_back_within_the_grace_goes_on_without_a_new_hold() -> None:
    assert states("1111??1", hold=3, grace=2) == "pppF??F"
    assert states("1111???1", hold=3, grace=2) == "pppF???p"


def test_false_after_unknown_is_ok_even_from_firing() -> None:
    assert states("1111?0", hold=3, grace=9) == "pppF?o"
    assert states("1?01", hold=1, grace=9) == "p?op"


def test_unknown_after_ok_remembers_nothing() -> None:
    assert states("0?1", hold=1, grace=9) == "o?p"


def test_held_time_is_counted_without_the_gaps() -> None:
    triggers = TriggerStates(np.array([99]), np.array([50]))
    for t, letter in enumerate("011??11"):
        triggers.update(10 * t, np.array([TRUTH[letter]], dtype=np.int8))
    assert 60 - triggers.since[0] == 30
    triggers.update(70, np.array([0], dtype=np.int8))
    assert triggers.since.tolist() == [BEFORE]


def test_time_does_not_stand_still() -> None:
    triggers = TriggerStates(np.array([1]), np.array([1]))
    triggers.update(5, np.array([1], dtype=np.int8))
    with pytest.raises(ValueError, match="not later"):
        triggers.update(5, np.array([1], dtype=np.int8))


@dataclass
class Plain:
    """A plain model of one trigger: how long it has been true, and how long it has been unknown."""

    hold: int
    grace: int
    held: int | None = None
    firing: bool = False
    unknown_for: int = 0

    def see(self, truth: int, elapsed: int) -> str:
        if truth == -1:
            self.unknown_for += elapsed
            if self.unknown_for > self.grace:
                self.held, self.firing = None, False
            return "?"
        self.unknown_for = 0
        if truth == 0:
            self.held, self.firing = None, False
            return "o"
        self.held = 0 if self.held is None else self.held + elapsed
        self.firing = self.firing or self.held >= self.hold
        return "F" if self.firing else "p"


rows = st.tuples(st.integers(0, 12), st.integers(0, 8))


@settings(deadline=None)
@given(st.data(), st.lists(rows, min_size=1, max_size=5), st.lists(st.integers(1, 4), max_size=40))
def test_states_are_those_of_the_plain_model(
    data: st.DataObject, rules: list[tuple[int, int]], gaps: list[int]
) -> None:
    triggers = TriggerStates(np.array([h for h, _ in rules]), np.array([g for _, g in rules]))
    models = [Plain(hold, grace) for hold, grace in rules]
    t = 1_700_000_000
    for gap in gaps:
        t += gap
        truth = data.draw(st.lists(st.sampled_from([1, 1, 1, 0, -1]), min_size=len(rules), max_size=len(rules)))
        got = triggers.update(t, np.array(truth, dtype=np.int8))
        expected = [model.see(value, gap) for model, value in zip(models, truth, strict=True)]
        assert [LETTER[State(s)] for s in got.tolist()] == expected


def kept(truth: str, hold: int, keep: int, grace: int = 0) -> str:
    triggers = TriggerStates(np.array([hold]), np.array([grace]), np.array([keep]))
    steps = (triggers.update(t, np.array([TRUTH[letter]], dtype=np.int8))[0] for t, letter in enumerate(truth))
    return "".join(LETTER[State(state)] for state in steps)


def test_what_fired_is_kept_until_the_keep_has_passed_since_the_first_evaluation_that_was_not_true() -> None:
    assert kept("11000", hold=1, keep=2) == "pFFFo"
    assert kept("11000", hold=1, keep=0) == "pFooo"


def test_a_breach_while_it_is_kept_goes_on_as_the_same_firing_and_starts_the_keep_anew() -> None:
    assert kept("1101000", hold=1, keep=2) == "pFFFFFo"


def test_what_was_pending_is_not_kept() -> None:
    assert kept("1100", hold=3, keep=9) == "ppoo"


def test_silence_beyond_the_grace_counts_as_not_true_for_what_is_kept() -> None:
    assert kept("11??0", hold=1, keep=3) == "pF??F"
    assert kept("11???0", hold=1, keep=3) == "pF???o"
