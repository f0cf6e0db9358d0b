"""Commands of slices: signed ones come first, each is started once, and is committed only when it is done."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.executor.orders import AT_ONCE, Orders
from streams.kafka.reading import Delivery, Position
from streams.slices import Slice, Source

SOURCE = Source("commands", 0)


class Desk:
    """Orders of one partition. A record that begins with b"s" is signed; a command ends when its event is set."""

    def __init__(self, start: int = 0) -> None:
        self.log: list[str] = []
        self.refused: list[bytes] = []
        self.open: dict[bytes, asyncio.Event] = {}
        self.end = start
        self.positions = {SOURCE: Position(start=start, epoch=1)}
        self.orders = Orders(
            signed=lambda raw: raw.startswith(b"s"),
            execute=self._execute,
            refuse=self._refuse,
            positions=self.positions,
        )
        self.orders.assign({SOURCE: start})

    async def _execute(self, raw: bytes) -> None:
        self.log.append(raw.decode())
        self.open[raw] = asyncio.Event()
        await self.open[raw].wait()
        if raw.endswith(b"!"):
            raise ValueError("broken")

    def _refuse(self, raws: Sequence[bytes]) -> None:
        self.refused += raws

    async def take(self, values: Sequence[bytes | None], epoch: int = 1) -> None:
        offsets = list(range(self.end, self.end + len(values)))
        self.end += len(values)
        slice_ = Slice(SOURCE, list(values), offsets, [0] * len(values), {})
        await self.orders.take(Delivery(slice_, offsets[0], self.end, epoch))

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    @property
    def committable(self) -> int | None:
        return self.orders.committable(SOURCE)


async def test_garbage_before_a_command_costs_it_a_check_and_all_of_it_is_refused() -> None:
    desk = Desk()
    garbage = [b"x%d" % n for n in range(1999)]
    await desk.take([*garbage, b"s1", None])
    assert desk.refused == [*garbage, b""]
    await desk.settle()
    assert desk.log == ["s1"]


async def test_a_command_that_is_not_done_is_read_again_by_the_next_reader() -> None:
    desk = Desk(100)
    assert desk.committable == 100
    await desk.take([b"x", b"s1", b"x", b"s2"])
    await desk.settle()
    assert desk.committable == 101
    desk.open[b"s2"].set()
    await desk.settle()
    assert desk.committable == 101
    desk.open[b"s1"].set()
    await desk.settle()
    assert desk.committable == 104
    await desk.take([b"x"] * 10)
    assert desk.committable == 114


async def test_commands_are_begun_in_the_order_of_the_log_and_some_at_a_time() -> None:
    desk = Desk()
    names = [b"s%02d" % n for n in range(AT_ONCE + 3)]
    taking = asyncio.create_task(desk.take(names))
    await desk.settle()
    assert desk.log == [name.decode() for name in names[:AT_ONCE]]
    for name in names:
        while name not in desk.open:
            await asyncio.sleep(0)
        desk.open[name].set()
    await taking
    await desk.settle()
    assert desk.log == [name.decode() for name in names]
    assert desk.committable == len(names)


async def test_what_was_fetched_before_a_seek_is_left_to_who_reads_it_then() -> None:
    desk = Desk()
    desk.positions[SOURCE].epoch = 2
    desk.orders.assign({SOURCE: 7})
    await desk.take([b"s1"], epoch=1)
    await desk.settle()
    assert (desk.log, desk.committable) == ([], 7)
    desk.orders.revoke()
    await desk.take([b"s2"], epoch=2)
    assert (desk.log, desk.committable) == ([], None)


async def test_a_command_that_fails_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    await desk.take([b"s1!", b"s2"])
    await desk.settle()
    for event in desk.open.values():
        event.set()
    await desk.settle()
    assert desk.committable == 2
    assert "command.failed" in caplog.text


@given(st.lists(st.lists(st.sampled_from([b"x", b"s"]), min_size=1, max_size=4), max_size=6), st.randoms())
def test_the_offset_that_is_committed_never_passes_a_command_that_is_not_done(
    slices: list[list[bytes]], random: object
) -> None:
    async def live() -> None:
        desk, number, waiting = Desk(), 0, {}
        for kinds in slices:
            values = []
            for kind in kinds:
                values.append(kind + b"%d" % number)
                if kind == b"s":
                    waiting[values[-1]] = number
                number += 1
            taking = asyncio.create_task(desk.take(values))
            await desk.settle()
            while not taking.done() or random.random() < 0.5:  # type: ignore[attr-defined]
                begun = [raw for raw in waiting if raw in desk.open]
                if not begun:
                    break
                raw = random.choice(begun)  # type: ignore[attr-defined]
                desk.open[raw].set()
                await desk.settle()
                del waiting[raw]
                assert desk.committable == min(waiting.values(), default=number)
            await taking
            assert desk.committable == min(waiting.values(), default=number)
        desk.orders.close()

    asyncio.run(live())
