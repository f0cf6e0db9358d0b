"""A restart continues from a checkpoint that fits as if it had not happened, and does not use one that does not."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.cells import Scope
from detectors.conditions.spec import TriggerSpec, longest_window
from detectors.histogram import BINS
from detectors.triggers.evaluation import Evaluation
from detectors.triggers.evaluator import Evaluator
from detectors.triggers.state_machine import State
from detectors.triggers.wants import measures, wants
from detectors.windows.store import WindowStore
from streams.clock import instant
from streams.errors import CheckpointError
from streams.monitor.checkpoint import MOST_BYTES, Checkpoint, decode, encode, identity
from streams.monitor.evaluated_second import EvaluatedSecond
from streams.monitor.resume_point import ResumePoint
from streams.monitor.settings import ShardSettings
from streams.monitor.shard import Shard
from tests.support.cells import Cell, cells
from tests.support.verdicts import rows_of
from tests.unit.detectors.triggers.test_evaluator import OFF, ON, SERVICE, spec
from tests.unit.streams.monitor.test_shard import BAD, GOOD, MUTED_AFTER, said, second
from tests.unit.streams.monitor.test_shard import spec as held

T = 1_700_000_000
SPECS = [
    spec("error_rate > 20% over 5s for 7s", min_samples=5, grace=3),
    replace(spec("error_rate > 2% over 5s for 1h", min_samples=5, grace=30), fast=True, keep_for=4),
    replace(spec("latency_p95 > 1s over 5s for 1h", min_samples=5), fast=True, false_alarms=3600),
    spec("error_rate@on > control", min_samples=1, grace=30),
    spec("latency_p90@on > control", min_samples=1, grace=30),
    spec("absence@on", min_samples=1),
    spec("throughput < 5 over 5s for 8s"),
]

SERVICES = ("shop", "cart", "search", "login")
"""Each has its own series in an example; an evaluation of all costs little more than one of a single service."""
OF_ALL = [replace(one, service=service) for service in SERVICES for one in SPECS]

second_of_both = st.fixed_dictionaries(
    {},
    optional={
        scope: st.tuples(st.integers(1, 40), st.sampled_from([0.0, 0.02, 0.5]), st.integers(0, BINS - 1))
        for scope in (SERVICE, ON, OFF)
    },
)
series_of_both = st.lists(second_of_both, min_size=30, max_size=90)


def evaluator(specs: Sequence[TriggerSpec] = SPECS) -> tuple[Evaluator, WindowStore]:
    store = WindowStore(wants(specs), max_scopes=16, measures=measures(specs))
    return Evaluator(specs, store), store


def rows(counts: dict[Scope, tuple[int, float, int]]) -> list[tuple[Scope, Cell]]:
    return [
        (scope, Cell({"requests": n, "errors": int(n * bad), "latency_count": n}, bins={bin_: n}))
        for scope, (n, bad, bin_) in counts.items()
    ]


def words(found: Evaluation) -> list[object]:
    """All results of an evaluation, as plain values."""
    gathered = [column.tolist() for column in (found.gathered.evidence, found.gathered.null, found.gathered.since)]
    return [found.state.tolist(), found.tier.tolist(), found.first_true_at.tolist(), repr(gathered), [*rows_of(found)]]


@settings(deadline=None, max_examples=15)
@given(st.tuples(*(series_of_both for _ in SERVICES)), st.data())
def test_triggers_go_on_from_what_was_remembered_as_if_nothing_had_been(
    several: tuple[list[dict[Scope, tuple[int, float, int]]], ...], data: st.DataObject
) -> None:
    length = max(map(len, several))
    # One process after the other continues from the record of the one before it.
    cuts = data.draw(st.lists(st.integers(1, length - 2), min_size=4, max_size=4, unique=True))
    blocks = []
    for number in range(length):
        counts = {
            scope._replace(service=service): own
            for service, series in zip(SERVICES, several, strict=True)
            for scope, own in (series[number].items() if number < len(series) else ())
        }
        blocks.append([cells(T + number, *rows(counts))] if counts else [])
    first, store = evaluator(OF_ALL)
    first.begin_version("production", "new", T, share=0.3)
    next_, next_store = first, store
    for number in range(length):
        store.advance(T + number, *blocks[number])
        expected = first.evaluate(T + number + 1)
        if next_ is not first:
            next_store.advance(T + number, *blocks[number])
            assert words(next_.evaluate(T + number + 1)) == words(expected)
        if number in cuts:
            found = decode(encode(Checkpoint(of="", time=T + number + 1, stale=(), memory=next_.state())))
            next_, next_store = evaluator(OF_ALL)
            next_.begin_version("production", "new", T, share=0.3)
            for earlier in range(max(number - longest_window(OF_ALL) - 60, 0), number + 1):
                next_store.advance(T + earlier, *blocks[earlier])
            next_.restore(found.memory)


def test_what_was_gathered_of_an_earlier_version_of_the_flag_is_not_gone_on_with() -> None:
    def taken(begin: int) -> tuple[list[str], float]:
        """The state of the proof, and its evidence, at the next evaluation by the process that takes over."""
        first, store = evaluator()
        first.begin_version("production", "new", T)
        for at in range(T, T + 40):
            store.advance(at, cells(at, *rows({ON: (10, 0.5, 3), OFF: (90, 0.02, 3)})))
            first.evaluate(at + 1)
        after, after_store = evaluator()
        after.begin_version("production", "new", begin)
        for at in range(T, T + 40):
            after_store.advance(at, cells(at, *rows({ON: (10, 0.5, 3), OFF: (90, 0.02, 3)})))
        after.restore(first.state())
        after_store.advance(T + 40)
        found = after.evaluate(T + 41)
        return [State(int(found.state[3])).name], float(found.gathered.evidence[3])

    same, other = taken(T), taken(T + 39)
    assert same[0] == ["FIRING"]
    assert same[1] > 7
    assert other == (["OK"], 0.0)


ERRORS = held("error_rate > 20% over 10s for 30s")


def shard(
    checkpoint: Checkpoint | None = None,
    published: int | None = None,
    *,
    from_start: bool = True,
    trigger: TriggerSpec = ERRORS,
) -> Shard:
    return Shard(
        0,
        [trigger],
        ["requests"],
        ShardSettings(max_scopes=50, evaluate_every=1, catching_up_after=MUTED_AFTER),
        ResumePoint(published=published, checkpoint=checkpoint, from_start=from_start),
    )


def live(target: Shard, log: Sequence[tuple[int, int]], begin: int = 0) -> list[EvaluatedSecond]:
    """Feed the records of a log from the one at `begin` on, each 2 s after the end of its second."""
    found: list[EvaluatedSecond] = []
    for at, counts in enumerate(log[begin:], T + begin):
        found += target.take(said(at + 1.0, *([second(at, *counts)] if counts[0] else [])), at + 3.0)
    return found


def test_a_hold_is_not_read_again_and_not_lost() -> None:
    log = [GOOD] * 20 + [BAD] * 60
    alone = shard()
    whole = live(alone, log[:45])
    kept = alone.checkpoint("")
    assert kept is not None
    assert (kept.time, kept.stale) == (T + 45, ())
    # The window is read again, but not the hold of 30 s: pending since 25, the trigger fires at 55 nevertheless.
    after = live(shard(kept, published=T + 45, from_start=False), log, begin=45 - 10 - 5)
    assert [s.time - T for s in after] == list(range(32, 81))
    assert [s.time - T for s in after if s.firing] == list(range(55, 81))
    assert [s.time - T for s in whole + after if s.firing] == [s.time - T for s in live(shard(), log) if s.firing]
    # The seconds up to the checkpoint fill the windows and are not evaluated.
    assert all(s.muted and s.health is None and not s.ill for s in after if s.time <= T + 45)


def test_the_end_of_a_service_is_known_although_no_window_shows_it_any_more() -> None:
    silent = replace(held("throughput < 1 over 10s for 150s"), min_samples=0)
    log = [GOOD] * 20 + [(0, 0)] * 200
    alone = shard(trigger=silent)
    live(alone, log[:130])
    kept = alone.checkpoint("")
    assert kept is not None
    target = shard(kept, published=T + 130, from_start=False, trigger=silent)
    live(target, log, begin=130 - 70)
    assert target.verdicts is not None
    assert [State(int(state)) for state in target.verdicts.state] == [State.FIRING]


def test_what_is_said_while_the_windows_fill_is_no_older_than_what_was_said_before() -> None:
    # The next process would use an older time as that of the newest record, and not use the checkpoint.
    alone = shard()
    live(alone, [GOOD] * 100)
    kept = alone.checkpoint("")
    target = shard(kept, published=T + 100, from_start=False)
    live(target, [GOOD] * 60, begin=40)
    assert target.time == T + 60
    assert target.unknown_health(instant(T + 300.0)).time == T + 100


def test_who_outweighed_the_others_of_a_long_window_does_so_after_a_restart() -> None:
    minutes = held("error_rate > 2% over 300s")
    ill = {name: {"requests": 10, "errors": 1} for name in ("a", "b")}

    def reason(target: Shard, begin: int) -> str:
        for at in range(begin, 250):
            heavy = {"big": {"requests": 1_000_000}} if at == 20 else {}
            own = {**ill, **heavy}
            counts = {column: sum(one.get(column, 0) for one in own.values()) for column in ("requests", "errors")}
            list(target.take(said(T + at + 1.0, cells(T + at, (SERVICE, Cell(counts, instances=own)))), T + at + 3.0))
            if at == 199:
                kept.append(target.checkpoint(""))
        (row,) = target.triggers()
        return row.reason

    kept: list[Checkpoint | None] = []
    expected = reason(shard(trigger=minutes), 0)
    assert "instance big has" in expected
    assert reason(shard(kept[0], published=T + 200, from_start=False, trigger=minutes), 0) == expected


def test_a_trigger_that_fired_on_what_was_too_old_is_still_known_to_have() -> None:
    log = [GOOD] * 20 + [BAD] * 40 + [GOOD] * 12
    minute = held("error_rate > 20% over 60s for 5s")
    alone = shard(trigger=minute)
    for at, counts in enumerate(log, T):
        list(alone.take(said(at + 1.0, second(at, *counts)), at + 60.0))
    kept = alone.checkpoint("")
    assert kept is not None
    assert kept.stale == (0,)
    # The newest seconds have been good for a while; the window of a minute still breaches.
    for known, fires in ((kept, False), (msgspec.structs.replace(kept, stale=()), True)):
        target = shard(known, published=T + 72, from_start=False, trigger=minute)
        after = live(target, [*log, *[GOOD] * 5], begin=5)
        assert [bool(s.ill) for s in after[-5:]] == [True] * 5
        assert any(s.firing for s in after) is fires


def test_a_checkpoint_of_before_what_is_left_of_the_log_is_not_taken_in() -> None:
    log = [GOOD] * 20 + [BAD] * 60
    alone = shard()
    live(alone, log[:45])
    kept = alone.checkpoint("")
    # The log is read from 50 on, so it is not known whether the condition was held between 45 and 50.
    after = live(shard(kept, published=T + 45, from_start=False), log, begin=50)
    assert [s.time - T for s in after if s.firing] == []
    assert [s.time - T for s in after if s.health] == list(range(52, 81))


def test_a_checkpoint_that_does_not_fit_is_told_of_and_all_begins_anew(caplog: pytest.LogCaptureFixture) -> None:
    alone = shard()
    live(alone, [GOOD] * 20)
    kept = alone.checkpoint("")
    assert kept is not None
    wrong = msgspec.structs.replace(kept, memory={**kept.memory, "triggers.since": np.zeros(7, dtype=np.int64)})
    after = live(shard(wrong, published=T + 20, from_start=False), [GOOD] * 20 + [BAD] * 60, begin=5)
    assert [record.message for record in caplog.records] == ["checkpoint.unfit"]
    assert [s.time - T for s in after if s.firing][:1] == [55]


def test_before_anything_was_judged_there_is_nothing_to_remember() -> None:
    assert shard().checkpoint("") is None


def test_a_checkpoint_is_of_the_triggers_it_was_made_of_in_their_order() -> None:
    def of(*specs: TriggerSpec, topics: Sequence[str] = ("requests",), every: int = 1) -> str:
        return identity(specs, topics=topics, evaluate_every=every)

    first, other = SPECS[:2]
    assert of(first, other) == of(first, other)
    changed = [of(other, first), of(first), of(first, replace(other, keep_for=5)), of(first, other, every=2)]
    changed.append(of(first, other, topics=("requests", "more")))
    assert of(first, other) not in changed
    assert of(first, other, topics=("a", "b")) == of(first, other, topics=("b", "a"))


ARRAYS = {
    "flags": np.array([True, False]),
    "states": np.array([1, 3], dtype=np.int8),
    "times": np.array(T),
    "evidence": np.array([[0.5, -np.inf], [np.nan, 1e300]]),
    "none": np.zeros((3, 0)),
}


def test_arrays_come_back_as_they_were() -> None:
    found = decode(encode(Checkpoint(of="x", time=T, stale=(3, 5), memory=ARRAYS)))
    assert (found.of, found.time, found.stale) == ("x", T, (3, 5))
    assert found.memory.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found.memory[name].dtype == array.dtype
        np.testing.assert_array_equal(found.memory[name], array)


WHOLE = encode(Checkpoint(of="x", time=T, stale=(), memory=ARRAYS))


@given(st.binary(max_size=60) | st.binary(max_size=60).map(zlib.compress) | st.integers(0, len(WHOLE) - 1))
def test_bytes_that_are_no_checkpoint_are_refused(raw: bytes | int) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        decode(WHOLE[:raw] if isinstance(raw, int) else raw)


@pytest.mark.parametrize(
    "packed",
    [["object", [1], b"12345678"], ["int64", [2], b"12345678"], ["int64", [-1], b"12345678"], ["int8", [], b""]],
)
def test_an_array_that_is_none_is_refused(packed: list[object]) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        decode(zlib.compress(msgspec.msgpack.encode(["x", T, [], {"a": packed}])))


def test_a_record_that_unpacks_to_more_than_anyone_writes_is_refused() -> None:
    with pytest.raises(CheckpointError, match="64 MiB"):
        decode(zlib.compress(bytes(65 << 20), 1))


def test_a_checkpoint_that_no_broker_takes_is_refused_with_what_to_do() -> None:
    memory = {"noise": np.random.default_rng(1).integers(-(1 << 63), (1 << 63) - 1, MOST_BYTES // 8 + 1)}
    with pytest.raises(CheckpointError, match="more partials partitions"):
        encode(Checkpoint(of="x", time=T, stale=(), memory=memory))
