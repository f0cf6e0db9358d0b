"""A shard announces verdicts that stay unknown, and its health records say what was announced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from detectors.conditions.spec import TriggerSpec
from streams.monitor.evaluated_second import EvaluatedSecond
from streams.monitor.health import decoder, encoder
from streams.monitor.published import announced_before
from streams.monitor.resume_point import ResumePoint
from streams.monitor.settings import ShardSettings
from streams.monitor.shard import Shard
from streams.monitor.unattributed import Unattributed
from streams.monitor.unread import UnreadLog
from tests.support.cells import Cell, cells
from tests.unit.detectors.triggers.test_evaluator import SERVICE
from tests.unit.streams.monitor.test_shard import ERRORS, said, second

T = 1_700_000_000
RULE = replace(ERRORS, unknown_alert=20)
TRIGGER = ("new", "errors", "production/shop")


def shard(
    *,
    published: int | None = None,
    announced: Mapping[tuple[str, str, str], tuple[int, bool]] | None = None,
) -> Shard:
    made = Shard(
        0,
        [RULE],
        ["requests"],
        ShardSettings(max_scopes=50, evaluate_every=1, catching_up_after=15.0),
        ResumePoint(published=published, announced=announced or {}),
    )
    made.flag_changed("production", "new", None, None, safe=False)
    return made


def feed(target: Shard, begin: int, seconds: int, requests: int, *, written: bool = True) -> list[EvaluatedSecond]:
    found: list[EvaluatedSecond] = []
    for at in range(begin, begin + seconds):
        block = [second(at, requests, 0)] if requests else []
        for one in target.take(said(at + 1.0, *block), at + 3.0):
            found.append(one)
            for change in one.standing if written else ():
                target.announced(change)
    return found


def begun(seconds: list[EvaluatedSecond]) -> list[tuple[int, bool]]:
    return [(one.time - T, change.begun) for one in seconds for change in one.standing]


def test_silence_is_announced_and_a_restart_announces_its_end_alone() -> None:
    first = shard()
    seconds = feed(first, T, 12, 10) + feed(first, T + 12, 40, 0)
    (time, is_begun), *more = begun(seconds)
    assert (is_begun, more) == (True, [])
    health = seconds[-1].health
    assert health is not None
    record = encoder.encode(health)
    announced = announced_before(record)
    assert announced == {TRIGGER: (T + time - 20, True)}

    second_ = shard(published=T + 52, announced=announced)
    again = feed(second_, T, 12, 10) + feed(second_, T + 12, 100, 0)
    assert begun(again) == []
    assert [is_begun for _, is_begun in begun(feed(second_, T + 112, 42, 10))] == [False]


def test_an_announcement_that_was_never_written_is_made_by_who_takes_over() -> None:
    first = shard()
    seconds = feed(first, T, 12, 10, written=False) + feed(first, T + 12, 40, 0, written=False)
    ((time, _),) = begun(seconds)
    health = seconds[-1].health
    assert health is not None
    announced = announced_before(encoder.encode(health))
    assert announced == {TRIGGER: (T + time - 20, False)}
    second_ = shard(published=T + 52, announced=announced)
    again = feed(second_, T, 12, 10) + feed(second_, T + 12, 60, 0)
    assert [is_begun for _, is_begun in begun(again)] == [True]


def test_seconds_that_may_not_be_acted_upon_announce_nothing() -> None:
    target = shard()
    for at in range(T, T + 60):
        assert not any(one.standing for one in target.take(said(at + 1.0), at + 100.0))


def test_a_health_record_of_before_is_read_and_says_nothing_of_it() -> None:
    target = shard()
    health = feed(target, T, 3, 10)[-1].health
    assert health is not None
    record = encoder.encode(health)
    assert b"unknown_since" not in record
    assert decoder.decode(record) == health
    assert announced_before(b'{"time":1,"triggers":[{"flag":"a","trigger":"b","scope":"c","state":"unknown"}]}') == {}
    assert announced_before(b"no json") == {}


def test_a_health_record_names_scopes_that_were_never_seen() -> None:
    silent = feed(shard(), T, 3, 0)[-1].health
    heard = feed(shard(), T, 3, 10)[-1].health
    assert silent is not None
    assert heard is not None
    assert (silent.never_seen, heard.never_seen) == (["production/shop"], [])


def test_two_percent_late_do_not_disarm_a_service() -> None:
    target = shard()
    states: list[EvaluatedSecond] = []
    for at in range(T, T + 30):
        block = cells(at, (SERVICE, Cell({"requests": 98, "errors": 40 * (at >= T + 12), "late": 2})))
        states += target.take(said(at + 1.0, block), at + 3.0)
    assert any(one.firing for one in states)


def of(service: str) -> TriggerSpec:
    return replace(RULE, service=service)


def test_what_may_have_been_anybodys_counts_above_one_percent_of_its_topic() -> None:
    one = Unattributed([of("shop"), of("cart")], ["requests"])
    log = UnreadLog()
    log.add("requests", T, 2000, 20)
    assert one.lost(log, T).samples == {}
    log.add("requests", T + 1, 2000, 60)
    lost = one.lost(log, T + 1)
    assert {seconds: samples.tolist() for seconds, samples in lost.samples.items()} == {
        1: [60, 60],
        RULE.condition.over: [80, 80],
        60: [80, 80],
    }
    assert lost.where(1, 60) == "2 % of topic requests, of any service"


def test_of_several_topics_only_the_services_of_the_one_are_missing_something() -> None:
    target = Shard(
        0,
        [of("shop"), of("cart")],
        ["requests", "others"],
        ShardSettings(max_scopes=50, evaluate_every=1, catching_up_after=15.0),
    )
    list(target.take(said(T + 1.0, second(T, 10, 0)), T + 3.0))
    log = UnreadLog()
    log.add("requests", T, 100, 50)
    log.add("others", T, 100, 90)
    lost = target._unattributed.lost(log, T)
    assert lost.samples[1].tolist() == [50, 0]
    # shop has no samples in the other topic, so the samples that were rejected there are not shop's.
    assert [lost.where(0, 1), lost.where(1, 1)] == ["50 % of topic requests, of any service", ""]
