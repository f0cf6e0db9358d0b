"""A step of the wall clock is followed only if it lasts or if other clocks agree with it."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.clock import MAX_DIFFERENCE, SETTLE, TOLERANCE, Clock
from streams.kafka.app import send_until_acknowledged

T = 1_700_000_000.0


@dataclass
class Machine:
    """A machine whose wall clock is `wrong` seconds ahead; its monotonic clock is right."""

    true: float = T
    wrong: float = 0.0

    def __post_init__(self) -> None:
        self.clock = Clock(lambda: self.true + self.wrong, lambda: self.true - T + 77)

    def after(self, seconds: float) -> None:
        self.true += seconds


def test_without_a_step_the_time_is_that_of_the_wall_clock() -> None:
    machine = Machine()
    for _ in range(100):
        machine.after(0.02)
        now = machine.clock.now()
        assert now.time == now.latest == pytest.approx(machine.true, abs=1e-6)
        assert not now.problem


def test_a_clock_that_is_slewed_is_followed() -> None:
    machine = Machine()
    for _ in range(100):
        machine.after(1.0)
        machine.wrong += 0.1
        now = machine.clock.now()
        assert now.time == pytest.approx(machine.true + machine.wrong, abs=1e-6)
        assert not now.problem


@pytest.mark.parametrize("step", [600.0, 3.0, -600.0, -3.0])
def test_during_a_step_and_after_it_is_taken_back_no_time_of_the_future_is_given(step: float) -> None:
    machine = Machine()
    machine.wrong = step
    for _ in range(4):
        machine.after(0.5)
        now = machine.clock.now()
        assert now.time <= machine.true + 1e-6
        assert now.latest >= machine.true - 1e-6
        assert f"{abs(step):.0f} s" in now.problem
    machine.wrong = 0.0
    machine.after(0.5)
    now = machine.clock.now()
    assert now.time == pytest.approx(machine.true, abs=1e-6)
    assert not now.problem


def test_a_step_that_stands_and_that_nobody_denies_holds_in_the_end() -> None:
    machine = Machine()
    machine.wrong = 600.0
    machine.clock.now()
    machine.after(SETTLE - 1)
    assert machine.clock.now().time == pytest.approx(machine.true, abs=1e-6)
    machine.after(1)
    now = machine.clock.now()
    assert now.time == pytest.approx(machine.true + 600, abs=1e-6)
    assert not now.problem


@pytest.mark.parametrize("step", [600.0, -600.0, 5.0, -5.0])
def test_a_step_that_record_times_deny_never_holds_and_counting_goes_on_by_the_time_before(step: float) -> None:
    machine = Machine()
    machine.wrong = step
    for _ in range(100):
        machine.after(1.0)
        machine.clock.recorded(machine.true - 0.1)
        now = machine.clock.now()
        assert now.time == pytest.approx(machine.true, abs=1e-6)
        assert now.problem


@pytest.mark.parametrize("step", [600.0, -600.0])
def test_a_step_that_corrects_the_clock_holds_as_soon_as_record_times_show_it(step: float) -> None:
    machine = Machine(wrong=-step)
    machine.clock.recorded(machine.true)
    assert not machine.clock.now().problem
    machine.wrong = 0.0
    machine.after(0.1)
    now = machine.clock.now()
    assert now.time == now.latest == pytest.approx(machine.true, abs=1e-6)
    assert not now.problem


def test_one_producer_with_a_wrong_clock_decides_nothing() -> None:
    machine = Machine()
    machine.wrong = 600.0
    for number in range(30):
        machine.clock.recorded(machine.true + (600.0 if number % 3 == 0 else 0.0))
    assert machine.clock.now().time == pytest.approx(machine.true, abs=1e-6)


def test_record_times_of_long_ago_decide_nothing() -> None:
    machine = Machine()
    machine.clock.recorded(machine.true)
    machine.after(60)
    machine.wrong = 600.0
    machine.clock.now()
    machine.after(SETTLE)
    assert machine.clock.now().time == pytest.approx(machine.true + 600, abs=1e-6)


@pytest.mark.parametrize("wrong", [600.0, -600.0])
def test_a_clock_that_was_wrong_from_the_start_is_told_from_that_of_the_brokers(wrong: float) -> None:
    machine = Machine(wrong=wrong)
    machine.clock.acknowledged(machine.true)
    now = machine.clock.now()
    assert now.time == pytest.approx(min(machine.true, machine.true + wrong), abs=1e-6)
    assert now.latest == pytest.approx(max(machine.true, machine.true + wrong), abs=1e-6)
    assert "600 s " in now.problem
    assert "brokers" in now.problem


def test_record_times_alone_do_not_put_a_clock_in_doubt_that_was_not_stepped() -> None:
    # Producers may give their records any time, and log shippers write minutes later.
    machine = Machine()
    machine.clock.recorded(machine.true - 300)
    now = machine.clock.now()
    assert now.time == pytest.approx(machine.true, abs=1e-6)
    assert not now.problem


def test_a_thread_that_lost_the_processor_between_two_looks_sees_no_step() -> None:
    at = 100.0
    stalls = [0.0, 0.0, 5.0]

    def monotonic() -> float:
        nonlocal at
        at += stalls.pop(0) if stalls else 0.0
        return at

    clock = Clock(lambda: T + at, monotonic)
    now = clock.now()
    assert not now.problem
    assert now.time == pytest.approx(T + at, abs=5.0)


def test_the_time_of_an_earlier_instant_is_by_the_same_clock() -> None:
    machine = Machine()
    now = machine.clock.now()
    assert now.at(now.monotonic - 3.0) == pytest.approx(machine.true - 3.0, abs=1e-6)


@given(st.lists(st.tuples(st.floats(0.01, 5.0), st.floats(-900.0, 900.0)), max_size=30))
def test_with_record_times_that_are_right_the_time_is_never_far_ahead(steps: list[tuple[float, float]]) -> None:
    machine = Machine()
    machine.clock.now()
    for seconds, wrong in steps:
        machine.after(seconds)
        machine.wrong = wrong
        machine.clock.recorded(machine.true)
        # A step is followed if it is within the tolerance, or too small to be distinguished from the producers' delay.
        assert machine.clock.now().time <= machine.true + TOLERANCE * len(steps) + MAX_DIFFERENCE


def test_an_acknowledgement_that_was_read_late_puts_the_clock_in_no_doubt() -> None:
    machine = Machine()
    machine.clock.acknowledged(machine.true)
    machine.after(5)
    machine.clock.acknowledged(machine.true - 4)
    assert not machine.clock.now().problem


@pytest.mark.parametrize(("kind", "expected"), [(1, 1_700_000_000.5), (0, None)])
async def test_the_time_of_an_acknowledgement_is_the_brokers_only_where_it_stamps_the_records(
    kind: int, expected: float | None
) -> None:
    async def send_and_wait(*_: object) -> SimpleNamespace:
        return SimpleNamespace(timestamp=1_700_000_000_500, timestamp_type=kind)

    app: Any = SimpleNamespace(producer=SimpleNamespace(send_and_wait=send_and_wait))
    assert await send_until_acknowledged(app, "t", b"") == expected
