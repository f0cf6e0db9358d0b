"""Requests without a flag are in no variant, and no `@variant` trigger sees how they end: that is published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.telemetry.unflagged import sentence
from agent.views.status import Status
from detectors.cells import Scope
from detectors.missing.unflagged import Counted, unflagged
from detectors.windows.unreadable import unreadable
from streams.monitor.flag_coverage import MOST_PUBLISHED
from streams.monitor.health import Health, WithoutFlag
from streams.monitor.shard import Shard
from tests.support.cells import Cell, cells
from tests.unit.agent.telemetry.test_look import FIELDS, looked
from tests.unit.streams.monitor.test_shard import ERRORS, ON, SERVICE, T, said, shard, spec

OFF = Scope("production", "shop", "new", "off")
OF = ("production", "shop", "new")
WORSE = spec("error_rate@on > control")

Requests = tuple[int, int]
"""Requests, and how many of them failed."""


def feed(
    target: Shard, on: Requests, off: Requests, none: Requests, *, seconds: int = 20, unread: int = 0, overflow: int = 0
) -> Health:
    """Feed seconds with the same requests: of each variant, and without the flag. Return the newest record."""
    whole = tuple(sum(column) for column in zip(on, off, none, strict=True))
    frames: list[Health] = []
    for at in range(T, T + seconds):
        measures = {unreadable("variant", "new"): (unread, 0)} if unread else {}
        scopes = [(scope, _cell(of)) for scope, of in ((ON, on), (OFF, off)) if of[0]]
        block = cells(at, (SERVICE, Cell(_counts(whole), measures=measures)), *scopes)
        target.merge.overflow += overflow
        frames += [s.health for s in target.take(said(at + 1.0, block), at + 3.0) if s.health is not None]
    return frames[-1]


def _cell(of: Sequence[int]) -> Cell:
    return Cell(_counts(of))


def _counts(of: Sequence[int]) -> dict[str, int]:
    return {name: count for name, count in zip(("requests", "errors"), of, strict=True) if count}


def published(*of: Requests) -> WithoutFlag | None:
    found = feed(shard(WORSE), *of).without_flag
    return found[0] if found else None


def test_the_share_of_requests_without_the_flag_is_told() -> None:
    found = published((40, 0), (42, 0), (18, 0))
    assert found == WithoutFlag("production", "shop", "new", 0.18, 0.0, 0.0, failing=False)
    assert sentence(found) == (
        "18 % of the requests of production/shop carry no flag 'new': they are in no variant, and no `@variant` "
        "trigger sees them"
    )


def test_that_those_without_the_flag_fail_and_the_others_do_not_is_told() -> None:
    found = published((40, 0), (42, 1), (18, 17))
    assert found is not None
    assert found.failing
    assert sentence(found) == (
        "18 % of the requests of production/shop carry no flag 'new': they are in no variant, 94.4 % of them fail, of "
        "the others 1.22 %; a request that fails must carry its flags, or no `@variant` trigger sees it"
    )


@pytest.mark.parametrize(
    ("on", "off", "none", "why"),
    [
        ((50, 5), (50, 0), (0, 0), "all carry it"),
        ((480, 0), (480, 0), (40, 0), "4 % are few, and as well as the others"),
        ((480, 40), (480, 40), (40, 4), "4 % that fail as the others do"),
        ((0, 0), (0, 0), (100, 50), "none carries it: that is no matter of single requests, and published elsewhere"),
        ((5, 0), (5, 0), (1, 0), "of 20 requests a share means little"),
    ],
)
def test_what_is_as_it_should_be_or_too_little_is_not_told(
    on: Requests, off: Requests, none: Requests, why: str
) -> None:
    assert published(on, off, none) is None, why


def test_few_that_hold_most_of_the_failures_are_told() -> None:
    found = published((495, 1), (495, 1), (10, 10))
    assert found is not None
    assert (found.share, found.failing) == (0.01, True)


def test_a_flag_of_which_no_trigger_judges_a_variant_is_not_told() -> None:
    assert feed(shard(ERRORS), (50, 0), (0, 0), (50, 25)).without_flag == []


def test_a_request_whose_variant_could_not_be_read_does_carry_the_flag() -> None:
    assert feed(shard(WORSE), (41, 0), (41, 0), (18, 18), unread=18).without_flag == []


def test_nothing_is_told_while_scopes_find_no_place() -> None:
    assert feed(shard(WORSE), (40, 0), (42, 0), (18, 0), overflow=1).without_flag == []


def test_it_ends_when_the_requests_carry_the_flag_again() -> None:
    target = shard(WORSE)
    assert feed(target, (40, 0), (42, 0), (18, 0)).without_flag
    for at in range(T + 20, T + 100):
        block = cells(at, (SERVICE, _cell((100, 0))), (ON, _cell((50, 0))), (OFF, _cell((50, 0))))
        *_, last = target.take(said(at + 1.0, block), at + 3.0)
    assert last.health is not None
    assert last.health.without_flag == []


@given(
    whole=st.tuples(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6)),
    carried=st.tuples(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6)),
)
def test_whatever_was_counted_shares_are_shares(whole: tuple[int, int, int], carried: tuple[int, int, int]) -> None:
    found = unflagged(OF, Counted(*whole), Counted(*carried))
    if found is not None:
        assert 0 < found.share <= 1
        assert all(rate is None or 0 <= rate <= 1 for rate in (found.failed, found.others_failed))
        assert sentence(found)


def test_a_status_tells_those_that_fail_first() -> None:
    frame = feed(shard(WORSE), (40, 0), (42, 0), (18, 0))
    failing = WithoutFlag("production", "cart", "new", 0.06, 1.0, 0.0, failing=True)
    status = Status(
        flags=[], incidents=[], shards={0: frame, 1: msgspec.structs.replace(frame, without_flag=[failing])}
    )
    assert [one.service for one in status.without_flag] == ["cart", "shop"]


def test_a_record_holds_few_of_them() -> None:
    specs = [replace(WORSE, flag=f"f{n}") for n in range(MOST_PUBLISHED + 2)]
    target = shard(*specs)
    for at in range(T, T + 20):
        scopes = [(Scope("production", "shop", one.flag, "on"), Cell({"requests": 50})) for one in specs]
        *_, last = target.take(said(at + 1.0, cells(at, (SERVICE, Cell({"requests": 100})), *scopes)), at + 3.0)
    assert last.health is not None
    assert len(last.health.without_flag) == MOST_PUBLISHED


def test_the_doctor_tells_it_of_the_newest_records_and_it_stops_nothing(tmp_path: Path) -> None:
    failed = {**FIELDS, "flags": {}, "status": 500}
    found = looked(tmp_path, *[FIELDS] * 160, *[failed] * 40, when="error_rate@on > 2% for 2m")
    (look,) = [one for one in found if "carry no flag" in one.detail]
    assert look.ok
    assert "20 % of the requests of production/shop carry no flag 'new-checkout'" in look.detail
    assert "100 % of them fail, of the others 0 %" in look.detail
    assert not any(
        "carry no flag" in one.detail for one in looked(tmp_path, *[failed] * 40, when="error_rate > 2% for 2m")
    )
