"""The time that samples have reached: no single instance decides it, and it does not depend on batches."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.ingest.progress import FEWEST, LONGEST, VOTES, Progress

NAMES = ["", *(f"i-{n}" for n in range(10))]
LATENESS = 2.0


@dataclass
class Model:
    """The rules, applied sample by sample."""

    reached: float = -math.inf
    votes: list[float] = field(default_factory=list)
    run: list[float] = field(default_factory=list)
    name: str = ""

    def take(self, ts: float, name: str) -> float:
        if self.run and (name != self.name or len(self.run) == LONGEST):
            if self.name:
                self.vote(max(self.run))
            self.run = []
        self.run.append(ts)
        self.name = name
        if not name:
            self.reached = max(self.reached, ts)
        return self.reached

    def vote(self, peak: float) -> None:
        self.votes.append(peak)
        count = len(self.votes)
        if count >= FEWEST and (count < VOTES or count % VOTES == 0):
            last = sorted(self.votes[-VOTES:])
            self.reached = max(self.reached, last[(len(last) - 1) // 2])


def advance(progress: Progress, times: list[float], instances: list[int]) -> list[float] | None:
    found = progress.advance(np.array(times), np.array(instances, dtype=np.int64), NAMES, LATENESS, None)
    return None if found is None else found.tolist()


samples = st.lists(
    st.tuples(st.floats(0, 20) | st.floats(0, 200), st.integers(0, 10), st.sampled_from([1, 1, 1, 2, 5, 300])),
    max_size=120,
).map(lambda rows: [(ts + i / 1000, instance) for ts, instance, n in rows for i in range(n)])


@given(samples, st.randoms(use_true_random=False))
def test_it_is_as_the_rules_say_however_the_samples_are_cut(
    given_samples: list[tuple[float, int]], rng: random.Random
) -> None:
    model, progress = Model(), Progress()
    rest = given_samples
    while rest:
        size = rng.choice([1, 2, 7, 50, 1000])
        part, rest = rest[:size], rest[size:]
        expected = [model.take(ts, NAMES[instance]) for ts, instance in part]
        found = advance(progress, [ts for ts, _ in part], [instance for _, instance in part])
        late = [math.floor(ts) + 1 <= bound - LATENESS for (ts, _), bound in zip(part, expected, strict=True)]
        if found is None:
            assert not any(late)
        else:
            assert found == expected
        # Reading `reached` counts the waiting votes, so it is not read each time: they must be counted together too.
        if not rest or rng.random() < 0.3:
            assert progress.reached == (None if model.reached == -math.inf else model.reached)


def reached_by(instances: int, ahead: dict[int, float], *, at_once: int = 1) -> float:
    """The time reached by 2,000 samples, 100 a second, from `instances` in turn, with `at_once` in a row."""
    progress = Progress()
    for first in range(0, 2000, 100):
        of = [(n // at_once) % instances for n in range(first, first + 100)]
        advance(progress, [n / 100 + ahead.get(i, 0.0) for n, i in zip(range(first, 2000), of, strict=False)],
                [i + 1 for i in of])  # fmt: skip
    assert progress.reached is not None
    return progress.reached


def test_instances_whose_clocks_are_right_are_followed_closely() -> None:
    assert 19.5 < reached_by(10, {}) <= 20
    assert 8 < reached_by(1, {}) <= 20


def test_instances_that_are_ahead_are_not_followed_while_they_are_few() -> None:
    for ahead in (3.0, 30.0, 55.0, 1e9):
        assert 19 < reached_by(10, {0: ahead}) <= 20
        assert 19 < reached_by(10, {0: ahead, 5: ahead / 2}) <= 20


def test_an_instance_that_writes_its_samples_all_at_once_has_no_more_votes() -> None:
    assert 7 < reached_by(10, {3: 30.0}, at_once=50) <= 20


def test_an_instance_that_comes_first_and_is_ahead_decides_nothing() -> None:
    progress = Progress()
    advance(progress, [500.0] * 10 + [1.0, 2.0, 3.0, 4.0], [1] * 10 + [2, 3, 2, 3])
    assert progress.reached is not None
    assert progress.reached <= 4.0


def test_names_may_be_numbered_anew_in_the_midst_of_a_run() -> None:
    whole, parts = Progress(), Progress()
    times = np.arange(400) / 10
    first, then = np.repeat([1, 2, 3, 2], 50), np.repeat([1, 3, 2, 3], 50)
    names = {1: "a", 2: "b", 3: "c"}
    anew = ["", "b", "c", "a"]
    written = [names[number] for number in first.tolist()] + [anew[number] for number in then.tolist()]
    own = ["", "a", "b", "c"]
    whole.advance(times, np.array([own.index(name) for name in written]), own, 100, None)
    parts.advance(times[:200], first, own, 100, None)
    parts.advance(times[200:], then, anew, 100, None)
    assert parts.reached == whole.reached


def test_what_has_no_word_is_told_what_is_reached_and_changes_nothing() -> None:
    rng = random.Random(3)
    rows = [(rng.uniform(0, 60), rng.randrange(11), rng.random() < 0.7) for _ in range(300)]
    whole, others = Progress(), Progress()
    ts, instance, accepted = (np.array(column) for column in zip(*rows, strict=True))
    found = whole.advance(ts, instance, NAMES, LATENESS, accepted)
    expected = others.advance(ts[accepted], instance[accepted], NAMES, LATENESS, None)
    assert found is not None
    assert expected is not None
    assert whole.reached == others.reached
    assert found[accepted].tolist() == expected.tolist()
    silent = Progress().advance(ts, instance, NAMES, LATENESS, np.zeros(len(ts), dtype=bool))
    assert silent is not None
    assert (silent == -math.inf).all()
