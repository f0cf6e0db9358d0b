"""The healthy rates of a day outlive a restart: each second counts once, and for the same condition only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from detectors.cell_operations import join
from detectors.cells import Cells
from detectors.conditions.spec import TriggerSpec
from detectors.triggers.evaluator import Evaluator
from detectors.triggers.fast_triggers import Day
from detectors.triggers.wants import wants
from detectors.windows.store import WindowStore
from streams.monitor.healthy_rates import HealthyRateRecord, days_of, decode, encode, records_of
from tests.support.cells import cells
from tests.unit.detectors.triggers.test_evaluator import SERVICE, counts, spec

BEGIN = 1_700_000_000 // 3600 * 3600
FAST = replace(spec("error_rate > 2% over 10s for 1h", min_samples=30), fast=True)
LATENCY = replace(spec("latency_p95 > 1s over 10s", min_samples=30), fast=True)


OF_ERRORS = [cells(0, (SERVICE, counts(50, errors))) for errors in (0, 1)]


class Service:
    """A service in which 15 of 3,000 requests a minute fail, and 60 in every tenth minute; judged second by second."""

    def __init__(self, *specs: TriggerSpec, at: int = BEGIN) -> None:
        self.specs = specs
        self.store = WindowStore(wants(specs), max_scopes=8)
        self.evaluator = Evaluator(specs, self.store)
        self.at = at

    def run(self, minutes: int) -> None:
        for _ in range(minutes):
            # Summed a minute at a time, as a log that is read again.
            prepared = self.store.prepared(join([self._cells(self.at + second) for second in range(60)]))
            for second in range(self.at, self.at + 60):
                self.store.advance_prepared(second, prepared[second])
                self.evaluator.update()
            self.at += 60

    @staticmethod
    def _cells(at: int) -> Cells:
        minute, second = divmod(at, 60)
        errors = 1 if minute % 10 == 0 else int(second % 4 == 0)
        return replace(OF_ERRORS[errors], second=np.array([at]))

    def records(self) -> list[HealthyRateRecord]:
        return [*records_of(self.specs, self.evaluator.healthy_days())]

    def restore(self, records: list[HealthyRateRecord]) -> None:
        self.evaluator.restore_healthy_days(days_of(self.specs, records))

    @property
    def r0(self) -> float:
        return float(self.evaluator._fast.r0[0])


@pytest.fixture(scope="module")
def taught() -> Service:
    service = Service(FAST)
    service.run(130)
    return service


def test_without_memory_the_healthy_rate_begins_at_its_cap(taught: Service) -> None:
    assert Service(FAST).r0 == 0.1
    assert 0.02 <= taught.r0 < 0.1


def test_a_day_is_remembered_through_its_record(taught: Service) -> None:
    (record,) = taught.records()
    assert record.key == ("production", "shop", "new", FAST.name)
    assert record.until == BEGIN + (129 - 5) * 60
    again = Service(FAST)
    again.restore([decoded] if (decoded := decode(encode(record))) else [])
    assert again.r0 == taught.r0


def test_what_is_replayed_is_not_counted_twice(taught: Service) -> None:
    (record,) = taught.records()
    again = Service(FAST, at=BEGIN + 100 * 60)
    again.restore([record])
    again.run(30)
    (after,) = again.records()
    np.testing.assert_allclose(after.hours, record.hours)


def test_it_goes_on_learning_where_it_was(taught: Service) -> None:
    (record,) = taught.records()
    again = Service(FAST, at=BEGIN + 125 * 60)
    again.restore([record])
    again.run(20)
    (after,) = again.records()
    minutes = sum(hour[1] for hour in after.hours)
    # The minute between the last counted one and the begin of the log is lost.
    assert minutes == 124 + (144 - 5 - 125)


@pytest.mark.parametrize(
    "other",
    [
        replace(FAST, condition=spec("timeout_rate > 2% over 10s").condition),
        replace(FAST, condition=spec("error_rate@on > 2% over 10s").condition),
        replace(FAST, name="other"),
        replace(FAST, service="other"),
        replace(FAST, fast=False),
    ],
)
def test_a_day_of_another_question_is_not_taken(taught: Service, other: TriggerSpec) -> None:
    assert days_of([other], taught.records()) == {}


def test_the_limit_of_a_ratio_may_change_that_of_a_latency_may_not() -> None:
    def record(of: TriggerSpec) -> HealthyRateRecord:
        (made,) = records_of([of], {0: Day(0, ((1, 1.0, 1.0, 0.0, 0.0, 1.0),))})
        return made

    stricter = replace(FAST, condition=replace(FAST.condition, value=0.01))
    assert days_of([stricter], [record(FAST)])
    slower = replace(LATENCY, condition=replace(LATENCY.condition, value=2000.0))
    assert days_of([LATENCY], [record(LATENCY)])
    assert not days_of([slower], [record(LATENCY)])


@pytest.mark.parametrize("value", [None, b"", b"{}", b"[1]", b"\xff"])
def test_what_is_no_record_is_passed_over(value: bytes | None) -> None:
    assert decode(value) is None


def test_a_trigger_that_has_learnt_nothing_writes_nothing() -> None:
    service = Service(FAST, replace(spec("error_rate@on > 2% over 10s"), fast=True))
    service.run(10)
    assert [record.of for record in service.records()] == ["error_rate of production/shop"]
