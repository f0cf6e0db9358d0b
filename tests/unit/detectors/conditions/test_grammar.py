"""The grammar of conditions: what a condition means, and the message for a wrong token."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.cells import Scope
from detectors.conditions.durations import format_seconds, parse_span
from detectors.conditions.grammar import METRIC_NAMES, default_over, format_condition, parse
from detectors.conditions.metric_table import LATENCIES, RATIOS, Metric
from detectors.conditions.spec import LONGEST_SPAN, Condition, Reference, TriggerSpec, longest_lookback
from detectors.errors import GrammarError, SpecError


def spec(when: str, **changes: object) -> TriggerSpec:
    fields = dict(
        name="t",
        flag="f",
        environment="production",
        service="shop",
        condition=parse(when),
        safe_variant="off",
        min_samples=30,
    )
    return TriggerSpec(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("error_rate > 2% for 2m", Condition("error_rate", ">", 0.02, over=60, hold=120)),
        ("error_rate > 0.02 for 2m", Condition("error_rate", ">", 0.02, over=60, hold=120)),
        ("latency_p95 > 45s for 1m", Condition("latency_quantile", ">", 45_000.0, 30, 60, quantile=0.95)),
        ("cache_hit_rate < 40% for 5m", Condition("cache_hit_rate", "<", 0.4, over=60, hold=300)),
        ("availability < 99% for 30s", Condition("availability", "<", 0.99, over=15, hold=30)),
        (
            "error_rate@on > 3x control for 1m",
            Condition("error_rate", ">", 3.0, 30, 60, variant="on", relative="control"),
        ),
        (
            "latency_p99 > 1.5x baseline for 2m",
            Condition("latency_quantile", ">", 1.5, 60, 120, quantile=0.99, relative="baseline"),
        ),
        (
            "measure.recommendation_quality < 0.8 for 10m",
            Condition("measure", "<", 0.8, 60, 600, measure="recommendation_quality"),
        ),
        ("measure.balance < -5", Condition("measure", "<", -5.0, over=10, measure="balance")),
        ("throughput < 100/s", Condition("throughput", "<", 100.0, over=10)),
        ("throughput<100 over 30s", Condition("throughput", "<", 100.0, over=30)),
        ("timeout_rate@v2>.5% over 1h", Condition("timeout_rate", ">", 0.005, over=3600, variant="v2")),
        ("latency_mean > 1m30s over 20s for 1m30s", Condition("latency_mean", ">", 90_000.0, over=20, hold=90)),
        ("latency_p99.9 > 1.5s", Condition("latency_quantile", ">", 1500.0, over=10, quantile=0.999)),
        ("  error_rate\t> 2%\n for  2m ", Condition("error_rate", ">", 0.02, over=60, hold=120)),
    ],
)
def test_a_condition_means_what_it_says(text: str, condition: Condition) -> None:
    assert parse(text) == condition


@pytest.mark.parametrize(
    ("text", "word", "message"),
    [
        ("eror_rate > 2%", "eror_rate", "'eror_rate' is not a metric; did you mean error_rate?"),
        ("latency > 2s", "latency", "'latency' is not a metric; did you mean latency_"),
        ("Error_Rate > 2%", "Error_Rate", "did you mean error_rate?"),
        ("wibble > 2%", "wibble", "known are error_rate, timeout_rate, availability, cache_hit_rate, throughput"),
        ("latency_p100 > 2s", "latency_p100", "expected a percentile between 0 and 100, such as latency_p95"),
        ("latency_p0 > 2s", "latency_p0", "expected a percentile between 0 and 100"),
        ("measure. > 2", "measure.", "expected the name of a measure"),
        ("measure > 2", "measure", "expected the name of a measure"),
        ("@on > 2%", "@on", "expected a metric before the variant"),
        ("error_rate@ > 2%", "@", "expected the name of one variant after @"),
        ("error_rate@on@off > 2%", "@on@off", "expected the name of one variant after @"),
        ("error_rate >= 2%", ">=", "expected > or <, found >=: comparison is strict"),
        ("error_rate == 2%", "==", "comparison is strict"),
        ("error_rate ≤ 2%", "≤", "comparison is strict"),
        ("error_rate above 2%", "above", "expected > or <, found 'above'"),
        ("error_rate > much", "much", "expected a value, such as 2%, found 'much'"),
        ("error_rate > 2 % for 2m", "%", "write the unit without a blank: 2%"),
        ("latency_p95 > 45 s", "s", "write the unit without a blank: 45s"),
        ("error_rate > 2 for 1m", "2", "a ratio is at most 100% or 1, found 2; did you mean 2%?"),
        ("error_rate > 101%", "101%", "a ratio is at most 100% or 1, found 101%"),
        ("error_rate > 100%", "100%", "could never be true"),
        ("availability < 0%", "0%", "could never be true"),
        ("throughput < 0", "0", "a throughput is never < 0"),
        ("error_rate > -2%", "-2%", "a ratio is never negative"),
        ("error_rate > 2s", "2s", "a ratio is written in per cent or between 0 and 1, such as 2%, found '2s'"),
        ("latency_p95 > 45", "45", "a latency needs a unit: ms, s or m, such as 800ms, found '45'"),
        ("latency_p95 > 45%", "45%", "a latency is measured in ms, s or m"),
        ("throughput > 5%", "5%", "a throughput is counted per second, such as 100/s"),
        ("measure.x > 5ms", "5ms", "a measure is compared with a plain number"),
        ("error_rate > " + "9" * 400, "9" * 400, "expected a value"),
        ("error_rate@on > 0x control", "0x", "expected a factor above 0, such as 3x"),
        (
            "error_rate@on > 3x contrl",
            "contrl",
            "expected control or baseline after 3x, found 'contrl'; did you mean c",
        ),
        ("error_rate > 2% fro 2m", "fro", "expected `over` or `for`, found 'fro'; did you mean for?"),
        ("error_rate > 2% over 30s fr 2m", "fr", "expected `for`, found 'fr'; did you mean for?"),
        ("error_rate > 2% for 2m please", "please", "expected the end, found 'please'"),
        ("error_rate > 2% for 2m over 30s", "over", "`over` comes before `for`"),
        ("error_rate > 2% over 30s over 40s", "over", "`over` stands twice"),
        ("error_rate > 2% for 2q", "2q", "expected a duration such as 30s, 2m or 1m30s after `for`, found '2q'"),
        ("error_rate > 2% for 120", "120", "expected a duration such as 30s, 2m or 1m30s after `for`, found '120'"),
        ("error_rate > 2% for 1500ms", "1500ms", "`for` counts whole seconds, 1s at least, found 1500ms"),
        ("error_rate > 2% over 500ms", "500ms", "`over` counts whole seconds, 1s at least"),
        ("error_rate > 2% for 0s", "0s", "without `for` the trigger fires at once"),
        ("error_rate > 2% for 61m", "61m", "`for` lasts at most 1h, found 61m"),
        ("error_rate > 2% over 2h", "2h", "`over` lasts at most 1h, found 2h"),
    ],
)
def test_an_error_points_at_the_wrong_word(text: str, word: str, message: str) -> None:
    with pytest.raises(GrammarError) as caught:
        parse(text)
    error = caught.value
    assert message in error.message
    assert text[error.position : error.position + error.length] == word
    first, line, carets = error.pointed.split("\n")
    assert first == error.message
    assert line == f"  {text}"
    assert carets == " " * (2 + text.rindex(word)) + "^" * len(word)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "a metric, such as error_rate"),
        ("error_rate ", "> or <"),
        ("latency_p95 >", "a value, such as 800ms"),
        ("error_rate@on > 3x", "control or baseline after 3x"),
        ("error_rate > 2% for", "a duration after `for`, such as 30s or 2m"),
        ("error_rate > 2% over ", "a duration after `over`, such as 30s or 2m"),
    ],
)
def test_a_condition_cut_short_names_what_is_missing_at_its_end(text: str, expected: str) -> None:
    with pytest.raises(GrammarError) as caught:
        parse(text)
    assert caught.value.message == f"expected {expected}, but the condition ends here"
    assert caught.value.position == len(text.rstrip())


def test_carets_stay_under_their_word_when_the_condition_holds_line_breaks() -> None:
    with pytest.raises(GrammarError) as caught:
        parse("error_rate > 2%\n\tfor 2q")
    assert caught.value.pointed.split("\n")[1:] == ["  error_rate > 2%  for 2q", " " * 23 + "^^"]


@pytest.mark.parametrize(("hold", "over"), [(0, 10), (10, 10), (20, 10), (25, 12), (30, 15), (120, 60), (3600, 60)])
def test_the_default_window_is_half_the_hold_from_10_to_60_seconds(hold: int, over: int) -> None:
    assert default_over(hold) == over


def test_a_window_without_a_hold_is_an_aggregate() -> None:
    assert parse("error_rate > 2% over 5m").hold == 0
    assert parse("error_rate > 2% over 5m").over == 300


@pytest.mark.parametrize(
    ("metric", "samples"),
    [
        ("error_rate", 30),
        ("latency_mean", 30),
        ("measure.x", 30),
        ("throughput", 0),
        ("latency_p50", 20),
        ("latency_p95", 200),
        ("latency_p99", 1000),
        ("latency_p99.9", 10_000),
        ("latency_p97.3", 371),
    ],
)
def test_default_samples_are_thirty_or_ten_beyond_the_quantile(metric: str, samples: int) -> None:
    value = "1s" if metric.startswith("latency") else "0.5"
    assert parse(f"{metric} > {value}").default_min_samples == samples


def test_every_listed_metric_is_read() -> None:
    for metric in METRIC_NAMES:
        text = f"{metric}@on" if metric == "absence" else f"{metric} > 2x baseline"
        assert parse(text).label == metric


names = st.text(st.characters(exclude_characters="<>=!≤≥@", exclude_categories=("Z", "C")), min_size=1, max_size=12)
spans = st.integers(1, LONGEST_SPAN)
fractions = st.floats(0, 1).map(lambda f: round(f, 12)).filter(lambda f: f < 1)
amounts = st.floats(0, 1e9).map(lambda f: round(f, 6))


@st.composite
def conditions(draw: st.DrawFn) -> Condition:
    metric: Metric = draw(st.sampled_from([*RATIOS, *LATENCIES, "throughput", "measure"]))
    op = draw(st.sampled_from([">", "<"]))
    relative: Reference | None = draw(st.sampled_from([None, "control", "baseline"]))
    if relative:
        value = draw(st.floats(0.001, 1e6))
    elif metric == "measure":
        value = draw(st.floats(-1e9, 1e9).map(lambda f: round(f, 6)))
    else:
        value = draw(fractions if metric in RATIOS else amounts)
        value = value or (0.5 if op == "<" else 0.0)
    return Condition(
        metric=metric,
        op=op,  # type: ignore[arg-type]
        value=value,
        over=draw(spans),
        hold=draw(st.one_of(st.just(0), spans)),
        quantile=draw(st.integers(1, 99_999)) / 100_000 if metric == "latency_quantile" else None,
        measure=draw(names) if metric == "measure" else None,
        variant=draw(st.none() | names),
        relative=relative,
    )


@given(conditions())
def test_what_is_written_reads_back_the_same(condition: Condition) -> None:
    assert parse(format_condition(condition)) == condition


@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from("error_rate @ on > < 2% 2 x 3x control over for 1s".split())).map(" ".join)
)
def test_any_text_is_read_or_refused_at_a_place_in_it(text: str) -> None:
    try:
        assert parse(format_condition(parse(text))) == parse(text)
    except GrammarError as error:
        assert 0 <= error.position <= len(text)
        assert error.position + error.length <= max(len(text), error.position + 1)


@given(st.integers(0, 100 * 3600))
def test_seconds_written_as_a_duration_read_back_the_same(seconds: int) -> None:
    assert parse_span(format_seconds(seconds)) == seconds * 1000


def test_a_condition_on_a_variant_is_judged_in_the_scope_of_that_variant() -> None:
    trigger = spec("error_rate@on > 3x control", control_variant="off")
    assert trigger.scope == Scope("production", "shop", "f", "on")
    assert trigger.control_scope == Scope("production", "shop", "f", "off")
    assert trigger.threshold is None


def test_a_condition_without_a_variant_is_judged_on_the_whole_service() -> None:
    trigger = spec("error_rate > 2%", control_variant="off")
    assert trigger.scope == Scope("production", "shop")
    assert trigger.control_scope is None
    assert trigger.threshold == 0.02


def test_a_baseline_is_multiplied_by_the_factor() -> None:
    assert spec("latency_p99 > 1.5x baseline", baseline=800.0).threshold == 1200.0
    assert spec("latency_p99 > 1s", baseline=800.0).threshold == 1000.0


@pytest.mark.parametrize(
    ("when", "changes", "message"),
    [
        ("error_rate > 2x baseline", {}, "no baseline value is given"),
        ("error_rate > 2x control", {"control_variant": "off"}, "needs a variant and a control variant"),
        ("error_rate@on > 2x control", {}, "needs a variant and a control variant"),
        ("error_rate@off > 2x control", {"control_variant": "off"}, "compares variant 'off' with itself"),
    ],
)
def test_a_trigger_that_lacks_what_it_compares_with_is_refused(
    when: str, changes: dict[str, str], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        spec(when, **changes)


def test_the_lookback_is_the_longest_window_and_the_longest_hold() -> None:
    assert longest_lookback([spec("error_rate > 2% over 5m"), spec("availability < 99% for 10m")]) == 300 + 600
    assert longest_lookback([]) == 0
