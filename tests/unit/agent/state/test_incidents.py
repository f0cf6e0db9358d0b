"""The tables of incidents, results and flags: each record goes into its own table, and the tables are bounded."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.backends.contract import Outcome
from agent.commands.command import Reason
from agent.state.incidents import MAX_DETAIL, AfterFlip, CommandResult, Incident, encode
from agent.state.state_tables import StateTables

SENT = hashlib.sha256(b"command").hexdigest()


def result(**changes: Any) -> CommandResult:
    whole: dict[str, Any] = {"sent": SENT, "outcome": "rejected", "at": 10.0, "command": "c", "incident": "i"}
    return CommandResult(**{**whole, **changes})


def incident(**changes: Any) -> Incident:
    whole: dict[str, Any] = {
        "id": "i",
        "environment": "production",
        "flag": "new",
        "service": "shop",
        "trigger": "errors",
        "flag_version": "g1-a",
        "outcome": "commanded",
        "command": "c",
        "fired_at": 1.0,
        "commanded_at": 1.0,
        "expires_at": 61.0,
    }
    return Incident(**{**whole, **changes})


def test_each_kind_of_record_goes_into_its_own_table() -> None:
    known = StateTables()
    for record in (incident(sent=SENT), AfterFlip(incident="i", service="shop"), result(), result(command="")):
        known.incident(encode(record))
    assert list(known.incidents) == ["i"]
    assert list(known.after_flips) == [("i", "shop")]
    assert list(known.results) == ["c"]
    assert list(known.untrusted) == [SENT]
    assert known.unreadable == 0


@pytest.mark.parametrize("outcome", list(Outcome))
@pytest.mark.parametrize("reason", [None, *Reason])
def test_every_outcome_and_reason_of_an_executor_can_be_told(outcome: Outcome, reason: Reason | None) -> None:
    known = StateTables()
    told = result(outcome=outcome.value, reason=reason, detail="x" * MAX_DETAIL, retry_at=99.0)
    known.incident(encode(told))
    assert known.results["c"] == told


def test_a_later_result_of_a_command_replaces_the_earlier_one_and_not_the_other_way_round() -> None:
    known = StateTables()
    for at in (10.0, 12.0, 11.0):
        known.incident(encode(result(at=at)))
    assert known.results["c"].at == 12.0


def test_a_monitor_finds_the_refusal_of_its_command_although_the_executor_does_not_know_its_key() -> None:
    known = StateTables()
    known.incident(encode(result(command="", incident="", reason="unknown-key")))
    found = known.result_of(incident(sent=SENT))
    assert found is not None
    assert found.reason == "unknown-key"
    assert known.result_of(incident(sent="another")) is None
    assert known.result_of(incident()) is None


@given(st.lists(st.binary(max_size=3), max_size=600))
def test_bytes_of_anybody_take_a_bounded_place_in_memory_and_in_the_topic(garbage: list[bytes]) -> None:
    known, keys = StateTables(), set()
    for at, raw in enumerate(garbage):
        told = result(command="", incident="", sent=hashlib.sha256(raw).hexdigest(), at=float(at))
        keys.add(told.key)
        known.incident(encode(told))
    assert len(known.untrusted) <= 256
    assert len(keys) <= 256
    if garbage:
        assert hashlib.sha256(garbage[-1]).hexdigest() in known.untrusted


def test_a_record_of_an_earlier_version_is_still_an_incident() -> None:
    old = msgspec.to_builtins(incident())
    for name in ("metric", "scope", "op", "value", "threshold", "before", "sent"):
        del old[name]
    known = StateTables()
    known.incident(msgspec.json.encode(old))
    assert known.incidents["i"] == incident()


def test_the_incidents_of_a_flag_and_of_a_service_are_found_as_they_come_and_change() -> None:
    known = StateTables()
    for n in range(6):
        known.incident(encode(incident(id=f"i{n}", flag=f"f{n % 2}", service=f"s{n % 3}")))
        assert [one.id for one in known.of_flag("production", "f0")] == [f"i{k}" for k in range(0, n + 1, 2)]
    assert [one.id for one in known.of_service("production", "s1")] == ["i1", "i4"]
    known.incidents["i2"] = incident(id="i2", flag="f0", service="s2", outcome="shadow")
    assert [one.outcome for one in known.of_flag("production", "f0")] == ["commanded", "shadow", "commanded"]
    assert list(known.of_flag("staging", "f0")) == []
