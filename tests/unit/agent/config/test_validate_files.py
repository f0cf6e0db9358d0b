"""The check refuses what a start would refuse: wrong addresses, and named files that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config.document import Problem
from agent.config.kafka import connection
from agent.config.load import check, load
from agent.config.model import Config
from agent.errors import ConfigError
from tests.unit.agent.config.test_validate import VALID, write

FILES = """\
keys: {signing_key: flipback.key, public_keys: [flipback.pub]}
"""
BACKENDS = """\
backends:
  own: {kind: webhook, url: "https://flags.example.org/set", secret_file: webhook.secret}
  toggles: {kind: unleash, url: "https://unleash.example.org", token_file: unleash.token}
  apps: {kind: remote-config, project: p, credentials: account.json}
"""
SECURITY = """\
  security: {cafile: ca.pem, mechanism: PLAIN, username: u, password_file: kafka.password}
telemetry:
"""
SECRETS = ["kafka.password", "webhook.secret", "unleash.token", "account.json", "flipback.key"]
PUBLIC = ["ca.pem", "flipback.pub"]
NAMED = [
    "kafka.security.password_file",
    "kafka.security.cafile",
    "backends.own.secret_file",
    "backends.toggles.token_file",
    "backends.apps.credentials",
    "keys.signing_key",
    "keys.public_keys[0]",
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    text = VALID.replace("backends:\n", BACKENDS).replace("telemetry:\n", SECURITY) + FILES
    for name in SECRETS + PUBLIC:
        (tmp_path / name).write_text("hush")
        (tmp_path / name).chmod(0o600 if name in SECRETS else 0o644)
    return write(tmp_path, text)


def broken(path: Path) -> dict[str, Problem]:
    config, problems = check(path, files=True)
    assert (config is None) == bool(problems)
    return {problem.path: problem for problem in problems}


def test_files_that_are_there_and_secrets_of_their_owner_alone_are_right(path: Path) -> None:
    assert broken(path) == {}


def test_every_file_that_is_named_and_missing_is_said_with_its_line(path: Path) -> None:
    for name in SECRETS + PUBLIC:
        (path.parent / name).unlink()
    found = broken(path)
    assert set(found) == set(NAMED)
    assert all("No such file" in problem.message and problem.line and problem.todo for problem in found.values())


def test_every_secret_that_others_can_read_is_said(path: Path) -> None:
    for name in SECRETS:
        (path.parent / name).chmod(0o644)
    found = broken(path)
    assert set(found) == set(NAMED) - {"kafka.security.cafile", "keys.public_keys[0]"}
    assert all("mode 0644" in problem.message for problem in found.values())


def test_a_role_whose_machine_lacks_the_files_of_another_loads_the_same_file(path: Path) -> None:
    for name in ("flipback.key", "webhook.secret"):
        (path.parent / name).unlink()
    assert isinstance(load(path), Config)


@pytest.mark.parametrize(
    ("backend", "setting", "message"),
    [
        ("webhook, url: 'http://flags.example.org', secret_file: s", "url", "not encrypted"),
        ("webhook, url: 'https://a:hush@flags.example.org', secret_file: s", "url", "holds credentials"),
        ("webhook, url: 'a:hush@flags.example.org', secret_file: s", "url", "is no address"),
        ("webhook, url: 'https://x.org', state_url: 'http://x.org/{flag}', secret_file: s", "state_url", "not encryp"),
        ("webhook, url: 'https://x.org', state_url: 'https://x.org/', secret_file: s", "state_url", "no {flag}"),
        ("unleash, url: 'http://unleash.example.org', token_file: s", "url", "not encrypted"),
        ("rtdb, url: 'http://x.firebaseio.com'", "url", "begins with http"),
        ("rtdb, url: 'https://a:hush@x.firebaseio.com'", "url", "more or less than a server"),
        ("rtdb, url: 'https://x.firebaseio.com', emulator: '10.0.0.1:9000'", "emulator", "on loopback"),
        ("firestore, project: p, emulator: 'x.example.org:9000'", "emulator", "on loopback"),
        ("remote-config, project: p, emulator: '127.0.0.1'", "emulator", "on loopback"),
    ],
)
def test_an_address_that_a_backend_would_refuse_is_refused_in_the_file(
    tmp_path: Path, backend: str, setting: str, message: str
) -> None:
    path = write(tmp_path, VALID.replace("backends:\n", f"backends:\n  other: {{kind: {backend}}}\n"))
    (problem,) = check(path)[1]
    assert (problem.path, problem.line) == (f"backends.other.{setting}", 7)
    assert message in problem.message
    assert "hush" not in problem.message


@pytest.mark.parametrize(
    "backend",
    [
        "webhook, url: 'http://127.0.0.1:8080/set', secret_file: s",
        "unleash, url: 'http://localhost:4242', token_file: s",
        "rtdb, url: 'http://x.firebaseio.com', emulator: '127.0.0.1:9000'",
        "firestore, project: p, emulator: '[::1]:9000'",
    ],
)
def test_addresses_on_loopback_need_no_encryption(tmp_path: Path, backend: str) -> None:
    path = write(tmp_path, VALID.replace("backends:\n", f"backends:\n  other: {{kind: {backend}}}\n"))
    assert check(path)[1] == []


def test_a_password_of_the_brokers_that_others_can_read_is_refused_at_the_start(path: Path) -> None:
    text = path.read_text().replace("cafile: ca.pem", "allow_plaintext: true")
    config = load(write(path.parent, text))
    assert connection(config).password == "hush"  # noqa: S105 - of this test
    (path.parent / "kafka.password").chmod(0o644)
    with pytest.raises(ConfigError, match=r"password_file: .* mode 0644"):
        connection(config)
