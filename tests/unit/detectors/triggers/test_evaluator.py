"""Evaluation: from windows to the states of triggers and their reasons."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.cells import Scope
from detectors.conditions.grammar import parse
from detectors.conditions.spec import TriggerSpec
from detectors.histogram import midpoints_ms
from detectors.triggers.evaluation import Evaluation, Transition
from detectors.triggers.evaluator import Evaluator
from detectors.triggers.state_machine import State
from detectors.triggers.wants import measures, wants
from detectors.windows.store import Want, WindowStore
from tests.support.cells import Cell, cells
from tests.support.verdicts import rows_of

SERVICE = Scope("production", "shop")
ON, OFF = Scope("production", "shop", "new", "on"), Scope("production", "shop", "new", "off")


def spec(when: str, *, min_samples: int = 0, grace: int = 0, baseline: float | None = None) -> TriggerSpec:
    return TriggerSpec(
        name=when,
        flag="new",
        environment="production",
        service="shop",
        condition=parse(when),
        safe_variant="off",
        min_samples=min_samples,
        unknown_grace=grace,
        control_variant="off",
        baseline=baseline,
    )


class Bench:
    """Specs on a store, fed second by second."""

    def __init__(self, *specs: TriggerSpec, max_scopes: int = 8) -> None:
        self.store = WindowStore(wants(specs), max_scopes=max_scopes, measures=measures(specs))
        self.evaluator = Evaluator(specs, self.store)
        self.second = 1000

    def see(self, *rows: tuple[Scope, Cell]) -> Evaluation:
        self.store.advance(self.second, cells(self.second, *rows))
        self.second += 1
        return self.evaluator.evaluate(self.second)

    def pass_by(self, *rows: tuple[Scope, Cell]) -> None:
        """Add a second that is not evaluated, as those between two evaluations."""
        self.store.advance(self.second, cells(self.second, *rows))
        self.second += 1
        self.evaluator.update()

    def states(self, rows: Sequence[tuple[Scope, Cell]]) -> list[str]:
        """Return the state of each trigger after a second."""
        return [row.state for row in rows_of(self.see(*rows))]


def counts(requests: int, errors: int = 0, **others: int) -> Cell:
    return Cell({"requests": requests, "errors": errors, **others})


def timed(*bins: int) -> Cell:
    return Cell({"latency_count": len(bins)}, {b: bins.count(b) for b in bins})


def one(evaluation: Evaluation) -> tuple[str, str]:
    (row,) = rows_of(evaluation)
    return row.state, row.reason


def test_a_condition_held_for_its_time_fires_and_every_change_is_told_once() -> None:
    bench = Bench(spec("error_rate > 2% over 1s for 3s"))
    changes: list[Transition] = []
    for errors in (2, 3, 3, 3, 3, 3, 2, 2):
        changes += bench.see((SERVICE, counts(100, errors))).transitions
    assert [(c.t, c.from_.name, c.to.name, c.value, c.threshold, c.samples, c.reason) for c in changes] == [
        (1001, "UNKNOWN", "OK", 0.02, 0.02, 100, ""),
        (1002, "OK", "PENDING", 0.03, 0.02, 100, "3 % > 2 %"),
        (1005, "PENDING", "FIRING", 0.03, 0.02, 100, "3 % > 2 % for 3 s"),
        (1007, "FIRING", "OK", 0.02, 0.02, 100, ""),
    ]


@pytest.mark.parametrize(
    ("when", "at", "beyond"),
    [
        ("error_rate > 2% over 1s", counts(100, 2), counts(1000, 21)),
        ("timeout_rate > 2% over 1s", counts(100, timeouts=2), counts(1000, timeouts=21)),
        ("availability < 99% over 1s", counts(100, unavailable=1), counts(1000, unavailable=11)),
        (
            "cache_hit_rate < 40% over 1s",
            counts(0, cache_hits=4, cache_lookups=10),
            counts(0, cache_hits=39, cache_lookups=100),
        ),
        ("throughput < 5 over 1s", counts(5), counts(4)),
        (
            "latency_mean > 10ms over 1s",
            counts(0, latency_count=2, latency_us=20_000),
            counts(0, latency_count=2, latency_us=20_001),
        ),
        (
            "measure.quality < 0.8 over 1s",
            Cell(measures={"quality": (5, 4.0)}),
            Cell(measures={"quality": (5, 3.999999)}),
        ),
        (f"latency_p50 > {float(midpoints_ms()[100])!r}ms over 1s", timed(100), timed(101)),
    ],
)
def test_comparison_is_strict_for_every_metric(when: str, at: Cell, beyond: Cell) -> None:
    bench = Bench(spec(when))
    assert one(bench.see((SERVICE, at))) == ("ok", "")
    assert one(bench.see((SERVICE, beyond)))[0] == "firing"


def test_the_window_is_as_long_as_it_says() -> None:
    bench = Bench(spec("error_rate > 10% over 3s"))
    bench.see((SERVICE, counts(10, 10)))
    result = [bench.states([(SERVICE, counts(10))])[0] for _ in range(4)]
    assert result == ["firing", "firing", "ok", "ok"]


def test_too_few_samples_are_unknown_neither_breach_nor_ok() -> None:
    bench = Bench(spec("error_rate > 2% over 1s", min_samples=30))
    assert one(bench.see((SERVICE, counts(29, 29)))) == ("unknown", "samples 29 < min_samples 30")
    assert one(bench.see((SERVICE, counts(30, 30))))[0] == "firing"


def test_samples_are_those_of_the_metric_not_requests() -> None:
    bench = Bench(spec("cache_hit_rate < 40% over 1s", min_samples=30))
    result = one(bench.see((SERVICE, counts(1000, cache_lookups=29))))
    assert result == ("unknown", "samples 29 < min_samples 30")


def test_no_value_is_unknown_even_where_no_sample_is_wanted() -> None:
    bench = Bench(spec("error_rate > 2% over 1s"))
    assert one(bench.see((SERVICE, counts(0)))) == ("unknown", "none since 00:16:41")


def test_a_scope_never_seen_is_unknown_for_throughput_too() -> None:
    bench = Bench(spec("throughput < 5 over 1s"), spec("throughput@on < 5 over 1s"))
    bench.see((SERVICE, counts(9)))
    evaluation = bench.see()
    assert [row.state for row in rows_of(evaluation)] == ["firing", "unknown"]
    assert evaluation.reason(1) == "never seen: no sample carries flag 'new'"
    assert math.isnan(evaluation.value[1])
    assert evaluation.samples[1] == 0


def test_more_than_one_percent_late_is_unknown_and_one_percent_is_not() -> None:
    bench = Bench(spec("error_rate > 2% over 1s"))
    assert one(bench.see((SERVICE, counts(99, 1, late=1))))[0] == "ok"
    assert one(bench.see((SERVICE, counts(9859, 140, late=141)))) == ("unknown", "late 1.41 % > 1 %")


def test_nothing_but_late_samples_is_unknown_because_of_them() -> None:
    bench = Bench(spec("throughput < 5 over 1s"))
    assert one(bench.see((SERVICE, counts(0, late=6)))) == ("unknown", "late 100 % > 1 %")


def test_a_scope_for_which_there_is_no_room_is_unknown() -> None:
    bench = Bench(spec("error_rate@on > 2% over 1s"), spec("error_rate@off > 2% over 1s"), max_scopes=1)
    evaluation = bench.see((ON, counts(10, 10)), (OFF, counts(10, 10)))
    assert [row.state for row in rows_of(evaluation)] == ["firing", "unknown"]
    assert evaluation.reason(1) == "scope not kept: there are more than max_scopes"


def test_the_control_sets_the_threshold_of_each_evaluation() -> None:
    bench = Bench(spec("error_rate@on > 3x control over 1s"))
    assert one(bench.see((ON, counts(100, 3)), (OFF, counts(100, 1))))[0] == "ok"
    assert one(bench.see((ON, counts(100, 4)), (OFF, counts(100, 1)))) == ("firing", "4 % > 3 %")
    assert one(bench.see((ON, counts(100, 60)), (OFF, counts(100, 20))))[0] == "ok"


@pytest.mark.parametrize(
    ("control", "reason"),
    [
        (counts(29, 0), "control: samples 29 < min_samples 30"),
        (counts(98, 0, late=2), "control: late 2 % > 1 %"),
    ],
)
def test_a_control_of_which_nothing_can_be_said_makes_unknown(control: Cell, reason: str) -> None:
    bench = Bench(spec("error_rate@on > 3x control over 1s", min_samples=30))
    assert one(bench.see((ON, counts(100, 6)), (OFF, control))) == ("unknown", reason)


def test_doubt_of_the_own_window_is_told_before_that_of_the_control() -> None:
    bench = Bench(spec("error_rate@on > 3x control over 1s", min_samples=30))
    assert one(bench.see((ON, counts(1)), (OFF, counts(2)))) == ("unknown", "samples 1 < min_samples 30")


def test_a_baseline_multiplies_the_threshold() -> None:
    bench = Bench(spec("latency_mean > 1.5x baseline over 1s", baseline=10.0))
    assert one(bench.see((SERVICE, counts(0, latency_count=1, latency_us=15_000))))[0] == "ok"
    assert one(bench.see((SERVICE, counts(0, latency_count=1, latency_us=15_001)))) == ("firing", "15.001 ms > 15 ms")


def test_unknown_within_the_grace_pauses_a_held_condition() -> None:
    bench = Bench(spec("error_rate > 2% over 1s for 4s", min_samples=30, grace=2))
    bad, few = (SERVICE, counts(100, 50)), (SERVICE, counts(1))
    result = "".join(bench.states([row])[0][0] for row in (bad, bad, few, few, bad, bad, bad, few, few, few, bad))
    assert result == "ppuuppfuuup"


def test_evaluations_further_apart_see_all_seconds_between() -> None:
    store = WindowStore(wants([spec("error_rate > 2% over 5s for 10s")]), max_scopes=8)
    evaluator = Evaluator([spec("error_rate > 2% over 5s for 10s")], store)
    result = []
    for second in range(100, 125):
        bad = 50 if second % 5 == 1 else 0
        store.advance(second, cells(second, (SERVICE, counts(100, bad))))
        if (second + 1) % 5 == 0:
            result += [row.state for row in rows_of(evaluator.evaluate(second + 1))]
    assert result == ["pending", "pending", "firing", "firing", "firing"]


def test_triggers_of_one_window_and_metric_keep_their_own_scope_quantile_and_limit() -> None:
    specs = [
        spec("latency_p50@on > 1ms over 2s"),
        spec("latency_p99 > 1ms over 2s"),
        spec("latency_p50 > 1ms over 2s"),
        spec("error_rate@off > 50% over 2s"),
        spec("error_rate@on > 50% over 2s"),
        spec("error_rate@on > 90% over 2s"),
    ]
    bench = Bench(*specs)
    fast, slow = 100, 200
    whole = Cell({"latency_count": 10}, {fast: 9, slow: 1})
    evaluation = bench.see(
        (OFF, counts(10, 1)),
        (SERVICE, whole),
        (ON, Cell({"requests": 10, "errors": 8, "latency_count": 1}, {slow: 1})),
    )
    assert [row.state for row in rows_of(evaluation)] == ["firing", "firing", "ok", "ok", "firing", "ok"]
    assert evaluation.firing() == [0, 1, 4]


def test_the_same_in_another_order_says_the_same() -> None:
    rules = [f"error_rate@{v} > {n}% over {w}s for 2s" for v in ("on", "off") for n in (10, 50) for w in (1, 3)]
    specs = [spec(rule) for rule in rules]
    one_way, other_way = Bench(*specs), Bench(*specs[::-1])
    # The slots differ too: this store has seen the scopes in another order.
    other_way.store = WindowStore([Want(OFF, 1), Want(ON, 3), *wants(specs)], max_scopes=8)
    other_way.evaluator = Evaluator(specs[::-1], other_way.store)
    for errors in (0, 20, 60, 60, 60, 5, 0, 0, 0):
        rows = [(ON, counts(100, errors)), (OFF, counts(100, 60 - errors))]
        first, second = rows_of(one_way.see(*rows)), rows_of(other_way.see(*rows[::-1]))
        assert first == second[::-1]


def test_no_triggers_are_no_error() -> None:
    bench = Bench()
    assert list(rows_of(bench.see((SERVICE, counts(1))))) == []


def test_an_evaluation_elsewhere_than_at_the_end_of_the_windows_is_an_error() -> None:
    bench = Bench(spec("error_rate > 2% over 1s"))
    with pytest.raises(ValueError, match="the windows end at None"):
        bench.evaluator.evaluate(1000)
    bench.see((SERVICE, counts(1)))
    with pytest.raises(ValueError, match="the windows end at 1001"):
        bench.evaluator.evaluate(1002)
    with pytest.raises(ValueError, match="not later"):
        bench.evaluator.evaluate(1001)


def test_a_store_without_a_window_that_is_looked_at_is_an_error() -> None:
    with pytest.raises(KeyError):
        Evaluator([spec("error_rate > 2% over 7s")], WindowStore([], max_scopes=1))


RULES = [
    ("error_rate > 20% over 3s for 2s", 5, 2),
    ("error_rate@on > 20% over 5s for 4s", 5, 0),
    ("error_rate@on > 2x control over 3s for 1s", 3, 3),
    ("error_rate@off > 20% over 3s", 1, 9),
]
second_of_scopes = st.fixed_dictionaries(
    {},
    optional={
        scope: st.tuples(st.integers(0, 9), st.integers(0, 9), st.sampled_from([0, 0, 0, 1]))
        for scope in (SERVICE, ON, OFF)
    },
)


@settings(deadline=None, max_examples=60)
@given(st.lists(second_of_scopes, max_size=30))
def test_all_together_is_the_plain_reading_of_the_rules(series: list[dict[Scope, tuple[int, int, int]]]) -> None:
    specs = [spec(when, min_samples=least, grace=grace) for when, least, grace in RULES]
    bench = Bench(*specs)
    held: list[int | None] = [None] * len(specs)
    silent = [0] * len(specs)
    for i, second in enumerate(series):
        rows = [(s, counts(n, min(bad, n), late=late)) for s, (n, bad, late) in second.items()]
        got = [row.state for row in rows_of(bench.see(*rows))]
        for k, rule in enumerate(specs):
            inside = series[max(0, i + 1 - rule.condition.over) : i + 1]
            own = _rates(inside, rule.scope, rule.min_samples)
            high = rule.condition.value
            known = own is not None and own[0] == own[1]
            if rule.control_scope is not None:
                base = _rates(inside, rule.control_scope, rule.min_samples)
                known = known and base is not None and base[0] == base[1]
                high = math.inf if base is None else rule.condition.value * base[1]
            # Missing samples may have been healthy in the variant and bad in the control.
            breach = own is not None and own[0] > high
            if not known and not breach:
                silent[k] += 1
                held[k] = held[k] if silent[k] <= rule.unknown_grace else None
                assert got[k] == "unknown"
                continue
            silent[k] = 0
            previous = held[k]
            held[k] = None if not breach else 0 if previous is None else previous + 1
            now = held[k]
            expected = "ok" if now is None else "firing" if now >= rule.condition.hold else "pending"
            assert got[k] == expected


def _rates(inside: list[dict[Scope, tuple[int, int, int]]], scope: Scope, least: int) -> tuple[float, float] | None:
    """Return the least and the greatest error rate; late samples count if they are too many."""
    seen = [second[scope] for second in inside if scope in second]
    requests, late = sum(n for n, _, _ in seen), sum(late for _, _, late in seen)
    if requests < max(least, 1):
        return None
    late = late if late > 0.01 * (requests + late) else 0
    bad = sum(min(bad, n) for n, bad, _ in seen)
    return bad / (requests + late), (bad + late) / (requests + late)


def test_an_evaluation_stays_as_it_was_when_time_goes_on() -> None:
    bench = Bench(spec("error_rate > 2% over 1s for 1s"))
    first = bench.see((SERVICE, counts(100, 50)))
    bench.see((SERVICE, counts(100)))
    assert first.state.tolist() == [State.PENDING]
    assert first.first_true_at.tolist() == [1001]
    np.testing.assert_array_equal(first.previous, [State.UNKNOWN])
