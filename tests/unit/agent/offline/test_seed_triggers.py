"""The four seed triggers fire at the right second and not one evaluation early, on recordings made for each."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TypedDict

import pytest

from agent.config.load import load
from agent.offline.replay import Change, Commanded, replay
from tests.support.recordings import T0, Traffic, config_file, counted, expected_firing, first_firing, write

Sample = dict[str, object]
FAULT = 100
"""The second of the recording in which the fault begins; before it all requests are good."""


class Rule(TypedDict):
    breach: Callable[[int, int], bool]
    over: int
    hold: int
    min_samples: int


@dataclass(frozen=True)
class Seed:
    """A trigger, the traffic that breaches it, and its rule in plain counts: `counts` of bad and of all samples."""

    name: str
    mark: Callable[[Sample], None]
    bad: int
    period: int
    just_not_bad: int
    per_second: int
    over: int
    hold: int
    min_samples: int
    counts: Callable[[Sample], tuple[int, int]]
    breach: Callable[[int, int], bool]

    @property
    def rule(self) -> Rule:
        return Rule(breach=self.breach, over=self.over, hold=self.hold, min_samples=self.min_samples)


def _p95_over_limit(slow: int, timed: int) -> bool:
    # The 95th percentile is the ceil(0.95 n)-th smallest. It is slow if more than n - ceil(0.95 n) are slow.
    return slow > timed - -(-95 * timed // 100)


SEEDS = [
    Seed(
        "errors",
        lambda s: s.update(status=500),
        bad=3, period=100, just_not_bad=2, per_second=100, over=60, hold=120, min_samples=30,
        counts=lambda s: (int(s["status"] == 500), 1),
        breach=lambda bad, n: bad * 50 > n,
    ),
    Seed(
        "slow",
        lambda s: s.update(latency_ms=60_000.0),
        bad=3, period=50, just_not_bad=2, per_second=50, over=30, hold=60, min_samples=200,
        counts=lambda s: (int(float(s["latency_ms"]) > 45_000), 1),  # type: ignore[arg-type]
        breach=_p95_over_limit,
    ),
    Seed(
        "cold-cache",
        lambda s: s.update(cache="miss"),
        bad=61, period=100, just_not_bad=60, per_second=100, over=60, hold=300, min_samples=30,
        counts=lambda s: (int(s["cache"] == "hit"), int(s["cache"] != "bypass")),
        breach=lambda hits, n: hits * 10 < n * 4,
    ),
    Seed(
        "down",
        lambda s: s.update(status=503),
        bad=2, period=100, just_not_bad=1, per_second=100, over=15, hold=30, min_samples=30,
        counts=lambda s: (int(s["status"] == 503), 1),
        breach=lambda bad, n: bad * 100 > n,
    ),
]  # fmt: skip


def traffic(seed: Seed, **changes: object) -> Traffic:
    usual = Traffic(
        seconds=FAULT + seed.over + seed.hold + 20,
        per_second=seed.per_second,
        bad=seed.bad,
        period=seed.period,
        faulty=lambda s: s >= FAULT,
        mark=seed.mark,
    )
    return replace(usual, **changes)  # type: ignore[arg-type]


Judged = tuple[int | None, list[Change], list[Commanded]]


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Judged]:
    """What `judged` returns for the usual traffic of a seed, by its name; replayed once."""
    directory = tmp_path_factory.mktemp("usual")

    @cache
    def of(name: str) -> Judged:
        (seed,) = (seed for seed in SEEDS if seed.name == name)
        return judged(directory, seed, traffic(seed).samples())

    return of


def judged(tmp_path: Path, seed: Seed, samples: list[Sample]) -> Judged:
    """Return when the seed's trigger first fired, its changes, and the commands."""
    _, lines = replay(load(config_file(tmp_path)), [write(tmp_path / "r.jsonl", samples)], "json")
    everything = list(lines)
    changes = [line for line in everything if isinstance(line, Change) and line.trigger == seed.name]
    fired = [change.time for change in changes if change.to == "firing"]
    return (
        fired[0] if fired else None,
        changes,
        [line for line in everything if isinstance(line, Commanded) and line.trigger == seed.name],
    )


