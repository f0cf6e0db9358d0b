"""`flipback rollback --direct` and its `restore`: a person's order, without Kafka, a running agent or a key."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent import cli
from agent.backends.contract import FlagRef, Outcome
from agent.backends.flagd.backend import FlagdFileBackend
from agent.commands.command import BY_HAND, Cause, sign
from agent.commands.keys import PrivateKey
from agent.config.load import load
from agent.config.model import Config
from agent.control.rollback import order
from agent.errors import Transient
from agent.events import cloudevents as events
from agent.events.cloudevents import Event
from agent.executor.build import make_backends, make_executor, open_ledger
from agent.executor.executor import Executor
from agent.executor.flip import Flip
from agent.executor.generations import watch_from
from agent.executor.result import ExecutionResult
from agent.ledger.automation import Automation
from agent.ledger.ledger import Ledger
from tests.unit.agent.executor.test_executor import command

# Nothing listens on port 1, and the keys that are named do not exist.
CONFIG = """
apiVersion: flipback/v1
kafka: {brokers: [127.0.0.1:1]}
telemetry: [{topic: requests, format: json}]
backends:
  files: {kind: flagd-file, path: flags.json}
  others: {kind: flagd-file, path: others.json}
keys: {signing_key: none.key, public_keys: [none.pub]}
mode: shadow
automation: {max_flips: 2, max_share: 1}
flags:
  - flag: new-cart
    service: shop
    backend: files
    safe: "off"
    triggers: [{name: errors, when: error_rate > 2% for 2m}]
  - flag: new-search
    service: search
    backend: others
    safe: "off"
    together: [new-cart]
    triggers: [{name: errors, when: error_rate > 2% for 2m}]
