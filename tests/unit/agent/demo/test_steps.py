"""The demo's timeline: each step once, its time since the fault, and the rule for a recovered service."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.demo.scene import FLAG, SERVICE
from agent.demo.steps import CLEAN_SECONDS, Arm, FlipStep, ObservedSecond, Timeline, recovered, second, unfinished
from detectors.cells import COUNTS
from streams.monitor.health import Health, TriggerHealth

OK = TriggerHealth(FLAG, "errors", f"production/{SERVICE}", "ok", 0.0, 0.02, 2000, "")


def injected(at: float = 100.0) -> Timeline:
    timeline = Timeline()
    timeline.note(FlipStep.INJECTED, at)
    return timeline


def test_a_step_is_measured_from_the_injection() -> None:
    timeline = injected(100.0)
    mark = timeline.note(FlipStep.PENDING, 104.25, "why")
    assert mark is not None
    assert (mark.since, mark.detail) == (4.25, "why")


def test_what_was_seen_before_the_injection_belongs_to_another_story() -> None:
    assert Timeline().note(FlipStep.PENDING, 99.0) is None
    timeline = injected(100.0)
    assert timeline.note(FlipStep.PENDING, 99.9) is None
    assert FlipStep.PENDING not in timeline.marks


@given(st.lists(st.floats(100, 200), min_size=1))
def test_the_first_sign_of_a_step_counts_and_is_the_only_news(times: list[float]) -> None:
    timeline = injected(100.0)
    news = [timeline.note(FlipStep.FIRING, at) for at in times]
    assert timeline.marks[FlipStep.FIRING].at == times[0]
    assert news[0] is not None
    assert not any(news[1:])


def test_the_steps_that_are_missing_stand_in_the_order_of_the_way() -> None:
    timeline = injected()
    timeline.note(FlipStep.COMMAND, 101.0)
    assert timeline.next is FlipStep.PENDING
    assert timeline.missing == [
        FlipStep.PENDING, FlipStep.FIRING, FlipStep.WRITTEN, FlipStep.READ_BACK, FlipStep.OLD_PATH, FlipStep.RECOVERED,
    ]  # fmt: skip
    for step in FlipStep:
        timeline.note(step, 102.0)
    assert timeline.next is None


def test_a_time_between_steps_is_known_once_both_were_seen() -> None:
    timeline = injected(100.0)
    timeline.note(FlipStep.WRITTEN, 114.0)
    assert timeline.between(FlipStep.INJECTED, FlipStep.WRITTEN) == 14.0
    assert timeline.between(FlipStep.WRITTEN, FlipStep.OLD_PATH) is None


def test_each_missing_step_has_words() -> None:
    assert len({unfinished(step) for step in FlipStep}) == len(FlipStep)


def of_the_shop(time: int, new: tuple[int, int] = (0, 0), old: tuple[int, int] = (200, 0)) -> ObservedSecond:
    return ObservedSecond(time, Arm(*new), Arm(*old), Arm(new[0] + old[0], new[1] + old[1]), OK)


def clean(first: int, count: int) -> list[ObservedSecond]:
    return [of_the_shop(first + index) for index in range(count)]


def test_the_shop_has_recovered_after_clean_seconds_in_a_row() -> None:
    assert recovered(clean(101, CLEAN_SECONDS - 1), since=100.0) is None
    assert recovered(clean(101, CLEAN_SECONDS), since=100.0) == (105, Arm(1000, 0))


@pytest.mark.parametrize(
    "spoilt",
    [
        of_the_shop(105, new=(1, 0), old=(199, 0)),
        of_the_shop(105, old=(200, 4)),
        of_the_shop(105, old=(0, 0)),
    ],
    ids=["one request on the new path", "error rate at the threshold", "no request at all"],
)
def test_a_second_that_is_not_clean_begins_the_count_anew(spoilt: ObservedSecond) -> None:
    seconds = [*clean(101, 4), spoilt, *clean(106, 4)]
    assert recovered(seconds, since=100.0) is None
    assert recovered([*seconds, of_the_shop(110)], since=100.0) == (110, Arm(1000, 0))


def test_a_second_that_nobody_counted_is_not_clean() -> None:
    seconds = [*clean(101, 4), *clean(106, 4)]
    assert recovered(seconds, since=100.0) is None


def test_a_second_that_began_before_the_flag_was_written_does_not_count() -> None:
    assert recovered(clean(101, CLEAN_SECONDS), since=100.5) is None
    assert recovered(clean(101, CLEAN_SECONDS + 1), since=100.5) == (106, Arm(1000, 0))


def test_errors_below_the_threshold_are_counted_and_do_not_hinder() -> None:
    seconds = [of_the_shop(101 + index, old=(200, 3)) for index in range(CLEAN_SECONDS)]
    assert recovered(seconds, since=100.0) == (105, Arm(1000, 15))


def frame(scopes: list[tuple[str, str, str, str]], requests: list[int], errors: list[int], flag: str = FLAG) -> Health:
    counts = {name: [0] * len(scopes) for name in COUNTS} | {"requests": requests, "errors": errors}
    trigger = TriggerHealth(flag, "errors", "", "pending", 0.05, 0.02, 200, "")
    return Health(1, 1000, 1002.5, 3, "live", "", scopes, counts, {}, [2] * len(scopes), [trigger])


def test_a_health_record_gives_the_requests_of_each_path_and_the_verdict() -> None:
    scopes = [
        ("production", "other", "", ""),
        ("production", SERVICE, "", ""),
        ("production", SERVICE, FLAG, "off"),
        ("production", SERVICE, FLAG, "on"),
        ("production", SERVICE, "another-flag", "on"),
    ]
    seen = second(frame(scopes, [7, 200, 101, 99, 50], [7, 20, 0, 20, 50]))
    assert seen is not None
    assert (seen.new, seen.old, seen.whole) == (Arm(99, 20), Arm(101, 0), Arm(200, 20))
    assert (seen.time, seen.trigger.state) == (1000, "pending")


def test_a_path_without_requests_has_no_error_rate() -> None:
    seen = second(frame([("production", SERVICE, "", "")], [200], [0]))
    assert seen is not None
    assert seen.new.error_rate is None
    assert seen.whole.error_rate == 0.0


def test_a_record_of_another_partition_or_of_no_second_is_passed_over() -> None:
    assert second(frame([("production", "other", "", "")], [7], [7])) is None
    assert second(frame([], [], [])) is None
    assert second(frame([("production", SERVICE, "", "")], [7], [7], flag="another-flag")) is None
