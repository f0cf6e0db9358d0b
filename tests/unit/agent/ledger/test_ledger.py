from __future__ import annotations

import stat
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.backends.contract import FlagState, Snapshot
from agent.commands.command import Command, Evidence, FlipTarget, issue
from agent.errors import LedgerError
from agent.events.cloudevents import (
    FLAG_AMBIGUOUS,
    FLAG_CONFLICT,
    FLAG_SNAPSHOT,
    FLAG_UNVERIFIED,
    FLAG_VERIFIED,
    FLAG_WRITTEN,
    Event,
)
from agent.ledger.entry import Announced, Entry, append_line, encoded
from agent.ledger.ledger import Ledger

EVIDENCE = Evidence(
    metric="error_rate",
    scope="production/shop",
    window=(0.0, 60.0),
    op=">",
    threshold=0.02,
    value=0.2,
    samples=100,
    counts={"errors": 20},
    sources=2,
    age_s=1.0,
    first_true_at=0.0,
    fired_at=61.0,
)
SNAPSHOT = Snapshot(
    flag="f",
    environment="production",
    state=FlagState(variant="on", percent=None, version="v1", raw='{"état": "\\u00e9"}'),
    identity="1:2:3",
)


def command(trigger: str = "errors", flag: str = "f") -> Command:
    return issue(
        FlipTarget(flag, "production", "shop", "files", "off"),
        trigger=trigger,
        flag_version="g1-v1",
        issued_at=0.0,
        rules_hash="r",
        evidence=EVIDENCE,
    )


def event(kind: str, at: float = 1.0) -> Event:
    return Event(type=kind, subject="production/f", data={"é": [1, None]}, id=f"{kind}/{at}", time=at)


def opened(ledger: Ledger) -> Entry:
    entry, created = ledger.open(command(), b"\x00raw\xff", SNAPSHOT, [event(FLAG_SNAPSHOT)])
    assert created
    return entry


