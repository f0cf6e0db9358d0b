"""`flipback doctor` says what would stop a flip, and writes nothing."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.armed.verdict import Arming, of_telemetry
from agent.armed.view import wanted
from agent.backends.contract import FlagRef
from agent.config.load import load
from agent.config.model import Config
from agent.executor.build import open_ledger
from agent.heartbeats.heartbeat import QUIET_AFTER, Member, Obstacle, TelemetryCount
from agent.preflight import doctor
from agent.preflight.finding import Finding
from agent.telemetry.look import TopicLook
from tests.unit.agent.armed.test_verdict import beat
from tests.unit.agent.cli.test_keys_and_restore import CONFIG, FLAGS, run


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "flipback.yaml").write_text(CONFIG)
    (tmp_path / "flags.json").write_text(FLAGS)
    return tmp_path


def examine(home: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, list[dict[str, Any]]]:
    capsys.readouterr()
    status = run("doctor", "-c", str(home / "flipback.yaml"), "--json", *options)
    return status, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_flag_that_could_be_flipped_is_well_and_stays_as_it_is(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, found = examine(home, capsys, "--no-kafka")
    assert status == 0
    assert [finding["what"] for finding in found] == [
        "keys",
        "state_dir",
        "files: production/new-checkout",
        "files: dry run",
    ]
    assert "gives 'on', safe is 'off'" in found[2]["detail"]
    assert (home / "flags.json").read_text() == FLAGS
    assert sorted(path.name for path in home.iterdir()) == ["flags.json", "flipback.yaml"]


def test_a_safe_variant_that_the_flag_lacks_is_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "flipback.yaml").write_text(CONFIG.replace('safe: "off"', "safe: gone"))
    status, found = examine(home, capsys, "--no-kafka")
    assert status == 4
    assert [finding["ok"] for finding in found] == [True, True, True, False]
    assert "'gone' is not one of the flag's variants" in found[-1]["detail"]


def test_what_keeps_applications_from_seeing_a_flip_is_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = json.loads(FLAGS)
    flags["flags"]["somebody-elses"] = {"state": "enabled", "variants": {"on": True}, "defaultVariant": "on"}
    (home / "flags.json").write_text(json.dumps(flags))
    status, found = examine(home, capsys, "--no-kafka")
    assert status == 4
    assert "'somebody-elses'" in found[-1]["detail"]
    assert "no flip in it is seen" in found[-1]["detail"]


def test_a_doubt_is_named_and_is_no_failure(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "flags.json").with_name("second-name.json").hardlink_to(home / "flags.json")
    status, found = examine(home, capsys, "--no-kafka")
    assert status == 0
    (doubt,) = (finding for finding in found if finding["what"] == "files: to be looked at")
    assert "hard link" in doubt["detail"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            ("error_rate > 2%", "error_rate@onn > 2%"),
            "judges variant 'onn', which the flag does not have: it has 'off', 'on'",
        ),
        (('safe: "off"', 'safe: "off"\n    control: of'), "control is 'of', which the flag does not have"),
    ],
)
def test_a_variant_that_the_flag_lacks_is_named_with_those_it_has(
    home: Path, change: tuple[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "flipback.yaml").write_text(CONFIG.replace(*change))
    status, found = examine(home, capsys, "--no-kafka")
    assert status == 4
    (bad,) = [finding for finding in found if not finding["ok"]]
    assert bad["what"] == "files: production/new-checkout"
    assert said in bad["detail"]


def test_a_flag_system_that_cannot_be_read_is_named_and_the_others_are_looked_at(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = CONFIG.replace("backends:", "backends:\n  gone: {kind: flagd-file, path: gone.json}").replace(
        "flags:\n", "flags:\n  - {flag: other, service: shop, backend: gone, safe: 'off', triggers: "
        "[{name: e, when: error_rate > 2%}]}\n", 1,
    )  # fmt: skip
    (home / "flipback.yaml").write_text(missing)
    status, found = examine(home, capsys, "--no-kafka")
    assert status == 4
    bad = [finding["what"] for finding in found if not finding["ok"]]
    assert bad == ["gone: production/other"]
    assert any(finding["ok"] for finding in found if finding["what"].startswith("files"))


def test_a_key_that_others_can_read_is_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("keys", "generate", "--dir", str(home / ".flipback")) == 0
    assert examine(home, capsys, "--no-kafka")[0] == 0
    (home / ".flipback" / "flipback.key").chmod(0o644)
    status, found = examine(home, capsys, "--no-kafka")
    assert status == 4
    assert "chmod 600" in next(finding["detail"] for finding in found if not finding["ok"])


def test_brokers_that_do_not_answer_are_told_apart_from_flags(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Nothing listens on port 1.
    (home / "flipback.yaml").write_text(CONFIG.replace("127.0.0.1:9092", "127.0.0.1:1"))
    status, found = examine(home, capsys)
    assert status == 1
    assert [finding["what"] for finding in found if not finding["ok"]] == ["kafka"]


def test_for_people_it_ends_with_a_verdict(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("doctor", "-c", str(home / "flipback.yaml"), "--no-kafka") == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "a flip would work from here; whether it is ARMED only the brokers can tell"


@pytest.mark.parametrize("top", ["mode: shadow", "whole: no"])
def test_in_shadow_mode_it_does_not_say_that_a_flip_would_happen(
    home: Path, capsys: pytest.CaptureFixture[str], top: str
) -> None:
    of_trigger = CONFIG.replace("when: ", "mode: shadow, when: ")
    (home / "flipback.yaml").write_text(f"{CONFIG}{top}\n" if top == "mode: shadow" else of_trigger)
    assert run("doctor", "-c", str(home / "flipback.yaml"), "--no-kafka") == 1
    *lines, last = capsys.readouterr().out.splitlines()
    assert last == f"NOT ARMED: shadow: see BAD above, 1 of {len(lines)}"
    assert "nothing is commanded" in lines[-1]


def test_a_halt_is_named_because_no_flip_would_be_made_by_itself(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    open_ledger(load(home / "flipback.yaml"))
    assert run("halt", "-c", str(home / "flipback.yaml"), "--reason", "database is down") == 0
    status, found = examine(home, capsys, "--no-kafka")
    assert status == 4
    (bad,) = [finding for finding in found if not finding["ok"]]
    assert bad["what"] == "automation"
    assert "database is down" in bad["detail"]


@pytest.mark.parametrize("place", [".flipback", ".flipback/ledger"])
def test_a_ledger_that_cannot_be_kept_is_named(home: Path, place: str, capsys: pytest.CaptureFixture[str]) -> None:
    (home / place).parent.mkdir(exist_ok=True)
    (home / place).write_text("no directory")
    status, found = examine(home, capsys, "--no-kafka")
    assert status == 4
    (bad,) = [finding for finding in found if not finding["ok"]]
    assert bad["what"] == "state_dir"
    assert f"{home / place} is no directory" in bad["detail"]


@pytest.mark.parametrize("made", [False, True])
def test_a_missing_right_on_the_ledger_is_found_without_a_write(
    home: Path, made: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if made:
        open_ledger(load(home / "flipback.yaml"))
    before = sorted(home.rglob("*"))
    # Tests may run as root, to which no permission is denied.
    where, access = home / ".flipback/ledger" if made else home, os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != where and access(path, mode))
    status, found = examine(home, capsys, "--no-kafka")
    assert status == 4
    # The file of flags is in the same directory, and is checked too.
    (bad,) = [finding for finding in found if not finding["ok"] and finding["what"] == "state_dir"]
    assert str(where) in bad["detail"]
    assert sorted(home.rglob("*")) == before


@pytest.mark.parametrize(("variant", "safe"), [("on", set()), ("off", {FlagRef("new-checkout", "production")})])
async def test_telemetry_is_looked_at_with_the_flags_that_are_safe_now(
    home: Path, monkeypatch: pytest.MonkeyPatch, variant: str, safe: set[FlagRef]
) -> None:
    asked: list[set[FlagRef]] = []

    async def brokers(_: Config) -> Finding:
        return Finding(what="kafka", ok=True, detail="answers")

    async def deployment(*_: object) -> AsyncIterator[Finding]:
        yield Finding(what="processes", ok=True, detail="alive: one")

    async def telemetry(_: Config, are_safe: set[FlagRef]) -> list[TopicLook]:
        asked.append(set(are_safe))
        return []

    monkeypatch.setattr("agent.preflight.doctor._brokers", brokers)
    monkeypatch.setattr("agent.preflight.doctor._deployment", deployment)
    monkeypatch.setattr("agent.preflight.doctor.look_at_telemetry", telemetry)
    flags = json.loads(FLAGS)
    flags["flags"]["new-checkout"]["defaultVariant"] = variant
    (home / "flags.json").write_text(json.dumps(flags))
    async for _ in doctor.examine(load(home / "flipback.yaml")):
        pass
    assert asked == [safe]


def obstacle(why: str) -> Obstacle:
    return Obstacle(what="executor", why=why)


@pytest.mark.parametrize(
    ("host", "says", "again"),
    [
        ("here", "backend files: {}", False),
        # Another machine has another file, and its own cause.
        ("elsewhere", "backend files: {}", True),
        ("here", "backend files: the disk is full", True),
    ],
)
async def test_what_was_found_here_is_not_said_again_for_a_process_of_this_machine(
    home: Path, monkeypatch: pytest.MonkeyPatch, host: str, says: str, again: bool
) -> None:
    (home / "flags.json").unlink()
    cause = f"{home / 'flags.json'}: there is no such file"
    monkeypatch.setattr("agent.preflight.doctor.socket.gethostname", lambda: "here")
    member = Member(beat("x", host=host), 1.0)
    why = f"{says.format(cause)} ({member.beat.name})"
    found = await with_processes(home, monkeypatch, [member], [obstacle(why)], [])
    assert ([finding.detail for finding in found if finding.what == "executor"] == [why]) == again
    # Neither is it reported both by the read of the flag and by the dry run.
    assert [finding.what for finding in found if finding.detail == cause] == ["files: production/new-checkout"]


async def test_samples_that_were_found_bad_in_the_topic_are_no_obstacle_besides(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = TelemetryCount(topic="requests", received=100, rejected=50, reason="Expected `float`")
    member = Member(beat("x", telemetry=[count]), 1.0)
    same = [one.bounded() for one in of_telemetry(wanted(load(home / "flipback.yaml")), [member])]
    unread = Obstacle(what="requests", why="no ingest reads requests/1")
    looks = [TopicLook("telemetry requests", False, "50 samples rejected (50 %)", "requests")]
    found = await with_processes(home, monkeypatch, [member], [*same, unread], looks)
    assert [finding.detail for finding in found if not finding.ok] == [unread.why, looks[0].detail]
    well = [TopicLook("telemetry requests", True, "well", "requests")]
    found = await with_processes(home, monkeypatch, [member], same, well)
    assert ["50 of 100" in finding.detail for finding in found if not finding.ok] == [True]


async def test_a_process_of_which_a_heartbeat_is_overdue_stands_there_with_its_age(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = [Member(beat("x"), QUIET_AFTER + 4), Member(beat("y"), QUIET_AFTER)]
    (line,) = [one for one in await with_processes(home, monkeypatch, members, [], []) if one.what == "processes"]
    assert line.detail == "alive: x (pid 7), last heard 17 s ago, y (pid 7)"


async def with_processes(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    members: list[Member],
    obstacles: list[Obstacle],
    looks: list[TopicLook],
) -> list[Finding]:
    """Return the doctor's findings, with stubs for what the brokers say about processes and telemetry."""

    async def brokers(_: Config) -> Finding:
        return Finding(what="kafka", ok=True, detail="answers", local=False)

    async def status(_: Config) -> None:
        return None

    async def look(*_: object) -> tuple[Arming, list[Member]]:
        return Arming(tuple(obstacles)), members

    async def telemetry(*_: object) -> list[TopicLook]:
        return looks

    for name, stub in {
        "_brokers": brokers,
        "read_status": status,
        "look": look,
        "look_at_telemetry": telemetry,
    }.items():
        monkeypatch.setattr(f"agent.preflight.doctor.{name}", stub)
    return [finding async for finding in doctor.examine(load(home / "flipback.yaml"))]
