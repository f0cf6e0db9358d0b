"""Stage 1: no watermark passes an unread sample, and no committed offset passes a second that is not acknowledged."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.cell_operations import by_second
from detectors.cells import ERRORS, LATE, LATENCY_COUNT, REQUESTS, Scope
from detectors.windows.overdue import measure_of
from streams.clock import Clock
from streams.decoders.decoder import Decoder
from streams.decoders.interner import Interner
from streams.decoders.watch_list import WatchList
from streams.ingest.ingest import HEARTBEAT, Ingest, PartialsOutput
from streams.kafka.reading import Answer, Delivery, Position
from streams.monitor.merge import Merge
from streams.partials.decode import decode
from streams.partials.partitions import partition_of
from streams.partials.record import Partial
from streams.settings import Format
from streams.slices import Slice, Source

T = 1_700_000_000
SOURCE, OTHER = Source("requests", 0), Source("requests", 1)
WATCH = WatchList.of([Scope("production", "cart", "new", "on")], limits=[("production", "cart", 45_000.0)])
LATENESS = 2.0


@dataclass
class Log:
    """A partition of telemetry with one sample a record, at `times`; the samples `fails` are failed requests."""

    form: ClassVar[Format] = "json"

    times: Sequence[float]
    fails: frozenset[int] = frozenset()
    services: tuple[str, ...] = ("cart", "shop", "pay")

    def value(self, offset: int) -> bytes:
        service = self.services[offset % len(self.services)]
        sample = {"ts": self.times[offset], "service": service, "status": 500 if offset in self.fails else 200}
        return json.dumps(sample).encode()

    def delivery(self, first: int, stop: int, epoch: int = 1) -> Delivery:
        offsets = list(range(first, stop))
        stamps = [int(self.times[offset] * 1000) for offset in offsets]
        return Delivery(Slice(SOURCE, [self.value(o) for o in offsets], offsets, stamps, {}), first, stop, epoch)

    def exact(self, before: int) -> dict[tuple[str, int], tuple[int, int]]:
        """Requests and errors by (service, second), for the seconds before `before`."""
        requests: Counter[tuple[str, int]] = Counter()
        errors: Counter[tuple[str, int]] = Counter()
        for offset, at in enumerate(self.times):
            if at < before:
                key = self.services[offset % len(self.services)], int(at)
                requests[key] += 1
                errors[key] += offset in self.fails
        return {key: (n, errors[key]) for key, n in requests.items()}


@dataclass
class CounterLog(Log):
    """The same requests as totals of three processes: each request brings the next snapshot of its service."""

    form: ClassVar[Format] = "counters"

    def value(self, offset: int) -> bytes:
        requests, errors = self._totals(offset)
        counters = {"requests": requests, "errors": errors}
        service = self.services[offset % len(self.services)]
        return json.dumps({"ts": self.times[offset], "service": service, "counters": counters}).encode()

    def _totals(self, offset: int) -> tuple[int, int]:
        own = range(offset % len(self.services), offset + 1, len(self.services))
        return len(own), sum(one in self.fails for one in own)

    def exact(self, before: int) -> dict[tuple[str, int], tuple[int, int]]:
        """The rises of the totals in the seconds before `before`; the first snapshot of each service is no rise."""
        found: dict[tuple[str, int], tuple[int, int]] = {}
        base: dict[str, tuple[float, int, int]] = {}
        for offset, at in enumerate(self.times):
            service = self.services[offset % len(self.services)]
            requests, errors = self._totals(offset)
            last = base.get(service)
            if last is not None and at <= last[0]:
                continue
            base[service] = at, requests, errors
            if last is not None and at < before:
                known = found.get((service, int(at)), (0, 0))
                found[service, int(at)] = known[0] + requests - last[1], known[1] + errors - last[2]
        return found


@dataclass
class Bench:
    """An `Ingest` of one source partition; the test controls the clock and the broker."""

    log: Log
    start: int = 0
    partitions: int = 2
    now: float = T
    wrong: float = 0.0
    max_scopes: int = 2000
    other: Position = field(default_factory=lambda: Position(epoch=1))
    sent: list[tuple[int, bytes]] = field(default_factory=list)
    hold: Callable[[int, Partial], asyncio.Future[None] | None] = lambda partition, partial: None

    def __post_init__(self) -> None:
        self.position = Position(start=self.start, delivered=self.start, read=self.start, epoch=1)
        self.interner = Interner(WATCH, self.max_scopes)
        self.decoder = Decoder({"requests": self.log.form}, self.interner)
        self.ingest = self.unassigned()
        self.ingest.assign({SOURCE: self.start})

    def unassigned(self) -> Ingest:
        return Ingest(
            PartialsOutput("a", self.partitions, self._send),
            positions={SOURCE: self.position, OTHER: self.other},
            partitions={"requests": 1},
            decoder=self.decoder,
            interner=self.interner,
            max_lateness=LATENESS,
            clock=Clock(lambda: self.now + self.wrong, lambda: self.now),
        )

    async def _send(self, partition: int, value: bytes) -> None:
        self.sent.append((partition, value))
        held = self.hold(partition, decode(value)[0])
        if held is not None:
            await held

    def read(self, stop: int) -> None:
        """Deliver up to `stop`, as the fetcher does: the position first, then the slice."""
        first = self.position.delivered
        self.position.delivered = self.position.read = stop
        self.ingest.take(self.log.delivery(first, stop, self.position.epoch))

    def answer(self, at: float, highwater: int) -> None:
        self.position.answer = Answer(at, highwater)

    def partials(self) -> list[Partial]:
        return [decode(value)[0] for _, value in self.sent]

    def watermarks(self) -> list[float | None]:
        return [partial.watermark for partial in self.partials()]


async def until_sent(bench: Bench, number: int, flush: asyncio.Task[None]) -> None:
    """Wait until a flush has sent `number` records, which wait for acknowledgement; fails if the flush ends before."""
    while len(bench.sent) < number:
        assert not flush.done()
        await asyncio.sleep(0)


def merged(sent: Sequence[tuple[int, bytes]], partitions: int) -> tuple[dict[tuple[str, int], tuple[int, int]], int]:
    """The counts of a reader of all partials partitions, and the second before which they are final."""
    merges = [Merge(["requests"]) for _ in range(partitions)]
    for partition, value in sent:
        merges[partition].add(*decode(value), 0.0)
    marks = [merge.watermark for merge in merges]
    final = int(min(mark for mark in marks if mark is not None)) if None not in marks else 0
    found: dict[tuple[str, int], tuple[int, int]] = {}
    for merge in merges:
        for second, cells in by_second(merge.take(final)):
            for scope, counts in zip(cells.scope.tolist(), cells.counts, strict=True):
                key = cells.scopes[scope].service, second
                assert key not in found
                found[key] = int(counts[REQUESTS]), int(counts[ERRORS])
    return found, final


async def test_while_records_wait_the_watermark_follows_the_newest_sample() -> None:
    bench = Bench(Log([T + 0.5, T + 4.5, T + 3.0, T + 9.0]), now=T + 100)
    bench.answer(T + 99, highwater=4)
    bench.read(3)
    await bench.ingest.flush()
    assert bench.watermarks() == [T + 2.5] * 2
    assert not any(partial.caught_up for partial in bench.partials())


async def test_caught_up_the_watermark_follows_the_time_of_the_fetch_answer_not_the_clock() -> None:
    bench = Bench(Log([T + 0.5]), now=T + 100)
    bench.read(1)
    bench.answer(T + 50, highwater=1)
    await bench.ingest.flush()
    assert bench.watermarks() == [T + 48] * 2
    assert all(partial.caught_up for partial in bench.partials())


async def test_where_each_answer_brings_records_the_watermark_follows_one_whose_records_are_all_reduced() -> None:
    # The samples' own times are earlier: their clock is 20 s behind.
    bench = Bench(Log([T + 0.1 * i for i in range(60)]), now=T + 20)
    for second in range(1, 6):
        bench.read(10 * second - 5)
        bench.answer(bench.now, highwater=10 * second)
        await bench.ingest.flush()
        if second > 1:
            assert bench.watermarks()[-1] == bench.now - 1 - LATENESS
        assert not bench.partials()[-1].caught_up
        bench.now += 1


async def test_an_answer_from_before_a_seek_says_nothing_of_what_is_read_after_it() -> None:
    bench = Bench(Log([T + 0.1 * i for i in range(60)]), now=T + 20)
    bench.answer(T + 20, highwater=30)
    await bench.ingest.flush()
    bench.position.epoch, bench.position.answer = 2, None
    bench.read(40)
    bench.answer(T + 25, highwater=60)
    bench.now += HEARTBEAT
    await bench.ingest.flush()
    newest = bench.watermarks()[-1]
    assert newest is not None
    assert newest < T + 4


async def test_a_partition_that_never_had_a_record_has_a_watermark_once_a_fetch_has_shown_it() -> None:
    bench = Bench(Log([]), now=T)
    await bench.ingest.flush()
    assert bench.watermarks() == [None, None]
    bench.answer(T, highwater=0)
    bench.now = T + HEARTBEAT
    await bench.ingest.flush()
    assert bench.watermarks()[2:] == [T - 2] * 2


async def test_records_that_were_fetched_but_not_reduced_are_waited_for() -> None:
    bench = Bench(Log([T + 0.5, T + 1.0]), now=T + 100)
    bench.read(1)
    bench.position.delivered = bench.position.read = 2
    bench.answer(T + 50, highwater=2)
    await bench.ingest.flush()
    assert bench.watermarks() == [T - 1.5] * 2


async def test_control_batches_at_the_end_do_not_keep_a_partition_from_being_caught_up() -> None:
    bench = Bench(Log([T + 0.5]), now=T + 100)
    bench.read(1)
    bench.position.read = 2
    bench.answer(T + 50, highwater=2)
    await bench.ingest.flush()
    assert bench.watermarks() == [T + 48] * 2


async def test_a_watermark_never_goes_back() -> None:
    bench = Bench(Log([T + 0.5, T + 1.0]), now=T + 60)
    bench.read(1)
    bench.answer(T + 50, highwater=1)
    await bench.ingest.flush()
    # The reader is behind again, and its newest sample is older than the watermark.
    bench.answer(T + 60, highwater=2)
    bench.now += HEARTBEAT
    await bench.ingest.flush()
    assert bench.watermarks() == [T + 48] * 4


async def test_a_sample_from_the_future_does_not_take_the_watermark_past_the_clock() -> None:
    bench = Bench(Log([T + 30.0, T + 31.0]), now=T + 1)
    bench.read(1)
    bench.answer(T + 1, highwater=2)
    await bench.ingest.flush()
    assert bench.watermarks() == [T - 1] * 2


async def test_an_owner_speaks_every_second_to_every_partials_partition_though_nothing_moves() -> None:
    bench = Bench(Log([T + 0.5, T + 1.0]), partitions=3)
    bench.read(1)
    bench.answer(T, highwater=2)
    for _ in range(11):
        await bench.ingest.flush()
        bench.now += HEARTBEAT / 4
    assert Counter(partition for partition, _ in bench.sent) == {0: 3, 1: 3, 2: 3}


async def test_nothing_may_be_committed_before_the_broker_has_the_cells_and_the_watermark() -> None:
    acknowledged: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    bench = Bench(Log([T + 0.5, T + 1.5, T + 9.0]), now=T + 60)
    bench.hold = lambda partition, partial: acknowledged if partition == 1 else None
    bench.read(3)
    bench.answer(T + 8, highwater=99)
    flush = asyncio.create_task(bench.ingest.flush())
    await until_sent(bench, 2, flush)
    assert bench.ingest.committable(SOURCE) is None
    acknowledged.set_result(None)
    await flush
    # Offset 2 is the first of a second that is still open.
    assert bench.ingest.committable(SOURCE) == 2


async def test_what_is_read_while_a_flush_is_under_way_is_not_committed_by_it() -> None:
    acknowledged: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    bench = Bench(Log([T + 0.5, T + 9.0, T + 9.5, T + 20.0]), now=T + 60)
    bench.hold = lambda partition, partial: acknowledged
    bench.read(2)
    bench.answer(T + 8, highwater=99)
    flush = asyncio.create_task(bench.ingest.flush())
    await until_sent(bench, 1, flush)
    bench.read(4)
    acknowledged.set_result(None)
    await flush
    assert bench.ingest.committable(SOURCE) == 1


async def test_a_watermark_goes_with_the_last_part_after_the_others_are_acknowledged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streams.partials.partitions.MAX_CELLS", 2)
    acknowledged: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    bench = Bench(Log([T + n for n in range(5)], services=("cart",)), now=T + 60, partitions=1)
    bench.hold = lambda partition, partial: acknowledged if partial.watermark is None else None
    bench.read(5)
    bench.answer(T + 50, highwater=5)
    flush = asyncio.create_task(bench.ingest.flush())
    await until_sent(bench, 1, flush)
    assert bench.watermarks() == [None]
    acknowledged.set_result(None)
    await flush
    assert bench.watermarks() == [None, None, T + 48]
    assert merged(bench.sent, 1)[0] == bench.log.exact(T + 48)


async def test_after_a_seek_records_of_before_it_are_left_alone_and_reading_begins_anew() -> None:
    log = Log([T + 0.1, T + 0.2, T + 0.3])
    bench = Bench(log, now=T + 60)
    old = log.delivery(1, 3, epoch=1)
    bench.read(1)
    bench.position.start = bench.position.delivered = bench.position.read = 0
    bench.position.epoch = 2
    bench.ingest.assign({SOURCE: 0})
    assert bench.ingest.take(old) == []
    bench.read(3)
    bench.answer(T + 50, highwater=3)
    await bench.ingest.flush()
    assert merged(bench.sent, 2)[0] == log.exact(T + 48)


async def test_a_slice_that_comes_twice_counts_once() -> None:
    log = Log([T + 0.1, T + 0.2, T + 0.3])
    bench = Bench(log, now=T + 60)
    bench.read(3)
    bench.ingest.take(log.delivery(0, 3))
    bench.answer(T + 50, highwater=3)
    await bench.ingest.flush()
    assert merged(bench.sent, 2)[0] == log.exact(T + 48)


async def test_what_was_given_up_is_neither_sent_nor_committed() -> None:
    bench = Bench(Log([T + 0.1]), now=T + 60)
    bench.read(1)
    bench.answer(T + 50, highwater=1)
    await bench.ingest.flush()
    assert bench.ingest.committable(SOURCE) == 1
    bench.ingest.revoke()
    sent = len(bench.sent)
    bench.ingest.take(bench.log.delivery(0, 1))
    bench.now += 5
    await bench.ingest.flush()
    assert len(bench.sent) == sent
    assert bench.ingest.committable(SOURCE) is None


async def test_the_cells_of_a_service_go_to_its_own_partials_partition() -> None:
    bench = Bench(Log([T + 0.1] * 6), now=T + 60, partitions=7)
    bench.read(6)
    bench.answer(T + 50, highwater=6)
    await bench.ingest.flush()
    for partition, value in bench.sent:
        for scope in decode(value)[1].scopes:
            assert partition == partition_of(scope.environment, scope.service, 7)


@dataclass
class Fleet(Log):
    """Ten instances of a service in turn. The clock of one is `ahead`, which its records' times show too."""

    ahead: float = 0.0

    def value(self, offset: int) -> bytes:
        ts = self.times[offset] + (self.ahead if offset % 10 == 0 else 0.0)
        return json.dumps({"ts": ts, "service": "cart", "status": 200, "instance": f"i-{offset % 10}"}).encode()


