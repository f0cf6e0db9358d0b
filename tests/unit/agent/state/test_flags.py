"""The versions of flags: every process gives a version the same beginning, and a late read makes no new version."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.backends.contract import FlagRef, FlagState
from agent.state.flags import FORGET_AFTER, FlagStatus, FlagWatch
from agent.state.state_tables import StateTables
from tests.support.fake_backend import FakeBackend
from tests.unit.agent.executor.test_executor import Desk

REF = FlagRef("new-checkout", "production")


def state(version: str, variant: str | None = "on") -> FlagState:
    return FlagState(variant=variant, percent=None, version=version, raw="{}")


def see(watch: FlagWatch, version: str, at: float, variant: str | None = "on") -> FlagStatus:
    return watch.observe(REF, state(version, variant), safe="off", at=at)


def test_the_first_version_seen_may_have_been_there_all_along() -> None:
    status = see(FlagWatch(), "abc", 10.0)
    assert (status.version, status.changed_at, status.at) == ("g1-abc", None, 10.0)


def test_a_version_that_stays_keeps_its_generation_and_its_beginning() -> None:
    watch = FlagWatch()
    see(watch, "abc", 10.0)
    see(watch, "def", 20.0)
    status = see(watch, "def", 30.0)
    assert (status.version, status.changed_at, status.at) == ("g2-def", 20.0, 30.0)


def test_a_definition_that_comes_back_is_a_new_version() -> None:
    watch = FlagWatch()
    versions = [see(watch, version, 0.0).version for version in ("abc", "def", "abc")]
    assert versions == ["g1-abc", "g2-def", "g3-abc"]


def test_flags_are_counted_apart() -> None:
    watch = FlagWatch()
    see(watch, "abc", 0.0)
    see(watch, "def", 0.0)
    other = watch.observe(FlagRef("new-checkout", "staging"), state("abc"), safe="off", at=0.0)
    assert other.version == "g1-abc"


def test_safe_is_only_what_every_subject_gets() -> None:
    watch = FlagWatch()
    assert see(watch, "a", 0.0, "off").safe
    assert not see(watch, "b", 0.0, "on").safe
    assert not see(watch, "c", 0.0, None).safe


@given(versions=st.lists(st.sampled_from("ab"), min_size=1), restart=st.integers(0, 20))
def test_a_watch_primed_with_what_was_published_goes_on_as_if_it_had_never_stopped(
    versions: list[str], restart: int
) -> None:
    whole, parts = FlagWatch(), FlagWatch()
    for at, version in enumerate(versions):
        expected, status = see(whole, version, at), see(parts, version, at)
        assert status == expected
        if at == restart:
            parts = FlagWatch()
            parts.prime(status)


def test_priming_never_goes_back_to_an_earlier_generation() -> None:
    watch = FlagWatch()
    earlier = see(watch, "abc", 0.0)
    later = see(watch, "def", 1.0)
    watch.prime(earlier)
    assert watch.current(REF) == later


@pytest.mark.parametrize("version", ["", "abc", "g-abc", "g0-abc", "g1", "gx-abc", "g" + "1" * 5000 + "-abc"])
def test_a_published_version_without_a_generation_is_refused(version: str) -> None:
    published = msgspec.json.encode({**msgspec.to_builtins(see(FlagWatch(), "abc", 0.0)), "version": version})
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(published, type=FlagStatus)


def test_the_percentage_is_told_as_it_was_read() -> None:
    tenth = FlagState(variant=None, percent=10.0, version="abc", raw="{}")
    assert FlagWatch().observe(REF, tenth, safe="off", at=1.0).percent == 10.0
    assert see(FlagWatch(), "abc", 1.0).percent is None


def test_executors_that_see_a_change_at_different_moments_agree_on_who_published_it_first() -> None:
    one, other = FlagWatch(), FlagWatch()
    for watch in (one, other):
        see(watch, "abc", 0.0)
    mine, theirs = see(one, "def", 20.2), see(other, "def", 21.1)
    for published in (mine, theirs):
        one.prime(published)
        other.prime(published)
    for at in (50.0, 80.0):
        found = [see(watch, "def", at) for watch in (one, other)]
        assert [status.changed_at for status in found] == [20.2, 20.2]
        for status in reversed(found):
            one.prime(status)
            other.prime(status)


@given(
    skews=st.lists(st.floats(-5, 5), min_size=2, max_size=4),
    order=st.randoms(use_true_random=False),
    versions=st.lists(st.sampled_from("ab"), min_size=1, max_size=6),
)
def test_a_version_has_one_beginning_however_many_executors_publish_it(
    skews: list[float], order: random.Random, versions: list[str]
) -> None:
    watches = [FlagWatch() for _ in skews]
    known, begun = StateTables(), dict[str, set[float | None]]()
    for at, version in enumerate(versions):
        for _ in range(2):
            read = [see(watch, version, 100.0 * at + skew) for watch, skew in zip(watches, skews, strict=True)]
            order.shuffle(read)
            for status in read:
                for watch in watches:
                    watch.prime(status)
                held = known.see(status)
                begun.setdefault(held.version, set()).add(held.changed_at)
    assert all(len(found) == 1 for found in begun.values()), begun


def test_a_read_that_was_under_way_during_another_executors_flip_is_no_new_version() -> None:
    standby = FlagWatch()
    before = see(standby, "on", 10.0)
    flipped = msgspec.structs.replace(before, version="g2-off", variant="off", safe=True, at=10.2, changed_at=10.2)
    standby.prime(flipped)
    assert standby.overtaken(REF, before, state("on"))
    assert not standby.overtaken(REF, before, state("off", "off"))
    assert not standby.overtaken(REF, flipped, state("on")), "a person turned it on after that was known"
    assert not FlagWatch().overtaken(REF, None, state("on"))


def published(version: str, at: float, changed_at: float | None = None) -> FlagStatus:
    return FlagStatus(
        flag="new-checkout",
        environment="production",
        version=version,
        variant="on",
        safe=False,
        at=at,
        changed_at=changed_at,
    )


def test_a_status_of_an_earlier_generation_that_comes_late_changes_nothing() -> None:
    known = StateTables()
    now = known.see(published("g2-off", 10.2, 10.2))
    assert known.see(published("g1-on", 9.9)) == now
    assert known.flags["production", "new-checkout"] == now


def test_generations_that_begin_anew_are_believed_when_nobody_repeats_the_later_one() -> None:
    known = StateTables()
    known.see(published("g9-off", 10.0, 10.0))
    known.see(published("g1-on", 10.0 + FORGET_AFTER - 1))
    assert known.flags["production", "new-checkout"].version == "g9-off"
    known.see(published("g1-on", 10.0 + FORGET_AFTER))
    assert known.flags["production", "new-checkout"].version == "g1-on"


class Overtaken(FakeBackend):
    """A backend whose first read is older than another executor's flip, which is published before it returns."""

    def __init__(self, flipped: FlagStatus) -> None:
        super().__init__()
        self.watch = FlagWatch()
        self._flipped = flipped

    async def read(self, ref: FlagRef, *, deadline: float) -> FlagState:
        state = await super().read(ref, deadline=deadline)
        if len(self.calls) == 2:
            self.edit("off")
            self.watch.prime(self._flipped)
        return state


async def test_a_standby_whose_read_is_overtaken_by_a_flip_reads_again(tmp_path: Path) -> None:
    flipped = msgspec.structs.replace(published("g2-v-off", 10.2, 10.2), variant="off", safe=True)
    backend = Overtaken(flipped)
    desk = Desk(tmp_path / "ledger", backend)
    backend.watch = desk.watch
    first = await desk.executor.read_flag("new-checkout", "production")
    assert first.version == "g1-v-on"
    looked = await desk.executor.read_flag("new-checkout", "production")
    assert (looked.version, looked.safe, looked.changed_at) == ("g2-v-off", True, 10.2)


def test_a_beginning_that_is_yet_to_come_counts_as_now_and_stays_that() -> None:
    now = [1000.0]
    known = StateTables(lambda: now[0])
    assert known.see(published("g1-on", 999.0, 1004.0)).changed_at == 1004.0
    assert known.see(published("g2-on", 999.0, 4600.0)).changed_at == 1000.0
    now[0] = 1030.0
    assert known.see(published("g2-on", 1029.0, 4600.0)).changed_at == 1000.0
