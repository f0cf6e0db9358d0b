"""`flipback keys generate` and `flipback restore`, as a person calls them."""

from __future__ import annotations

import asyncio
import shlex
import socket
import stat
from pathlib import Path

import msgspec
import pytest

from agent import cli
from agent.backends.contract import Outcome
from agent.commands.command import sign
from agent.commands.keys import PUBLIC_NAME, load_private, load_public
from agent.config.load import load
from agent.control.restore import flipped
from agent.errors import RestoreRefused
from agent.executor.build import make_backends, managed
from agent.executor.executor import Executor
from agent.executor.limits import FlipRate
from agent.executor.settings import FlipPace, Permissions
from agent.ledger.automation import Automation
from agent.ledger.ledger import Ledger
from agent.state.flags import FlagWatch
from tests.unit.agent.executor.test_executor import command

CONFIG = """
apiVersion: flipback/v1
kafka: {brokers: [127.0.0.1:9092]}
telemetry:
  - {topic: requests, format: json}
backends:
  files: {kind: flagd-file, path: flags.json}
flags:
  - flag: new-checkout
    service: shop
    backend: files
    safe: "off"
    triggers:
      - {name: errors, when: error_rate > 2% for 2m, min_samples: 30, fast: false}
"""
FLAGS = (
    '{"flags": {"new-checkout": {"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "on"}}}'
)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exited:
        cli.main(arguments)
    assert isinstance(exited.value.code, int)
    return exited.value.code


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory with a configuration, its flags and the keys of `flipback keys generate`."""
    (tmp_path / "flipback.yaml").write_text(CONFIG)
    (tmp_path / "flags.json").write_text(FLAGS)
    assert run("keys", "generate", "--dir", str(tmp_path / ".flipback")) == 0
    return tmp_path


def flip(home: Path) -> str:
    """Flip the flag with a signed command, and return the incident."""
    config = load(home / "flipback.yaml")

    async def execute() -> str:
        backends = make_backends(config)

        async def emit(_: object) -> None:
            return None

        public = load_public(config.public_keys[0])
        executor = Executor(
            Permissions(list(map(managed, config.flags)), backends, {public.id: public}),
            Ledger(config.state_dir / "ledger"),
            Automation(config.state_dir),
            FlipPace(FlipRate(1, 600.0), cooldown_s=60.0),
            watch=FlagWatch(),
            emit=emit,
            now=lambda: 1001.0,
        )
        status = await executor.read_flag("new-checkout", "production")
        made = command(flag_version=status.version)
        result = await executor.execute(sign(made, load_private(config.signing_key)))
        assert result.outcome is Outcome.APPLIED
        executor.close()
        await backends["files"].close()
        return made.incident

    return asyncio.run(execute())


def test_generated_keys_are_where_the_configuration_looks_for_them(home: Path) -> None:
    config = load(home / "flipback.yaml")
    assert load_private(config.signing_key).id == load_public(config.public_keys[0]).id
    assert stat.S_IMODE(config.signing_key.stat().st_mode) == 0o600


def test_the_output_names_the_files_and_the_key_id(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("keys", "generate", "--dir", str(home / "others")) == 0
    output = capsys.readouterr().out
    (public,) = (home / "others").glob(PUBLIC_NAME)
    assert load_public(public).id in output
    assert str(public) in output
    assert "BEGIN" not in output


def test_keys_are_not_generated_over_others(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("keys", "generate", "--dir", str(home / ".flipback")) == 3
    assert "already" in capsys.readouterr().err


def test_restore_puts_the_flag_back_and_says_so(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    incident = flip(home)
    assert (home / "flags.json").read_text() != FLAGS
    arguments = ("restore", incident, "--config", str(home / "flipback.yaml"), "--yes", "--reason", "fixed")
    assert run(*arguments) == 0
    assert (home / "flags.json").read_text() == FLAGS
    output = capsys.readouterr().out
    assert "errors: error_rate of production/shop was 20 %, limit > 2 %, 100 samples" in output
    assert "read back: 'off' for everyone" in output
    assert "flipback.flag" not in output
    assert "restored: production/new-checkout is 'on'" in output
    assert run(*arguments) == 0
    assert "as it was already" in capsys.readouterr().out


def test_restore_asks_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    incident = flip(home)
    flipped = (home / "flags.json").read_text()
    asked: list[str] = []

    def answer(prompt: str) -> str:
        asked.append(prompt)
        return "n"

    monkeypatch.setattr("click.termui.visible_prompt_func", answer)
    assert run("restore", incident, "--config", str(home / "flipback.yaml")) != 0
    assert asked
    assert (home / "flags.json").read_text() == flipped


def test_restore_refuses_what_a_person_changed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    incident = flip(home)
    edited = FLAGS.replace('"on"}', '"off", "metadata": {"by": "ann"}}')
    (home / "flags.json").write_text(edited)
    assert run("restore", incident, "--config", str(home / "flipback.yaml"), "--yes") == 5
    assert "changed since" in capsys.readouterr().err
    assert (home / "flags.json").read_text() == edited


def test_restore_names_an_unknown_incident(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    incident = flip(home)
    assert run("restore", "nothing", "--config", str(home / "flipback.yaml"), "--yes") == 5
    error = capsys.readouterr().err
    assert f"the ledger {home / '.flipback' / 'ledger'} has no incident nothing" in error
    assert error.splitlines()[-1] == f"  1970-01-01T00:16:40Z  production/new-checkout/errors  {incident}"


def test_restore_says_where_there_is_no_ledger_and_makes_none(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("restore", "nothing", "--config", str(home / "flipback.yaml"), "--yes") == 5
    assert f"there is no ledger in state_dir {home / '.flipback'}" in capsys.readouterr().err
    assert not (home / ".flipback" / "ledger").exists()


def test_restore_names_the_five_newest_of_what_can_be_restored(home: Path) -> None:
    incident = flip(home)
    ledger = Ledger(home / ".flipback" / "ledger")
    (entry,) = ledger.entries()
    for number in range(6):
        later = msgspec.structs.replace(
            entry.command, id=f"id-{number}", incident=f"later-{number}", issued_at=entry.command.issued_at + number + 1
        )
        ledger.open(later, b"", entry.opened.snapshot, entry.events)
    unwritten = msgspec.structs.replace(entry.command, id="x", incident="unwritten", issued_at=5000.0)
    ledger.open(unwritten, b"", entry.opened.snapshot, entry.events[:1])
    with pytest.raises(RestoreRefused) as refused:
        flipped(ledger, "nothing")
    named = [line.split()[-1] for line in str(refused.value).splitlines()[1:]]
    assert named == ["later-5", "later-4", "later-3", "later-2", "later-1"]
    assert incident not in named


def test_a_backend_that_cannot_be_used_has_its_own_status(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    incident = flip(home)
    (home / "flags.json").unlink()
    assert run("restore", incident, "--config", str(home / "flipback.yaml"), "--yes") == 4
    assert "flags.json" in capsys.readouterr().err


def test_a_rollback_that_cannot_reach_kafka_says_why_and_names_the_way_without_it(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = home / "flipback.yaml"
    path.write_text(CONFIG.replace("127.0.0.1:9092", f"127.0.0.1:{port}"))
    assert run("rollback", "new-checkout", "-c", str(path), "--reason", "game day", "--yes") == 1
    said = capsys.readouterr().err
    assert f"127.0.0.1:{port}: nothing listens there" in said
    assert f"`flipback rollback new-checkout -c {path} --reason 'game day' --direct`" in said


def test_a_rollback_without_its_key_names_the_way_that_needs_none(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / ".flipback" / "flipback.key").unlink()
    path = home / "flipback.yaml"
    assert run("rollback", "new-checkout", "-c", str(path), "--reason", "it's bad", "--yes") == 3
    said = capsys.readouterr().err
    assert "cannot read the key" in said
    pasted = said.split("`")[-2]
    assert pasted.startswith("flipback rollback ")
    assert run(*shlex.split(pasted)[1:], "--yes") == 0