"""


def flags(name: str) -> str:
    return json.dumps(
        {"flags": {name: {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "on"}}}
    )


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exited:
        cli.main(arguments)
    assert isinstance(exited.value.code, int)
    return exited.value.code


class Home:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config_file = directory / "flipback.yaml"
        self.config_file.write_text(CONFIG)
        self.cart, self.search = directory / "flags.json", directory / "others.json"
        self.cart.write_text(flags("new-cart"))
        self.search.write_text(flags("new-search"))

    @property
    def config(self) -> Config:
        return load(self.config_file)

    @property
    def ledger(self) -> Ledger:
        return open_ledger(self.config)

    def rollback(self, flag: str, *options: str) -> int:
        given = ("-c", str(self.config_file), "--reason", "users cannot pay", "--yes", *options)
        return run("rollback", flag, "--direct", *given)

    def restore(self, incident: str) -> int:
        return run("restore", incident, "-c", str(self.config_file), "--yes")

    def work(self, task: Callable[[Executor, list[Event]], Awaitable[None]]) -> list[Event]:
        """Return the events that a running executor on the same directory publishes during `task`."""
        told: list[Event] = []

        async def emit(event: Event) -> None:
            told.append(event)

        async def live() -> None:
            backends, ledger = make_backends(self.config), self.ledger
            executor = make_executor(self.config, ledger, watch_from(ledger), backends, [], emit)
            await task(executor, told)
            executor.close()
            await asyncio.gather(*(backend.close() for backend in backends.values()))

        asyncio.run(live())
        return told


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def variant(path: Path) -> str:
    (flag,) = json.loads(path.read_text())["flags"].values()
    return str(flag["defaultVariant"])


def test_the_flag_is_made_safe_from_here_and_only_this_one(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert home.rollback("new-cart") == 0
    assert (variant(home.cart), variant(home.search)) == ("off", "on")
    output = capsys.readouterr()
    assert "rolled back: production/new-cart is 'off', written and read back, incident " in output.out
    assert output.err == ""


@pytest.mark.parametrize("before", ["on", "off"])
def test_what_may_keep_applications_from_seeing_it_is_said_and_ends_with_a_status_of_its_own(
    home: Home, capsys: pytest.CaptureFixture[str], before: str
) -> None:
    mine = json.loads(flags("new-cart").replace('"defaultVariant": "on"', f'"defaultVariant": "{before}"'))["flags"]
    home.cart.write_text(json.dumps({"flags": {**mine, "somebody-elses": {}}}))
    assert home.rollback("new-cart") == 6
    assert json.loads(home.cart.read_text())["flags"]["new-cart"]["defaultVariant"] == "off"
    output = capsys.readouterr()
    assert ("rolled back: " if before == "on" else "safe already: ") in output.out
    assert "production/new-cart: LOOK whether applications see it" in output.err
    assert "'somebody-elses'" in output.err


def test_what_is_only_a_doubt_is_said_and_the_rollback_is_well(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    home.cart.with_name("second-name.json").hardlink_to(home.cart)
    assert home.rollback("new-cart") == 0
    assert "production/new-cart: to be looked at: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("of_ledger", "todo"),
    [
        (
            True,
            "nothing was written; make room or mend the rights there and try again, or turn the flag off in 'files'",
        ),
        (False, "make room for it; nothing was written; then try again"),
    ],
)
def test_a_full_disk_is_one_line_with_its_cause_and_what_to_do(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], of_ledger: bool, todo: str
) -> None:
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        if (".flipback" in os.readlink(f"/proc/self/fd/{descriptor}")) == of_ledger:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    before = home.cart.read_bytes()
    assert home.rollback("new-cart") == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.count("No space left on device") == 1
    assert todo in line
    assert home.cart.read_bytes() == before


def test_who_did_it_and_why_is_in_the_ledger_and_told_later_by_a_running_executor(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        assert home.rollback("new-cart") == 0
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    (entry,) = home.ledger.entries()
    assert entry.command.trigger == BY_HAND
    assert entry.command.evidence.reason == "users cannot pay"
    assert entry.command.evidence.by
    assert len(entry.pending) == 4

    async def tell(executor: Executor, told: list[Event]) -> None:
        await executor.publish_pending()
        await executor.publish_pending()

    told = home.work(tell)
    kinds = [events.COMMAND_RECEIVED, events.FLAG_SNAPSHOT, events.FLAG_WRITTEN, events.FLAG_VERIFIED]
    assert [event.type for event in told] == kinds
    assert told[0].data["command"]["evidence"]["reason"] == "users cannot pay"


def test_rolling_back_what_is_safe_says_so_and_writes_nothing(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert home.rollback("new-cart") == 0
    content = home.cart.stat()
    for words in ("already", "duplicate"):
        capsys.readouterr()
        assert home.rollback("new-cart") == 0
        output = capsys.readouterr().out
        assert "safe already" in output
        assert words in output
    assert home.cart.stat().st_mtime_ns == content.st_mtime_ns


def test_neither_a_halt_nor_the_cooldown_nor_the_limits_stop_a_person(home: Home) -> None:
    with Automation(home.config.state_dir).locked():
        Automation(home.config.state_dir).halt("enough", by="ann", at=1.0)
    for _ in range(3):
        assert home.rollback("new-cart") == 0
        assert variant(home.cart) == "off"
        home.cart.write_text(flags("new-cart"))
    assert Automation(home.config.state_dir).halted() is not None


def test_a_group_is_made_safe_together_each_flag_with_an_incident_of_its_own(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    assert home.rollback("new-search") == 0
    assert (variant(home.cart), variant(home.search)) == ("off", "off")
    incidents = re.findall(r"incident (\S+)", capsys.readouterr().out)
    assert len(set(incidents)) == 2
    for incident in incidents:
        assert home.restore(incident) == 0
    assert (home.cart.read_text(), home.search.read_text()) == (flags("new-cart"), flags("new-search"))


def test_a_flag_that_cannot_be_read_stops_no_other_of_its_group(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    home.search.unlink()
    assert home.rollback("new-search") == 4
    assert variant(home.cart) == "off"
    assert "production/new-search" in capsys.readouterr().err


def test_a_companion_that_somebody_turned_on_again_is_a_new_case(home: Home) -> None:
    assert home.rollback("new-search") == 0
    for _ in range(2):
        home.cart.write_text(flags("new-cart"))
        assert home.rollback("new-search") == 0
        assert variant(home.cart) == "off"


def test_a_backend_that_does_not_do_it_is_status_4_and_says_what_to_do(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise Transient("503")

    monkeypatch.setattr(FlagdFileBackend, "apply", refuse)
    assert home.rollback("new-cart") == 4
    error = capsys.readouterr().err
    assert "503" in error or "did not land" in error
    assert "try again" in error


def test_it_asks_first(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda prompt: "n")
    assert run("rollback", "new-cart", "--direct", "-c", str(home.config_file), "--reason", "r") == 1
    assert variant(home.cart) == "on"


def test_a_flag_that_is_not_managed_is_wrong_usage_and_the_managed_ones_are_named(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    assert home.rollback("new-card") == 2
    assert home.rollback("new-cart", "--environment", "staging") == 2
    assert "production/new-cart" in capsys.readouterr().err


def test_a_flag_of_several_environments_needs_to_be_told_apart(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    text = CONFIG.replace("others: {kind", "stage: {kind: flagd-file, path: stage.json}\n  others: {kind")
    staging = """  - flag: new-cart
    environment: staging
    service: shop
    backend: stage
    safe: "off"
    triggers: [{name: errors, when: error_rate > 2% for 2m}]
