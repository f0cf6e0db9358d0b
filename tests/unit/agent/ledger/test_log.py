"""A failure of the ledger's disk stops nothing else, and is logged as an error with its command and reason."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from agent.backends.contract import Outcome
from agent.errors import LedgerError, Permission
from agent.events import cloudevents as events
from agent.executor.groups import Groups
from agent.ledger.ledger import Ledger
from tests.support.fleet import Fleet
from tests.unit.agent.executor.test_executor import Desk, command, signed
from tests.unit.agent.executor.test_groups import GROUP, carry_out
from tests.unit.agent.ledger.test_ledger import opened


def full(*_: object) -> None:
    raise LedgerError("No space left on device")


def logged(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, object]]:
    """Return the fields of the logged errors with this name."""
    return [
        dict(record.fields)  # type: ignore[attr-defined]
        for record in caplog.records
        if (record.message, record.levelno) == (event, logging.ERROR)
    ]


async def test_a_step_that_was_not_written_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Ledger, "append", full)
    assert (await Desk(tmp_path).execute(signed())).outcome is Outcome.APPLIED
    of, why = command().id, "No space left on device"
    assert logged(caplog, "ledger.failed")[:2] == [
        {"command": of, "step": kind, "error": why} for kind in (events.FLAG_WRITTEN, events.FLAG_VERIFIED)
    ]


async def test_a_mark_that_was_not_written_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk(tmp_path)
    mark = Ledger.mark
    monkeypatch.setattr(Ledger, "mark", lambda *a: full() if a[2] == "never" else mark(*a))
    desk.backend.faults["apply"] = [Permission("403")]
    result = await desk.execute(signed())
    assert (result.outcome, result.detail) == (Outcome.REJECTED, "403")
    assert logged(caplog, "ledger.failed") == [
        {"command": command().id, "step": "mark", "error": "No space left on device"}
    ]


async def test_the_end_of_a_group_that_was_not_written_is_logged_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = Fleet(tmp_path, 3, 10, groups=GROUP)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Groups, "_finish", full)
        await carry_out(fleet)
    assert {"step": events.INCIDENT_DONE, "error": "No space left on device"} in logged(caplog, "ledger.failed")
    await fleet.executor.publish_pending()
    assert len(fleet.of(events.INCIDENT_DONE)) == 1


def test_a_damaged_file_is_logged_by_its_path(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger(tmp_path)
    opened(ledger)
    (path,) = tmp_path.glob("*.jsonl")
    path.write_text("{}\n")
    assert list(ledger.entries()) == []
    (fields,) = logged(caplog, "ledger.damaged")
    assert fields["path"] == str(path)
    assert "does not begin with a command" in str(fields["error"])


def test_a_file_that_may_not_be_read_is_logged_and_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger(tmp_path)
    entry = opened(ledger)
    denied = tmp_path / "another.jsonl"
    denied.write_text("")
    read = Path.read_bytes

    # Tests may run as root, to which no permission is denied.
    def refuse(path: Path) -> bytes:
        if path == denied:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert list(ledger.entries()) == [entry]
    (fields,) = logged(caplog, "ledger.damaged")
    assert fields == {"path": str(denied), "error": f"the ledger cannot use {denied}: Permission denied"}
