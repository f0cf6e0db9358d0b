"""A flag that changes faster than a held condition can judge is announced, and so is the end of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.decisions.ramp import Ramps
from agent.events.cloudevents import INABILITY, Event
from detectors.conditions.grammar import parse
from tests.unit.agent.decisions.test_commander import Bench, T, evidence, spec, status

KEY = "production", "new"
NEED = 30
"""The seconds that `over 10s for 20s` needs of one version."""


class Watched:
    """Ramps with their announcements."""

    def __init__(self, *when: str) -> None:
        self.told: list[Event] = []
        specs = [replace(spec(name=f"t{n}"), condition=parse(text)) for n, text in enumerate(when)]
        self.ramps = Ramps(specs, self.told.append)

    def run(self, seconds: int, *changes: int, safe: tuple[int, ...] = ()) -> list[tuple[int, str]]:
        """Change the flag at the seconds `changes`, to safe at those in `safe`. Return the announcements' seconds and
        states (begun or ended).
        """
        seen = status("g1-x")
        for s in range(seconds):
            if s in changes:
                seen = status(f"g{s + 2}-x", changed_at=float(T + s), safe=s in safe)
            # The executor publishes an unchanged state repeatedly.
            self.ramps.update(seen)
            self.ramps.judged(T + s, [KEY])
        return [(int(event.time) - T, event.data["state"]) for event in self.told]


@pytest.mark.parametrize("every", [1, 10, 19, NEED - 1])
def test_a_ramp_with_steps_shorter_than_over_and_for_is_announced_once(every: int) -> None:
    watched = Watched("error_rate > 2% over 10s for 20s")
    steps = range(5, 5 + 6 * every, every)
    ended = steps[-1] + NEED
    assert watched.run(ended + 50, *steps) == [(steps[2], "begun"), (ended, "ended")]
    event = watched.told[0]
    assert (event.type, event.subject) == (INABILITY, "production/new")
    assert "changed 3 times" in event.data["reason"]
    assert "Leave 30s between steps" in event.data["reason"]


def test_a_ramp_whose_steps_can_be_judged_is_not_announced() -> None:
    assert Watched("error_rate > 2% over 10s for 20s").run(400, *range(5, 300, NEED)) == []


def test_two_changes_in_a_row_are_a_slip_of_the_hand() -> None:
    assert Watched("error_rate > 2% over 10s for 20s").run(100, 5, 10) == []


def test_the_slowest_trigger_says_how_long_a_step_must_last() -> None:
    watched = Watched("error_rate > 2% over 10s for 20s", "cache_hit_rate < 40% over 1m for 5m")
    assert watched.run(250, 5, 65, 125) == [(125, "begun")]
    assert watched.told[0].data["trigger"] == "t1"


def test_what_is_turned_back_and_on_again_is_no_ramp() -> None:
    watched = Watched("error_rate > 2% over 10s for 20s")
    changes = range(5, 65, 5)
    assert watched.run(100, *changes, safe=tuple(changes[1::2])) == []


def test_a_ramp_that_ends_in_the_safe_state_is_over() -> None:
    watched = Watched("error_rate > 2% over 10s for 20s")
    assert watched.run(40, 5, 10, 15, 20, safe=(20,)) == [(15, "begun"), (20, "ended")]


def test_changes_of_long_ago_that_are_read_at_the_start_are_no_news() -> None:
    watched = Watched("error_rate > 2% over 10s for 20s")
    for n in range(6):
        watched.ramps.update(status(f"g{n + 2}-x", changed_at=float(T - 600 + n)))
    watched.ramps.judged(T, [KEY])
    assert watched.told == []


def test_a_shard_that_does_not_watch_the_flag_says_nothing_of_it() -> None:
    watched = Watched("error_rate > 2% over 10s for 20s")
    for n in range(4):
        watched.ramps.update(status(f"g{n + 2}-x", changed_at=float(T + n)))
    watched.ramps.judged(T + 4, [("production", "other")])
    assert watched.told == []


async def test_a_breach_that_no_command_can_follow_because_of_the_ramp_is_announced() -> None:
    watched, bench = Watched("error_rate > 2% over 10s for 20s"), Bench()
    for s in range(120):
        bench.now = T + 2.0 + s
        seen = status(f"g{s // 10 + 2}-x", changed_at=float(T + s // 10 * 10))
        bench.see(seen)
        watched.ramps.update(seen)
        await bench.commander.firing(T + s, [evidence(T + s, since=float(T))])
        watched.ramps.judged(T + s, [KEY])
    assert bench.of("command") == []
    assert [(int(event.time) - T, event.data["state"]) for event in watched.told] == [(20, "begun")]
