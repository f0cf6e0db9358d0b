from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.backends.contract import FlagRef, FlagState
from agent.flag_state import FlagStatus, FlagWatch

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