@pytest.mark.parametrize("ahead", [1.0, 3.0, 30.0, 55.0])
async def test_one_instance_that_is_ahead_makes_no_sample_of_the_others_late_while_the_reader_is_behind(
    ahead: float,
) -> None:
    bench = Bench(Fleet([T + n / 100 for n in range(3000)], ahead=ahead), partitions=1, now=T + 40)
    bench.answer(T + 40, highwater=1_000_000)
    for stop in range(200, 3001, 200):
        bench.now += 0.05
        bench.read(stop)
        await bench.ingest.flush()
    bench.now += 200
    bench.answer(bench.now, highwater=3000)
    await bench.ingest.flush()
    blocks = [decode(value)[1] for _, value in bench.sent]
    assert sum(int(cells.counts[:, LATE].sum()) for cells in blocks) == 0
    assert sum(int(cells.counts[:, REQUESTS].sum()) for cells in blocks) == 3000
    # The watermark moves also while the reader is behind, not only when it has caught up.
    marks = [mark for mark in bench.watermarks() if mark is not None]
    assert T + 25 < marks[-2] <= T + 28.1


class Stepped:
    """A minute of ten samples a second, read as they come, by an ingest whose wall clock is wrong by `wrong`."""

    def __init__(self, wrong: Callable[[int], float]) -> None:
        self.log = Log([T + tenth / 10 for tenth in range(600)], services=("cart",))
        self.bench = Bench(self.log, partitions=1)
        self.wrong = wrong
        self.rejected = 0

    async def run(self) -> None:
        bench = self.bench
        for second in range(60):
            bench.now = T + second + 1
            bench.wrong = self.wrong(second)
            first, stop = bench.position.delivered, 10 * (second + 1)
            bench.position.delivered = bench.position.read = stop
            self.rejected += len(bench.ingest.take(self.log.delivery(first, stop, bench.position.epoch)))
            bench.answer(bench.now, highwater=stop)
            await bench.ingest.flush()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda second: 600.0 if 20 <= second < 22 else 0.0,
        lambda second: -600.0 if 20 <= second < 22 else 0.0,
        lambda second: 600.0 if second >= 20 else 0.0,
        lambda second: -600.0 if second >= 20 else 0.0,
        lambda second: 5.0 if 20 <= second < 50 else 0.0,
        lambda second: 86_400.0 * (second % 3) if second >= 20 else 0.0,
    ],
    ids=["ahead for 2 s", "back for 2 s", "ahead to stay", "back to stay", "5 s ahead for 30 s", "by days, to and fro"],
)
async def test_a_wall_clock_that_is_set_loses_no_sample_and_closes_no_second_of_the_future(
    wrong: Callable[[int], float],
) -> None:
    stepped = Stepped(wrong)
    await stepped.run()
    found, final = merged(stepped.bench.sent, 1)
    assert final >= T + 57
    assert final <= T + 58
    assert found == stepped.log.exact(final)
    assert stepped.rejected == 0


