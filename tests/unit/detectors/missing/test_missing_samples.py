"""Missing samples never count as healthy: verdicts on windows with late, rejected and outcome-less samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.conditions.spec import TriggerSpec
from detectors.histogram import midpoints_ms
from detectors.triggers.dominated import LOOK_EVERY
from tests.support.cells import Cell
from tests.support.verdicts import rows_of
from tests.unit.detectors.triggers.test_evaluator import OFF, ON, SERVICE, Bench, counts, one, spec

Counts = Mapping[str, int]


def service(**instances: Counts) -> Cell:
    """Return a second of a service with the given counts of each instance."""
    names = dict.fromkeys(name for own in instances.values() for name in own)
    return Cell({name: sum(own.get(name, 0) for own in instances.values()) for name in names}, instances=instances)


def share(own: Counts) -> tuple[int, int]:
    """Return missing and all samples."""
    missing = own.get("late", 0) + own.get("rejected", 0)
    return missing + own.get("no_outcome", 0), own.get("requests", 0) + missing


def of(*parts: Counts) -> dict[str, int]:
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: sum(part.get(name, 0) for part in parts) for name in names}


def error_rates(own: Counts, missing: int) -> tuple[float, float] | None:
    """Return the least and the greatest rate, whatever `missing` samples were."""
    ended = own.get("requests", 0) - own.get("no_outcome", 0)
    if ended + missing == 0:
        return None
    return own.get("errors", 0) / (ended + missing), (own.get("errors", 0) + missing) / (ended + missing)


def hidden(instances: Mapping[str, Counts], limit: float, least: int) -> bool:
    """Return whether one of three instances or more has most of the weight and the others breach."""
    first = max(instances, key=lambda name: instances[name].get("requests", 0))
    others = of(*(own for name, own in instances.items() if name != first))
    weight = instances[first].get("requests", 0)
    rates = error_rates(others, 0)
    ended = others.get("requests", 0) - others.get("no_outcome", 0)
    outweighs = len(instances) >= 3 and weight > others.get("requests", 0)
    return outweighs and rates is not None and ended >= max(least, 1) and rates[0] > limit


def expected(instances: Mapping[str, Counts], limit: float, least: int) -> str:
    """The rule of `detectors.missing.missing_samples` for an error rate, written plainly."""
    whole = of(*instances.values())
    missing, total = share(whole)
    ended = whole.get("requests", 0) - whole.get("no_outcome", 0)
    if 100 * missing <= total:
        rates = error_rates(whole, 0)
        if ended < least or rates is None:
            return "unknown"
        return "firing" if rates[0] > limit else "unknown" if hidden(instances, limit, least) else "ok"
    worst = error_rates(whole, missing)
    certain = worst is not None and worst[0] > limit and ended >= least
    judged = {name: own for name, own in instances.items() if 100 * share(own)[0] <= share(own)[1]}
    rest = of(*judged.values())
    known = rest.get("requests", 0) - rest.get("no_outcome", 0)
    if 2 * share(rest)[1] >= total and known >= max(least, 1):
        rates = error_rates(rest, 0)
        assert rates is not None
        well = "unknown" if hidden(judged, limit, least) else "ok"
        return "firing" if rates[0] > limit or certain else well
    return "firing" if certain else "unknown"


@st.composite
def instance(draw: st.DrawFn) -> dict[str, int]:
    requests = draw(st.sampled_from([0, 1, 20, 200, 1000]))
    unknown = draw(st.sampled_from([0, 0, 0, 1, requests // 2, requests]))
    ended = max(requests - unknown, 0)
    return {
        "requests": requests,
        "no_outcome": min(unknown, requests),
        "errors": draw(st.integers(0, ended)) if draw(st.booleans()) else ended // 50,
        "late": draw(st.sampled_from([0, 0, 0, 1, 5, requests])),
        "rejected": draw(st.sampled_from([0, 0, 0, 1, 5, requests])),
    }


SERVICES = [SERVICE._replace(service=name) for name in ("shop", "cart", "search", "login")]
"""Each has a case of its own in an example: an evaluation of all costs little more than one of a single one."""


@settings(deadline=None, max_examples=75)
@given(
    st.lists(
        st.tuples(st.lists(instance(), min_size=1, max_size=6), st.sampled_from([0, 1, 30, 900])),
        min_size=len(SERVICES),
        max_size=len(SERVICES),
    )
)
def test_the_judged_part_or_the_worst_case_decides_and_else_nothing_is_said(
    cases: list[tuple[list[dict[str, int]], int]],
) -> None:
    rule = spec("error_rate > 2% over 1s")
    bench = Bench(
        *(
            replace(rule, service=scope.service, min_samples=least)
            for scope, (_, least) in zip(SERVICES, cases, strict=True)
        )
    )
    named = [{f"pod-{number}": own for number, own in enumerate(instances)} for instances, _ in cases]
    states = bench.states([(scope, service(**own)) for scope, own in zip(SERVICES, named, strict=True)])
    assert states == [expected(own, 0.02, least) for own, (_, least) in zip(named, cases, strict=True)]


@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.lists(st.lists(instance(), min_size=3, max_size=3), min_size=1, max_size=6),
        min_size=len(SERVICES),
        max_size=len(SERVICES),
    )
)
def test_the_rule_is_of_the_whole_window(several: list[list[list[dict[str, int]]]]) -> None:
    bench = Bench(
        *(replace(spec("error_rate > 2% over 3s", min_samples=30), service=scope.service) for scope in SERVICES)
    )
    for i in range(max(map(len, several))):
        rows = [
            (scope, service(**{f"pod-{k}": own for k, own in enumerate(series[i])}))
            for scope, series in zip(SERVICES, several, strict=True)
            if i < len(series)
        ]
        for state, series in zip(bench.states(rows), several, strict=True):
            if i < len(series):
                inside = series[max(0, i - 2) : i + 1]
                summed = {f"pod-{k}": of(*(second[k] for second in inside)) for k in range(3)}
                assert state == expected(summed, 0.02, 30)


def latencies(**instances: tuple[list[int], int]) -> Cell:
    """Return a second in which each instance timed requests in the given bins, and sent so many more late."""
    bins = [b for own, _ in instances.values() for b in own]
    made = service(
        **{
            name: {"requests": len(own), "latency_count": len(own), "late": late}
            for name, (own, late) in instances.items()
        }
    )
    return replace(made, bins={b: bins.count(b) for b in set(bins)})


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from([10, 20, 30]), max_size=12),
            st.sampled_from([0, 0, 0, 1, 4]),
            st.lists(st.sampled_from([10, 20, 30]), min_size=4, max_size=4),
        ),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from(["50", "90"]),
)
def test_a_quantile_says_nothing_that_the_missing_requests_could_refute(
    instances: list[tuple[list[int], int, list[int]]], percent: str
) -> None:
    limit = float(midpoints_ms()[20])
    named = {f"pod-{n}": (bins, late) for n, (bins, late, _) in enumerate(instances)}
    bench = Bench(spec(f"latency_p{percent} > {limit!r}ms over 1s", min_samples=1))
    state = one(bench.see((SERVICE, latencies(**named))))[0]

    def breaches(values: list[int]) -> bool:
        rank = max(math.ceil(int(percent) * len(values) / 100), 1)
        return bool(values) and sorted(values)[rank - 1] > 20

    late = sum(late for _, late, _ in instances)
    total = late + sum(len(bins) for bins, _, _ in instances)
    if 100 * late <= total:
        return
    known = [b for bins, _, _ in instances for b in bins]
    rest = [b for bins, late, _ in instances if not late for b in bins]
    certain = bool(known) and breaches(known + [10] * late)
    if 2 * len(rest) >= total and rest and not certain:
        # The others are judged, as far as their latencies can be separated from the rest.
        assert state in ("unknown", "firing" if breaches(rest) else "ok")
        return
    assert state == ("firing" if certain else "unknown")


@pytest.mark.parametrize(
    ("when", "well", "certain", "open_"),
    [
        (
            "availability < 99% over 1s",
            counts(100, late=0),
            counts(90, unavailable=20, late=10),
            counts(90, unavailable=1, late=10),
        ),
        (
            "cache_hit_rate < 40% over 1s",
            counts(100, cache_lookups=100, cache_hits=60),
            counts(100, cache_lookups=100, cache_hits=10, late=10),
            counts(100, cache_lookups=100, cache_hits=38, late=10),
        ),
        ("throughput < 100/s over 1s", counts(100), counts(80, late=10), counts(95, rejected=10)),
        ("throughput > 100/s over 1s", counts(100), counts(101, late=10), counts(95, late=10)),
        (
            "latency_mean > 10ms over 1s",
            counts(100, latency_count=100, latency_us=500_000),
            counts(100, latency_count=100, latency_us=2_000_000, late=10),
            counts(100, latency_count=100, latency_us=1_050_000, late=10),
        ),
    ],
)
def test_every_metric_breaches_for_certain_or_is_unknown(when: str, well: Cell, certain: Cell, open_: Cell) -> None:
    results = [one(Bench(spec(when)).see((SERVICE, cell)))[0] for cell in (well, certain, open_)]
    assert results == ["ok", "firing", "unknown"]


def test_a_measure_has_no_bound_and_so_is_unknown() -> None:
    cell = Cell({"requests": 100, "late": 2}, measures={"quality": (100, 1.0)})
    assert one(Bench(spec("measure.quality < 0.8 over 1s")).see((SERVICE, cell))) == (
        "unknown",
        "late 1.961 % > 1 %",
    )


def test_who_was_left_out_is_named_whatever_the_verdict() -> None:
    late, pod = {"requests": 0, "late": 5}, {"requests": 100}
    bench = Bench(spec("error_rate > 2% over 1s", min_samples=30))
    well = one(bench.see((SERVICE, service(**{"pod-7": late, "pod-1": pod}))))
    assert well == ("ok", "left out: instance pod-7 (100 % late)")
    ill = one(bench.see((SERVICE, service(**{"pod-7": late, "pod-1": {"requests": 100, "errors": 30}}))))
    assert ill == ("firing", "30 % > 2 %; left out: instance pod-7 (100 % late)")


def test_an_unknown_says_what_is_missing_of_whom() -> None:
    def reason(when: str = "error_rate > 2% over 1s", **instances: Counts) -> str:
        state, results = one(Bench(spec(when, min_samples=1)).see((SERVICE, service(**instances))))
        assert state == "unknown"
        return results

    half = {"requests": 10, "late": 40}
    assert reason(a=half, b={"requests": 10}) == "late 66.67 % > 1 %: instance a (80 % late)"
    assert reason(a=half, b=half) == "late 80 % > 1 %: all 2 instances"
    assert reason(a={"requests": 22, "rejected": 3}) == "rejected 12 % > 1 %: instance a (12 % rejected)"
    assert reason(a={"requests": 100, "no_outcome": 58}).startswith("outcome known for 42 % of requests")
    both = reason(a={"requests": 90, "late": 5, "rejected": 5})
    assert both.startswith("late 5 % and rejected 5 %: 10 % missing > 1 %")


def test_names_of_many_instances_and_long_names_do_not_fill_a_reason() -> None:
    many = {f"{'x' * 300}-{number}": {"late": 1} for number in range(50)}
    bench = Bench(spec("error_rate > 2% over 1s", min_samples=30))
    _, reason = one(bench.see((SERVICE, service(**many, well={"requests": 1000}))))
    assert reason.endswith("and 47 more")
    assert len(reason) < 400


@pytest.mark.parametrize(
    ("when", "cell", "reason"),
    [
        ("latency_p95 > 1s over 1s", counts(200), "no sample has latency_ms"),
        ("latency_mean > 1s over 1s", counts(200), "no sample has latency_ms"),
        ("cache_hit_rate < 40% over 1s", counts(200), "no sample has cache"),
        ("measure.quality < 0.8 over 1s", counts(200), "no sample has measure 'quality'"),
        ("error_rate@on > 2% over 1s", counts(200), "never seen: no sample carries flag 'new'"),
        ("error_rate > 2% over 1s", counts(200, no_outcome=200), "outcome known for 0 % of requests"),
    ],
)
def test_a_field_that_never_comes_is_named(when: str, cell: Cell, reason: str) -> None:
    assert one(Bench(spec(when, min_samples=30)).see((SERVICE, cell))) == ("unknown", reason)


def test_never_seen_and_fallen_silent_are_different_words() -> None:
    bench = Bench(spec("error_rate > 2% over 1s", min_samples=30))
    assert one(bench.see()) == ("unknown", "never seen")
    bench.see((SERVICE, counts(100)))
    assert one(bench.see()) == ("unknown", "none since 00:16:42")
    typo = Bench(spec("error_rate@onn > 2% over 1s", min_samples=30))
    assert one(typo.see((SERVICE, counts(9)), (OFF, counts(3)), (ON, counts(3))))[1] == (
        "never seen: variants of 'new' that were seen are 'off', 'on'"
    )


def test_late_samples_of_an_outage_say_how_long_they_stay() -> None:
    bench = Bench(spec("error_rate > 2% over 60s", min_samples=30))
    for _ in range(10):
        bench.see((SERVICE, counts(10)))
    bench.see((SERVICE, counts(0, late=50)))
    for _ in range(9):
        found = bench.see((SERVICE, counts(10)))
    assert one(found)[1] == (
        "late 20.83 % > 1 %; the last came at 00:16:51, about 51 s more until they leave the window"
    )


def test_a_proof_goes_on_without_the_instance_that_is_late() -> None:
    def arm(errors: int, late: int) -> Cell:
        return service(
            **{f"pod-{n}": {"requests": 10, "errors": errors} for n in range(9)}, slow={"requests": 0, "late": late}
        )

    compared = spec("error_rate@on > control", min_samples=1)
    results = []
    bench = Bench(compared)
    for second in range(30):
        results.append(one(bench.see((ON, arm(int(second > 0), 10)), (OFF, arm(0, 10)))))
    assert results[0] == ("ok", "left out: instance slow (100 % late); control: left out: instance slow (100 % late)")
    assert results[-1][0] == "firing"


def test_rejects_whose_variant_is_not_known_count_against_every_variant() -> None:
    rules = [spec(f"error_rate@{variant} > 2% over 1s", min_samples=30) for variant in ("on", "off")]
    bench = Bench(*rules)
    rows = [(ON, counts(100)), (OFF, counts(100)), (SERVICE, counts(200, rejected=10))]
    evaluation = bench.see(*rows)
    assert [row.state for row in rows_of(evaluation)] == ["unknown", "unknown"]
    assert evaluation.reason(0) == "rejected 9.091 % > 1 %"
    # The 10 missing of 110 could all have been healthy.
    ill = bench.see((ON, counts(100, 50)), *rows[1:])
    assert [row.state for row in rows_of(ill)] == ["firing", "unknown"]


def test_samples_that_may_have_been_anybodys_are_missing_everywhere() -> None:
    bench = Bench(spec("error_rate > 2% over 1s", min_samples=30), spec("error_rate > 20% over 1s", min_samples=30))
    bench.evaluator.set_unattributed({1: np.array([50, 50])}, lambda _, seconds: f"in {seconds} s of topic 'requests'")
    found = bench.see((SERVICE, counts(100, 10)))
    assert [row.state for row in rows_of(found)] == ["firing", "unknown"]
    assert found.reason(1) == "rejected 33.33 % > 1 % (in 1 s of topic 'requests')"
    bench.evaluator.set_unattributed({})
    assert [row.state for row in rows_of(bench.see((SERVICE, counts(100, 10))))] == ["firing", "ok"]


@pytest.mark.parametrize("rule", ["error_rate > 2% over 1s", "error_rate@on > 2% over 1s"])
def test_a_service_whose_own_samples_are_rejected_blames_no_topic(rule: str) -> None:
    bench = Bench(spec(rule, min_samples=30))
    bench.evaluator.set_unattributed({1: np.array([40])}, lambda *_: "31.9 % of topic requests, of any service")
    rows = [(SERVICE, counts(0, rejected=100)), (ON, counts(0, rejected=0))]
    assert bench.see(*rows).reason(0) == "rejected 100 % > 1 %"
    bench.evaluator.set_unattributed({})
    assert bench.see(*rows).reason(0) == "rejected 100 % > 1 %"


def fleet(bad: bool) -> Cell:
    """Return a second of twenty instances with ten requests each; all of the last one are late, and 30 % fail if
    `bad`."""
    well = {f"i-{n}": {"requests": 10, "errors": 3 * bad} for n in range(19)}
    return service(**well, **{"i-19": {"requests": 0, "late": 10}})


def test_one_late_instance_of_twenty_does_not_keep_a_trigger_from_firing() -> None:
    rule: TriggerSpec = spec("error_rate > 2% for 2m", min_samples=900, grace=30)
    bench = Bench(rule)
    states = [one(bench.see((SERVICE, fleet(second >= 60))))[0] for second in range(200)]
    assert states[10:60] == ["ok"] * 50
    assert "firing" in states
    assert states.index("firing") <= 60 + 125


def test_what_the_late_ones_did_send_is_not_overlooked_because_the_others_are_well() -> None:
    sick = {f"sick-{n}": {"requests": 10, "errors": 10, "late": 1} for n in range(8)}
    well = {f"well-{n}": {"requests": 10} for n in range(12)}
    state, reason = one(Bench(spec("error_rate > 2% over 1s", min_samples=30)).see((SERVICE, service(**sick, **well))))
    assert state == "firing"
    assert reason.startswith("38.46 % > 2 %; even if what is missing was well: late 3.846 % > 1 %")


def test_one_that_outweighs_all_others_hides_nothing_where_somebody_is_late() -> None:
    ill = {f"i-{n}": {"requests": 10, "errors": 3} for n in range(18)}
    rows = service(**ill, big={"requests": 100_000}, slow={"requests": 0, "late": 5_000})
    state, reason = one(Bench(spec("error_rate > 2% over 1s", min_samples=30)).see((SERVICE, rows)))
    assert (state, reason) == ("unknown", "instance big has 99.82 % of the weight; without it: 30 % > 2 %")


def test_one_that_outweighs_the_others_that_are_judged_hides_nothing() -> None:
    # `big` has a third of all requests, and more than half of those of the instances that are not late.
    ill = {f"i-{n}": {"requests": 130, "errors": 5} for n in range(20)}
    rows = service(**ill, big={"requests": 3_300}, slow={"requests": 4_000, "late": 200})
    bench = Bench(spec("error_rate > 2% over 10s", min_samples=30))
    results = [one(bench.see((SERVICE, rows))) for _ in range(12)]
    assert results[-1] == ("unknown", "instance big has 55.93 % of the weight; without it: 3.846 % > 2 %")


def test_who_outweighs_the_others_in_a_few_seconds_hides_nothing_in_a_window_of_those() -> None:
    bench = Bench(spec("error_rate > 5% over 5s", min_samples=30))
    even = service(a={"requests": 100}, b={"requests": 100}, big={"requests": 100})
    ill = {"requests": 60, "errors": 4}
    before = [one(bench.see((SERVICE, even))) for _ in range(60)]
    after = [one(bench.see((SERVICE, service(a=ill, b=ill, big={"requests": 200})))) for _ in range(5 + LOOK_EVERY)]
    assert before[-1] == ("ok", "")
    assert after[-1] == ("unknown", "instance big has 62.5 % of the weight; without it: 6.667 % > 5 %")


def test_two_percent_late_do_not_disarm_a_service() -> None:
    rule = spec("error_rate > 2% over 10s for 10s", min_samples=30, grace=30)
    bench = Bench(rule)
    states = [one(bench.see((SERVICE, counts(98, 20 * (i >= 10), late=2))))[0] for i in range(40)]
    assert states[:10] == ["unknown"] * 10
    assert states[-1] == "firing"


def test_one_instance_that_outweighs_all_others_does_not_make_a_service_well() -> None:
    bench = Bench(spec("error_rate > 2% over 10s", min_samples=30))
    ill = {f"i-{n}": {"requests": 10, "errors": 3} for n in range(19)}
    heavy = {"requests": 100_000}
    results = [one(bench.see((SERVICE, service(**ill, **{"i-19": heavy})))) for _ in range(12)]
    assert {state for state, _ in results} == {"unknown"}
    assert results[-1][1] == "instance i-19 has 99.81 % of the weight; without it: 30 % > 2 %"
    well = {name: {"requests": 10} for name in ill}
    results = [one(bench.see((SERVICE, service(**well, **{"i-19": heavy})))) for _ in range(20)]
    assert results[-1] == ("ok", "")


def test_an_instance_that_is_rightly_the_busiest_changes_nothing() -> None:
    bench = Bench(spec("error_rate > 2% over 10s", min_samples=30))
    few = {f"i-{n}": {"requests": 100, "errors": 1} for n in range(3)}
    results = [one(bench.see((SERVICE, service(**few, big={"requests": 1000, "errors": 5})))) for _ in range(12)]
    assert set(results) == {("ok", "")}


def test_of_two_instances_the_greater_one_decides() -> None:
    bench = Bench(spec("error_rate > 2% over 10s", min_samples=30))
    pair = service(small={"requests": 100, "errors": 50}, big={"requests": 10_000})
    assert one(bench.see((SERVICE, pair)))[0] == "ok"