def test_what_was_recorded_is_read_by_the_next_process(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    entry = opened(ledger)
    ledger.append(entry, event(FLAG_WRITTEN))
    ledger.announced(entry)
    ledger.append(entry, event(FLAG_VERIFIED))
    found = Ledger(tmp_path / "ledger").get(command().id)
    assert found == entry
    assert found is not None
    assert found.opened == entry.opened
    assert (found.opened.raw, found.opened.snapshot) == (b"\x00raw\xff", SNAPSHOT)
    assert found.pending == [event(FLAG_VERIFIED)]
    # An empty line is written only after a line that a crash cut short.
    (file,) = (tmp_path / "ledger").glob("*.jsonl")
    assert [bool(line) for line in file.read_bytes().split(b"\n")] == [True] * 5 + [False]


def test_the_first_line_of_a_file_begins_it(tmp_path: Path) -> None:
    append_line(tmp_path / "new", Announced(count=1))
    assert (tmp_path / "new").read_bytes() == encoded(Announced(count=1))


def test_an_unknown_command_has_no_entry(tmp_path: Path) -> None:
    assert Ledger(tmp_path).get(command().id) is None


def test_a_command_is_opened_once_and_its_snapshot_never_replaced(tmp_path: Path) -> None:
    first = opened(Ledger(tmp_path))
    later = msgspec.structs.replace(SNAPSHOT, identity="9:9:9")
    assert Ledger(tmp_path).open(command(), b"again", later, []) == (first, False)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(cut=st.integers(1, 400))
def test_a_step_cut_short_by_a_crash_counts_as_never_made(tmp_path: Path, cut: int) -> None:
    ledger = Ledger(tmp_path)
    (tmp_path / f"{command().id}.jsonl").unlink(missing_ok=True)
    entry = opened(ledger)
    (file,) = tmp_path.glob("*.jsonl")
    before = file.read_bytes()
    ledger.append(entry, event(FLAG_WRITTEN))
    whole = file.read_bytes()
    # At least the end of the line is missing.
    end = max(len(before), len(whole) - 1 - cut)
    file.write_bytes(whole[:end])
    again = ledger.get(command().id)
    assert again is not None
    assert [step.type for step in again.events] == [FLAG_SNAPSHOT]
    ledger.append(again, event(FLAG_VERIFIED))
    last = ledger.get(command().id)
    assert last is not None
    assert [step.type for step in last.events] == [FLAG_SNAPSHOT, FLAG_VERIFIED]


@pytest.mark.parametrize(
    ("kind", "settled"),
    [
        (FLAG_WRITTEN, False),
        (FLAG_AMBIGUOUS, False),
        (FLAG_VERIFIED, True),
        (FLAG_UNVERIFIED, True),
        (FLAG_CONFLICT, True),
    ],
)
def test_a_command_is_settled_when_it_is_known_what_became_of_it(tmp_path: Path, kind: str, settled: bool) -> None:
    ledger = Ledger(tmp_path)
    entry = opened(ledger)
    assert not entry.settled
    ledger.append(entry, event(kind))
    assert entry.settled is settled


def test_the_flips_of_a_flag_outlive_the_process(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.flips("production", "f") == []
    entry = opened(ledger)
    assert ledger.flips("production", "f") == []
    ledger.append(entry, event(FLAG_WRITTEN, 20.0))
    other, _ = ledger.open(command("slow"), b"", SNAPSHOT, [event(FLAG_SNAPSHOT)])
    ledger.append(other, event(FLAG_WRITTEN, 10.0))
    assert ledger.flips("production", "f") == [10.0, 20.0]
    assert Ledger(tmp_path).flips("production", "f") == [10.0, 20.0]
    assert Ledger(tmp_path).flips("staging", "f") == []


def test_what_was_settled_before_a_start_is_read_once_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(tmp_path)
    entry = opened(ledger)
    ledger.append(entry, event(FLAG_VERIFIED))
    reborn = Ledger(tmp_path)
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("it was read again"))
    assert reborn.recent(0.0) == [entry]


def test_of_all_flips_of_a_flag_the_newest_hundred_are_known(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    entry = opened(ledger)
    # Neither in the order of times nor of ids.
    times = [float(at) for at in (*range(100, 151), *range(50, 100))]
    for at in times:
        ledger.append(entry, event(FLAG_WRITTEN, at))
    newest = sorted(times)[1:]
    assert len(newest) == 100
    assert ledger.flips("production", "f") == Ledger(tmp_path).flips("production", "f") == newest


def test_a_damaged_entry_is_named_and_hides_no_other(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    opened(ledger)
    damaged = tmp_path / f"{command('slow').id}.jsonl"
    damaged.write_text("{}\n")
    with pytest.raises(LedgerError, match=damaged.name):
        ledger.get(command("slow").id)
    assert [entry.command for entry in Ledger(tmp_path).entries()] == [command()]


def test_the_ledger_is_its_owners_alone(tmp_path: Path) -> None:
    Ledger(tmp_path / "ledger")
    assert stat.S_IMODE((tmp_path / "ledger").stat().st_mode) == 0o700


def test_a_disk_that_refuses_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="file"):
        Ledger(tmp_path / "file" / "ledger")


def test_what_was_settled_long_before_is_not_recent_and_what_is_not_settled_always_is(tmp_path: Path) -> None:
    ledger, other = Ledger(tmp_path), Ledger(tmp_path)

    def recent(since: float) -> list[set[str]]:
        """Return the triggers of the recent entries, as the writer, another process and a new process read them."""
        return [{e.command.trigger for e in one.recent(since)} for one in (ledger, other, Ledger(tmp_path))]

    early = opened(ledger)
    later, _ = ledger.open(command("slow"), b"raw", SNAPSHOT, [event(FLAG_SNAPSHOT, 1000.0)])
    assert recent(2000.0) == [{"errors", "slow"}] * 3
    ledger.append(early, event(FLAG_WRITTEN, 1000.0))
    ledger.append(early, event(FLAG_VERIFIED, 1001.0))
    # Clocks may differ by 5 minutes.
    assert recent(1301.0) == [{"errors", "slow"}] * 3
    assert recent(1302.0) == [{"slow"}] * 3
    ledger.append(later, event(FLAG_WRITTEN, 1500.0))
    (found,) = other.recent(1302.0)
    assert found.find(FLAG_WRITTEN) is not None
    ledger.append(later, event(FLAG_VERIFIED, 1501.0))
    assert recent(1801.0) == [{"slow"}] * 3
    assert recent(1802.0) == [set()] * 3
    # After a person's resume, entries from an earlier time are read again.
    assert recent(1000.0) == [{"errors", "slow"}] * 3


def test_of_what_is_settled_nothing_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, other = Ledger(tmp_path), Ledger(tmp_path)
    entry = opened(ledger)
    ledger.append(entry, event(FLAG_WRITTEN, 999.0))
    ledger.append(entry, event(FLAG_VERIFIED, 1000.0))
    assert len(ledger.recent(1000.0)) == 1
    assert other.flips("production", "f") == [999.0]
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path.name} was read again"))
    assert len(ledger.recent(1000.0)) == 1
    assert other.flips("production", "f") == [999.0]
    assert len(other.recent(1000.0)) == 1


def test_what_was_settled_long_before_is_not_kept_in_memory(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append(opened(ledger), event(FLAG_CONFLICT, 1000.0))
    assert len(ledger.recent(1000.0)) == len(ledger._recent) == 1
    assert len(ledger.recent(2000.0)) == len(ledger._recent) == 0


def test_what_was_added_or_grew_is_given_once_whoever_wrote_it(tmp_path: Path) -> None:
    ledger, other = Ledger(tmp_path), Ledger(tmp_path)
    assert list(ledger.changed()) == []
    entry = opened(other)
    assert list(ledger.changed()) == [entry]
    assert list(ledger.changed()) == []
    other.append(entry, event(FLAG_WRITTEN))
    assert [one.events for one in ledger.changed()] == [entry.events]
    assert list(ledger.changed()) == []


def test_a_ledger_that_may_not_be_read_is_not_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(tmp_path)

    # Tests may run as root, to which no permission is denied.
    def denied(path: object) -> list[str]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.listdir", denied)
    monkeypatch.setattr("os.scandir", denied)
    with pytest.raises(LedgerError, match=f"{tmp_path}: Permission denied"):
        Ledger(tmp_path)
    with pytest.raises(LedgerError, match=f"{tmp_path}: Permission denied"):
        list(ledger.changed())