async def test_a_clock_that_was_wrong_at_the_start_is_followed_when_it_is_put_right() -> None:
    stepped = Stepped(lambda second: -600.0 if second < 20 else 0.0)
    stepped.bench.wrong = -600.0
    stepped.bench.__post_init__()
    await stepped.run()
    assert merged(stepped.bench.sent, 1)[1] >= T + 57


@dataclass
class Hanging(Log):
    """One request of cart that starts at `times[0]` and ends at `times[1]`."""

    def value(self, offset: int) -> bytes:
        sample: dict[str, object] = {"ts": self.times[offset], "service": "cart", "id": "r-1"}
        end = {"latency_ms": 1000 * (self.times[-1] - self.times[0])}
        return json.dumps(sample | (end if offset else {"kind": "started"})).encode()


def timed(sent: Sequence[tuple[int, bytes]]) -> dict[int, tuple[int, int]]:
    """By second after T, the ended requests with a latency, and the sum of those that crossed the limit."""
    found = {}
    for _, value in sent:
        _, cells = decode(value)
        for i, second in enumerate(cells.second.tolist()):
            measures = zip(cells.measure_cell, cells.measure_id, cells.measure_sum, strict=True)
            overdue = sum(int(n) for at, of, n in measures if at == i and cells.measures[of] == measure_of(45_000.0))
            found[second - T] = int(cells.counts[i, LATENCY_COUNT]), overdue
    return found