"""
    home.config_file.write_text(text + staging)
    (home.directory / "stage.json").write_text(flags("new-cart"))
    assert home.rollback("new-cart") == 2
    assert "production, staging" in capsys.readouterr().err
    assert home.rollback("new-cart", "--environment", "staging") == 0
    assert (variant(home.cart), variant(home.directory / "stage.json")) == ("on", "off")


def test_another_backend_that_cannot_be_made_is_in_nobodys_way(home: Home) -> None:
    broken = "broken: {kind: unleash, url: 'https://u.example.org', token_file: none}\n  others: {kind"
    home.config_file.write_text(CONFIG.replace("others: {kind", broken))
    assert home.rollback("new-cart") == 0


def test_what_a_crash_left_open_is_finished_by_the_executor_although_the_key_is_gone(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(BaseException):
        pass

    async def die(*_: object) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(Flip, "_acknowledge", die)
        with pytest.raises(Crash):
            home.rollback("new-cart")
    assert variant(home.cart) == "off"
    (entry,) = home.ledger.entries()
    assert not entry.settled

    async def recover(executor: Executor, told: list[Event]) -> None:
        await executor.recover()

    told = home.work(recover)
    assert [event.type for event in told][-1] == events.FLAG_VERIFIED
    (entry,) = home.ledger.entries()
    assert entry.settled


def test_without_kafka_the_other_way_fails_with_the_reason(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("keys", "generate", "--dir", str(home.directory / "keys")) == 0
    home.config_file.write_text(CONFIG.replace("none.key", "keys/flipback.key"))
    assert run("rollback", "new-cart", "-c", str(home.config_file), "--reason", "r", "--yes") == 1
    assert "127.0.0.1:1" in capsys.readouterr().err
    assert variant(home.cart) == "on"


def test_a_command_of_another_key_is_refused_whatever_name_its_trigger_has(home: Home) -> None:
    results: list[ExecutionResult] = []

    async def forge(executor: Executor, told: list[Event]) -> None:
        status = await executor.read_flag(*FlagRef("new-cart", "production"))
        made = order(home.config, home.config.flags[0], status, reason="", by="")
        results.append(await executor.execute(sign(made, PrivateKey(Ed25519PrivateKey.generate()))))

    home.work(forge)
    assert [result.outcome for result in results] == [Outcome.REJECTED]
    assert variant(home.cart) == "on"


def test_an_incident_of_a_group_is_restored_flag_by_flag_and_5_if_one_is_not(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    incident = ""

    async def fire(executor: Executor, told: list[Event]) -> None:
        nonlocal incident
        incident = await fire_group(home, executor)

    home.work(fire)
    assert (variant(home.cart), variant(home.search)) == ("off", "off")
    home.cart.write_text(flags("new-cart").replace('"off": false', '"off": false, "beta": true'))
    assert home.restore(incident) == 5
    output = capsys.readouterr()
    assert "restored: production/new-search" in output.out
    assert "production/new-cart: the flag was changed since the flip" in output.err
    assert variant(home.search) == "on"
    told = home.work(lambda executor, _: executor.publish_pending())
    assert events.FLAG_RESTORED in [event.type for event in told]


async def fire_group(home: Home, executor: Executor) -> str:
    """Execute the commands of the group of new-search, by an executor that has their key; return the incident."""
    seen = {flag.flag: await executor.read_flag(flag.flag, "production") for flag in home.config.flags}
    cause = Cause(flag="new-search", flag_version=seen["new-search"].version)
    incident = ""
    for flag in home.config.flags:
        made = command(
            flag=flag.flag,
            service=flag.service,
            backend=flag.backend,
            flag_version=seen[flag.flag].version,
            issued_at=time.time(),
            cause=None if flag.flag == cause.flag else cause,
        )
        decided = await executor.execute_verified(made, b"")
        assert decided.publish is not None
        await decided.publish()
        assert decided.result.outcome is Outcome.APPLIED
        incident = made.incident
    return incident
