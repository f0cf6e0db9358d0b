"""`flipback status` shows incidents, people's orders, verdicts and overdue heartbeats."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from agent.armed.verdict import Arming
from agent.heartbeats.heartbeat import AWAY_AFTER, QUIET_AFTER, Member
from agent.state.incidents import AfterFlip, Bake, CommandResult, Effect, ResultOutcome
from agent.views.status import Status, frames
from agent.views.status_lines import after_flip, incident_lines, outcome, verdicts
from streams.monitor.health import Health, encoder, health
from tests.unit.agent.after_flip.test_watch import INCIDENT
from tests.unit.agent.armed.test_verdict import beat
from tests.unit.agent.cli.test_keys_and_restore import CONFIG, run
from tests.unit.agent.state.test_by_hand import ROLLBACK


def said(service: str = "shop", effect: Effect | None = None, bake: Bake | None = None) -> AfterFlip:
    return AfterFlip(incident=INCIDENT.id, service=service, effect=effect, bake=bake)


@pytest.mark.parametrize(
    ("after_flips", "words"),
    [
        ([], []),
        ([said(effect="effective")], ["effective"]),
        ([said(effect="effective", bake="recovered")], ["effective", "recovered"]),
        ([said(effect="ineffective", bake="worse")], ["ineffective", "not recovered: worse"]),
        ([said(effect="unknown", bake="unknown")], ["effect unknown", "recovery unknown"]),
        (
            [said("cart", "ineffective"), said(effect="effective", bake="no-better")],
            ["effective", "not recovered: no-better", "ineffective in cart"],
        ),
        ([AfterFlip(incident="another", service="shop", effect="effective")], []),
    ],
)
def test_an_incident_shows_its_effect_and_its_bake_its_own_service_first(
    after_flips: list[AfterFlip], words: list[str]
) -> None:
    status = Status(flags=[], incidents=[INCIDENT], after_flips=after_flips)
    assert list(after_flip(INCIDENT, status.after(INCIDENT))) == words


def result(outcome: ResultOutcome, reason: str | None = None, detail: str = "") -> CommandResult:
    return CommandResult(sent="s", command=INCIDENT.command, outcome=outcome, reason=reason, detail=detail, at=1.0)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, "commanded"),
        (result("applied"), "turned back"),
        (result("already"), "was safe already"),
        (
            result("rejected", "unknown-key", "signed with key k2, accepted are k1"),
            "NOT TURNED BACK, rejected unknown-key: signed with key k2, accepted are k1",
        ),
    ],
)
def test_an_incident_shows_what_became_of_its_command(found: CommandResult | None, words: str) -> None:
    assert outcome(INCIDENT, found) == words


def test_what_nobody_commanded_has_no_result() -> None:
    assert outcome(msgspec.structs.replace(INCIDENT, outcome="shadow"), result("applied")) == "shadow"


def test_orders_of_people_stand_among_the_incidents_with_what_was_put_back() -> None:
    restore = msgspec.structs.replace(ROLLBACK, what="restore", by="bob", reason="fixed", at=9.0)
    of_trigger = msgspec.structs.replace(restore, incident=INCIDENT.id, flag=INCIDENT.flag)
    status = Status(flags=[], incidents=[INCIDENT], orders=[of_trigger, restore, ROLLBACK])
    trigger, hand = (line for _, line in incident_lines(status))
    assert trigger.endswith(f"commanded  put back by bob: 'fixed'  {INCIDENT.id}")
    assert hand == "production/bad/by-hand  rolled back, by ann: 'kafka gone'  put back by bob: 'fixed'  i1"


def test_the_time_of_an_incident_is_that_of_its_first_command() -> None:
    again = msgspec.structs.replace(INCIDENT, begun_at=100.0, commanded_at=160.0)
    assert [at for at, _ in incident_lines(Status(flags=[], incidents=[again]))] == [100.0]
    old = msgspec.structs.replace(INCIDENT, begun_at=None, commanded_at=160.0)
    assert [at for at, _ in incident_lines(Status(flags=[], incidents=[old]))] == [160.0]


def shard(partition: int, *, time: int = 1_700_000_000, lag: float = 2.5, detail: str = "") -> Health:
    status = "catching_up" if detail else "live"
    return health(time, partition, None, [], at=time + lag, status=status, detail=detail)


def of_shards(*shards: Health, partitions: int | None = None, at: float = 1_700_000_003.0) -> Status:
    by_partition = {one.partition: one for one in shards}
    return Status(flags=[], incidents=[], shards=by_partition, partitions=partitions or len(shards), at=at)


def test_live_verdicts_are_shown_with_the_time_of_the_oldest_evidence() -> None:
    status = of_shards(shard(0), shard(1, time=1_699_999_999, lag=3.0))
    assert verdicts(status) == "live, evidence up to 22:13:19Z, 4 s ago"
    assert status.evidence_until == 1_699_999_999


@pytest.mark.parametrize("status", [of_shards(partitions=2), of_shards(shard(0), partitions=2), of_shards()])
def test_where_a_partition_has_no_verdicts_no_time_is_claimed_for_the_evidence(status: Status) -> None:
    assert status.evidence_until is None
    assert "evidence" not in verdicts(status)


def test_partitions_with_the_same_trouble_share_a_line_also_where_its_seconds_differ() -> None:
    waits = [shard(p, detail=f"the evidence is {20 + p} s old: waiting for requests/0") for p in range(5)]
    stale = shard(5, time=1_699_999_900)
    assert of_shards(*waits, stale, partitions=8).problems == [
        "partials/0, partials/1, partials/2 and 2 more: the evidence is 20 s old: waiting for requests/0",
        "partials/5: the last verdict is 100 s old",
        "partials/6, partials/7: no monitor has published verdicts for 10 s",
    ]


@pytest.mark.parametrize(("age", "shown"), [(QUIET_AFTER - 0.1, False), (17.4, True), (AWAY_AFTER - 0.1, True)])
def test_a_heartbeat_that_is_overdue_is_shown_with_its_age_while_its_process_still_counts_as_alive(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    age: float,
    shown: bool,
) -> None:
    async def read_status(_: object) -> Status:
        return of_shards(shard(0))

    async def look(*_: object) -> tuple[Arming, list[Member]]:
        return Arming(()), [Member(beat("one"), age)]

    monkeypatch.setattr("agent.deployment.status_report.read_status", read_status)
    monkeypatch.setattr("agent.deployment.status_report.look", look)
    (tmp_path / "flipback.yaml").write_text(CONFIG)
    assert run("status", "-c", str(tmp_path / "flipback.yaml")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ARMED"
    assert ("last heard" in lines[1], any("alive, last heard" in line for line in lines)) == (shown, shown)
    assert run("status", "-c", str(tmp_path / "flipback.yaml"), "--json") == 0
    (process,) = json.loads(capsys.readouterr().out)["processes"]
    assert (process["alive"], process["heard_s_ago"]) == (True, round(age, 1))


def test_a_health_record_that_cannot_be_read_is_left_out() -> None:
    one = shard(0)
    assert list(frames([None, b"garbage", b"\xff", encoder.encode(one), b"{}"])) == [one]
