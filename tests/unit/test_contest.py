from __future__ import annotations

from agent.backends.contract import FlagRef
from agent.contest import LEAST, WITHIN_S, Contests
from agent.events import INABILITY
from agent.flag_state import FlagStatus


class Fight:
    """A flag that flipback makes safe, and that somebody puts back, every `pause` seconds."""

    def __init__(self) -> None:
        self.at = 1000.0
        self.number = 0
        self.written: list[float] = []
        self.contests = Contests(self._flips)
        self.told: list[tuple[str, str]] = []

    async def _flips(self, ref: FlagRef) -> list[float]:
        assert ref == FlagRef("new", "production")
        return self.written

    async def look(self, *, safe: bool, new: bool) -> None:
        self.number += new
        version = f"g{self.number}-v"
        seen = FlagStatus(flag="new", environment="production", version=version, variant=None, safe=safe, at=self.at)
        event = await self.contests.seen(seen)
        if event is not None:
            assert (event.type, event.subject) == (INABILITY, "production/new")
            self.told.append((event.data["state"], event.data["reason"]))

    async def rounds(self, count: int, pause: float) -> None:
        for _ in range(count):
            self.written.append(self.at)
            await self.look(safe=True, new=True)
            self.at += pause
            await self.look(safe=False, new=True)
            await self.look(safe=False, new=False)


async def test_a_flag_that_is_put_back_after_each_of_three_flips_is_a_fight_and_told_once() -> None:
    fight = Fight()
    await fight.look(safe=False, new=True)
    await fight.rounds(LEAST - 1, 60.0)
    assert fight.told == []
    await fight.rounds(5, 60.0)
    ((state, reason),) = fight.told
    assert state == "begun"
    assert "puts the flag back: 3 times in 10 min" in reason
    assert "last version is g7-v" in reason


async def test_flips_far_apart_are_no_fight() -> None:
    fight = Fight()
    await fight.rounds(6, WITHIN_S / 2)
    assert fight.told == []


async def test_a_fight_is_over_when_nobody_has_put_the_flag_back_for_a_while() -> None:
    fight = Fight()
    await fight.rounds(LEAST, 60.0)
    await fight.look(safe=True, new=True)
    fight.at += WITHIN_S - 1
    await fight.look(safe=True, new=False)
    assert [state for state, _ in fight.told] == ["begun"]
    fight.at += 1
    await fight.look(safe=True, new=False)
    assert [state for state, _ in fight.told] == ["begun", "ended"]
