"""Partials that are added together give the same seconds as if each is added alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.cell_operations import empty, join
from detectors.cells import Cells, Scope
from detectors.conditions.grammar import parse
from detectors.conditions.spec import TriggerSpec
from streams.clock import instant
from streams.monitor.evaluated_second import EvaluatedSecond
from streams.monitor.resume_point import ResumePoint
from streams.monitor.settings import ShardSettings
from streams.monitor.shard import Shard
from streams.partials.decode import decode_all
from streams.partials.packing import pack
from streams.partials.record import VERSION, Partial, encode
from tests.support.cells import Cell, cells

T = 1_700_000_000
LENGTH = 60
CONDITIONS = (
    "error_rate > 20% over 10s for 5s",
    "error_rate@on > 20% over 5s",
    "latency_p90@on > 100ms over 10s",
    "throughput < 1/s over 7s for 2s",
    "measure.score < 0.5 over 10s",
)


def specs() -> list[TriggerSpec]:
    return [
        TriggerSpec(
            name=f"t{number}",
            flag="new",
            environment="production",
            service="shop",
            condition=parse(text),
            safe_variant="off",
            min_samples=3,
            unknown_grace=3,
        )
        for number, text in enumerate(CONDITIONS)
    ]


def shard(*, room: int, published: int | None, from_start: bool) -> Shard:
    return Shard(
        0,
        specs(),
        ["requests"],
        ShardSettings(max_scopes=room, evaluate_every=1, catching_up_after=15.0),
        ResumePoint(published=published, from_start=from_start),
    )


def said(partition: int, watermark: float | None, block: Cells) -> bytes:
    return encode(
        Partial(
            version=VERSION,
            topic="requests",
            partition=partition,
            partitions=2,
            owner="a",
            sent_at=0.0,
            watermark=watermark,
            caught_up=True,
            overflow=0,
            scopes=[(*scope,) for scope in block.scopes],
            instances=list(block.instances),
            measures=list(block.measures),
            columns=pack(block),
        )
    )


def traffic(second: int, numbers: np.random.Generator) -> Cells:
    """A second of a service, a variant of its flag, and of services that come and go."""
    rows: list[tuple[Scope, Cell]] = []
    for scope in (
        Scope("production", "shop"),
        Scope("production", "shop", "new", "on"),
        *(Scope("production", f"s{n}") for n in numbers.integers(0, 6, 2).tolist()),
    ):
        requests = int(numbers.integers(0, 6))
        if not requests or scope in dict(rows):
            continue
        counts = {"requests": requests, "errors": int(numbers.integers(0, requests + 1)), "latency_count": requests}
        rows.append(
            (
                scope,
                Cell(
                    counts,
                    bins={int(numbers.integers(300, 500)): requests},
                    instances={f"i-{numbers.integers(0, 9)}": counts},
                    measures={"score": (requests, float(numbers.random()))},
                ),
            )
        )
    return cells(second, *rows)


@st.composite
def logs(draw: st.DrawFn) -> list[bytes]:
    """Records of two sources, each at its pace: with silence, repeats, late cells, and some without a watermark."""
    numbers = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    records: list[list[bytes]] = [[], []]
    for partition in (0, 1):
        at = 0
        while at < LENGTH:
            seconds = int(numbers.choice([1, 1, 1, 2, 12]))
            blocks = [traffic(T + at + k, numbers) for k in range(seconds) if numbers.random() > 0.1]
            if at and numbers.random() < 0.1:
                blocks.append(traffic(T + at - 1, numbers))
            at += seconds
            for n, block in enumerate(blocks):
                marked = n == len(blocks) - 1 or numbers.random() < 0.2
                # A watermark may pass a second before all of its cells are there.
                records[partition].append(said(partition, T + at + 0.5 if marked else None, block))
                if numbers.random() < 0.1:
                    records[partition].append(records[partition][-1])
            if not blocks:
                records[partition].append(said(partition, float(T + at), empty()))
    turns = numbers.permutation([0] * len(records[0]) + [1] * len(records[1]))
    sources: list[Iterator[bytes]] = [iter(each) for each in records]
    return [next(sources[turn]) for turn in turns.tolist()]


def account(seconds: Sequence[EvaluatedSecond], *, acted_upon: bool = True) -> list[Any]:
    """All that seconds contain, except for the order of scopes and the reason why nothing may be done.

    Without `acted_upon`, also except for what may be acted upon.
    """
    found = []
    for second in seconds:
        frame = second.health
        published = (
            None
            if frame is None
            else (
                frame.time,
                frame.status if acted_upon else "",
                sorted(
                    zip(frame.scopes, *frame.counts.values(), *frame.latency.values(), frame.sources, strict=True),
                    key=repr,
                ),
                frame.triggers,
            )
        )
        firing = [
            (e.spec.name, e.t, e.value, e.counts, sorted(e.instances), e.fresh, e.obstacle) for e in second.firing
        ]
        acts = (second.muted, firing) if acted_upon else ()
        found.append((second.time, acts, repr(second.transitions), repr(published)))
    return found


def windows(target: Shard) -> list[Any]:
    """The sums of all windows of every scope."""
    store = target.store
    scopes = store.active()
    return [
        (scope, seconds, store.window(seconds).sums[:, row].tolist() if row >= 0 else None, store.newest(scope))
        for scope in scopes
        for seconds in (60, 15, 10, 7, 5)
        for row in (store.row(scope, seconds),)
    ]


@settings(deadline=None, max_examples=40)
@given(
    log=logs(),
    cuts=st.lists(st.integers(0, 150), max_size=6),
    room=st.sampled_from([3, 5, 50]),
    published=st.sampled_from([None, T + 20]),
    from_start=st.booleans(),
    late=st.sampled_from([3.0, 12.0, 1000.0, None]),
)
def test_partials_taken_together_say_what_each_alone_would_have_said(
    log: list[bytes], cuts: list[int], room: int, published: int | None, from_start: bool, late: float | None
) -> None:
    now = None if late is None else T + LENGTH + late
    alone = shard(room=room, published=published, from_start=from_start)
    expected = [second for raw in log for second in alone.take(raw, now)]
    together = shard(room=room, published=published, from_start=from_start)
    ends = sorted({min(cut, len(log)) for cut in cuts} | {len(log)})
    found = []
    for start, end in zip([0, *ends], ends, strict=False):
        batch, errors = decode_all(log[start:end])
        assert not errors
        found += list(together.take_all(batch, None if now is None else partial(instant, now)))
    # Only the last of seconds that are complete together is acted upon, if it is recent.
    acted_upon = late not in (3.0, 12.0)
    assert account(found, acted_upon=acted_upon) == account(expected, acted_upon=acted_upon)
    assert windows(together) == windows(alone)
    assert together.time == alone.time
    assert together.store.refused_scopes == alone.store.refused_scopes


def test_of_partials_read_together_only_those_that_are_damaged_are_left_out() -> None:
    numbers = np.random.default_rng(1)
    good = [said(0, T + n + 1.0, traffic(T + n, numbers)) for n in range(4)]
    block = join([traffic(T, numbers), traffic(T + 1, numbers)])
    shifted = Cells(**{name: getattr(block, name) for name in Cells.__slots__} | {"scope": block.scope + 90})
    bad = [b"", good[0][:-3], said(0, T + 9.0, shifted)]
    batch, errors = decode_all([bad[0], good[0], bad[1], good[1], bad[2], good[2], good[3]])
    assert len(errors) == 3
    assert "points outside a table" in str(errors[2])
    assert [head.watermark for head in batch.heads] == [T + 1.0, T + 2.0, T + 3.0, T + 4.0]
    whole, none = decode_all(good)
    assert not none
    assert np.array_equal(batch.cells.counts, whole.cells.counts)
    assert batch.cells.scopes == whole.cells.scopes


@pytest.mark.parametrize("missing", [1, 7])
def test_columns_of_two_partials_that_fit_only_together_are_refused(missing: int) -> None:
    """One partial has too few values and the other as many too many: the total fits, and both are wrong."""
    numbers = np.random.default_rng(2)
    block = join([traffic(T + n, numbers) for n in range(9)])
    fields = {name: getattr(block, name) for name in Cells.__slots__}
    short = Cells(**fields | {"offset": block.offset[missing:]})
    long = Cells(**fields | {"offset": np.append(block.offset, block.offset[:missing])})
    batch, errors = decode_all([said(0, T + 9.0, short), said(0, T + 9.0, long)])
    assert (len(batch.heads), len(errors)) == (0, 2)