async def test_a_request_hangs_against_the_limit_also_when_nobody_writes_any_more() -> None:
    bench = Bench(Hanging([T + 0.5]), now=T + 1, partitions=1)
    bench.read(1)
    for now in range(1, 60):
        bench.now = T + now
        bench.answer(T + now, highwater=1)
        await bench.ingest.flush()
        # Second 45 is closed when the watermark, 2 s behind, has passed its end.
        assert timed(bench.sent) == ({45: (0, 1)} if now >= 48 else {})
    assert bench.ingest.committable(SOURCE) == 1


async def test_after_a_restart_a_request_that_began_before_counts_at_its_end_as_usual() -> None:
    log = Hanging([T + 0.5, T + 60.5])
    before = Bench(log, now=T + 30, partitions=1)
    before.read(1)
    before.answer(T + 30, highwater=1)
    await before.ingest.flush()
    after = Bench(log, start=before.ingest.committable(SOURCE) or 0, now=T + 70, partitions=1)
    assert after.start == 1
    after.read(2)
    after.answer(T + 70, highwater=2)
    await after.ingest.flush()
    assert timed(before.sent) | timed(after.sent) == {60: (1, 0)}


# The steps of a session; the offset or the time of a step is drawn when it is taken.
steps = st.lists(
    st.sampled_from(["read", "read", "answer", "flush", "flush", "crash", "zombie"]), min_size=5, max_size=40
)