def oracle(seed: Seed, samples: list[Sample]) -> int | None:
    return expected_firing(samples, counts=seed.counts, **seed.rule)


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: seed.name)
def test_it_fires_at_the_right_second_and_commands_once(usual: Callable[[str], Judged], seed: Seed) -> None:
    fired, changes, commands = usual(seed.name)
    assert fired is not None
    assert fired == oracle(seed, traffic(seed).samples())
    assert T0 + FAULT + seed.hold < fired <= T0 + FAULT + seed.over + seed.hold + 1
    assert [c.to for c in changes] == ["ok", "pending", "firing"]
    pending = next(c for c in changes if c.to == "pending")
    assert fired - pending.time == seed.hold
    assert [c.time for c in commands] == [fired]


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: seed.name)
def test_just_below_the_threshold_it_never_breaches(tmp_path: Path, seed: Seed) -> None:
    samples = traffic(seed, bad=seed.just_not_bad).samples()
    fired, changes, commands = judged(tmp_path, seed, samples)
    assert (fired, commands) == (None, [])
    assert [c.to for c in changes] == ["ok"]


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: seed.name)
def test_one_second_short_of_the_duration_it_does_not_fire(tmp_path: Path, seed: Seed) -> None:
    long = traffic(seed, seconds=FAULT + seed.hold + 2 * seed.over + 20)

    def lasting(n: int) -> list[Sample]:
        return replace(long, faulty=lambda s: FAULT <= s < FAULT + n).samples()

    good = counted(replace(long, faulty=lambda _: False).samples(), seed.counts)
    bad = counted(replace(long, faulty=lambda _: True).samples(), seed.counts)

    def fires(n: int) -> bool:
        fault = range(T0 + FAULT, T0 + FAULT + n)
        counts = {second: (bad if second in fault else good)[second] for second in good}
        return first_firing(counts, **seed.rule) is not None

    # If a fault fires, so does a longer one; so bisection finds the shortest that fires.
    lengths = range(1, seed.hold + seed.over + 5)
    shortest = lengths[bisect.bisect_left(lengths, True, key=fires)]
    assert oracle(seed, lasting(shortest - 1)) is None
    fired, changes, _ = judged(tmp_path, seed, lasting(shortest - 1))
    assert fired is None
    assert [c.to for c in changes] == ["ok", "pending", "ok"]
    fired, _, _ = judged(tmp_path, seed, lasting(shortest))
    assert fired is not None
    assert fired == oracle(seed, lasting(shortest))


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: seed.name)
def test_a_gap_within_the_grace_pauses_the_timer(tmp_path: Path, usual: Callable[[str], Judged], seed: Seed) -> None:
    # The silence is longer than the window, so that some evaluations have no samples.
    length = seed.over + 20
    gap = range(FAULT + seed.over, FAULT + seed.over + length)
    samples = traffic(seed, seconds=FAULT + 3 * seed.over + seed.hold + 100, silent=lambda s: s in gap).samples()
    fired, changes, _ = judged(tmp_path, seed, samples)
    assert fired == oracle(seed, samples)
    assert fired is not None
    assert "unknown" in [c.to for c in changes]
    without, _, _ = usual(seed.name)
    assert without is not None
    assert fired > without


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: seed.name)
def test_a_gap_beyond_the_grace_begins_anew(tmp_path: Path, seed: Seed) -> None:
    gap = range(FAULT + seed.over, FAULT + 2 * seed.over + 60)
    samples = traffic(seed, seconds=FAULT + 3 * seed.over + seed.hold + 120, silent=lambda s: s in gap).samples()
    fired, _, _ = judged(tmp_path, seed, samples)
    assert fired is not None
    assert fired == oracle(seed, samples)
    assert fired >= T0 + gap.stop + seed.hold


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: seed.name)
def test_with_too_few_samples_nothing_is_known(tmp_path: Path, seed: Seed) -> None:
    sparse = (seed.min_samples - 1) // seed.over
    if sparse:
        samples = traffic(seed, per_second=sparse, bad=1, period=1).samples()
    else:
        # Less than one sample a second: one every few seconds.
        every = -(-seed.over // (seed.min_samples - 1)) + 1
        samples = traffic(seed, per_second=1, bad=1, period=1, silent=lambda s: s % every != 0).samples()
    fired, changes, commands = judged(tmp_path, seed, samples)
    assert (fired, changes, commands) == (None, [], [])