@pytest.mark.parametrize("kind", [Log, CounterLog])
@settings(deadline=None)  # a session of forty flushes takes as long as the machine is busy
@given(
    gaps=st.lists(st.sampled_from([0.0, 0.1, 0.4, 1.1]), min_size=5, max_size=60),
    jitter=st.lists(st.floats(0, 0.9), min_size=60, max_size=60),
    steps=steps,
    data=st.data(),
)
def test_crashes_and_zombies_at_any_step_change_no_count(
    kind: type[Log], gaps: list[float], jitter: list[float], steps: list[str], data: st.DataObject
) -> None:
    times, at = [], float(T)
    for gap, back in zip(gaps, jitter, strict=False):
        at += gap
        # Samples are out of order by less than the lateness that is allowed, so none is late.
        times.append(at - back)
    log = kind(times, fails=frozenset(range(0, len(times), 4)))
    asyncio.run(_session(log, steps, data))


async def _session(log: Log, steps: list[str], data: st.DataObject) -> None:
    size, committed, sent = len(log.times), 0, []
    now = max(log.times) + 1
    worker, zombie = Bench(log, now=now), None

    async def flush(bench: Bench) -> None:
        bench.now += HEARTBEAT
        await bench.ingest.flush()
        sent.extend(bench.sent)
        bench.sent.clear()

    for step in steps:
        if step == "read":
            first = worker.position.delivered
            worker.read(data.draw(st.integers(first, size)))
        elif step == "answer":
            # The fetch is answered when only these records are written, so no older sample is unread.
            unread = worker.position.read
            if unread < size:
                worker.answer(min(log.times[unread:]), unread)
        elif step == "flush":
            await flush(worker)
            committed = max(committed, worker.ingest.committable(SOURCE) or 0)
        elif step == "crash":
            # Some records under way reach the broker, possibly cells without their watermark.
            worker.now += HEARTBEAT
            await worker.ingest.flush()
            sent += worker.sent[: data.draw(st.integers(0, len(worker.sent)))]
            worker = Bench(log, start=committed, now=worker.now)
        else:
            # The old owner does not know yet that it has lost the partition, and continues alongside the new one.
            zombie, worker = worker, Bench(log, start=committed, now=worker.now)
        if zombie is not None:
            zombie.read(data.draw(st.integers(zombie.position.delivered, size)))
            await flush(zombie)
    worker.read(size)
    worker.answer(now + 60, size)
    await flush(worker)
    found, final = merged(sent, worker.partitions)
    assert found == log.exact(final)
    assert final == int(now + 60 - LATENESS)


class Partly(Log):
    """The time of every other sample cannot be read; its service can."""

    def value(self, offset: int) -> bytes:
        return b'{"ts": "yesterday", "service": "cart"}' if offset % 2 else super().value(offset)


async def test_a_rejected_sample_counts_once_among_what_came_also_where_its_service_is_known() -> None:
    bench = Bench(Partly([T, T, T, T, T, T]))
    bench.read(6)
    found = bench.ingest.counts.recent()["requests"]
    assert (found.received, found.rejected) == (6, 3)
    assert "yesterday" in found.example
