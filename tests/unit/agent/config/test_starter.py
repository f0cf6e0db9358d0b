"""`flipback init` writes files that work as they are, and overwrites nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.backends.flagd.text import FlagdDocument, all_to
from agent.config.load import load
from agent.config.starter import CONFIG_NAME, FLAGS_NAME, Names, write
from agent.errors import FlipbackError
from tests.unit.agent.cli.test_keys_and_restore import run

NAMES = Names(service="cart", flag="new-cart", topic="cart.requests")


def test_what_is_written_is_a_configuration_of_that_service_and_flag(tmp_path: Path) -> None:
    assert run("init", str(tmp_path), "--service", "cart", "--flag", "new-cart", "--topic", "cart.requests") == 0
    config = load(tmp_path / CONFIG_NAME)
    (flag,) = config.flags
    assert (flag.service, flag.flag, [t.topic for t in config.telemetry]) == ("cart", "new-cart", ["cart.requests"])
    assert run("config", "check", str(tmp_path / CONFIG_NAME)) == 0


@pytest.mark.parametrize(
    ("given", "brokers", "tls"),
    [
        ("127.0.0.1:28211", ["127.0.0.1:28211"], False),
        ("localhost:1, [::1]:65535", ["localhost:1", "[::1]:65535"], False),
        # A configuration with plaintext to another machine is refused, so the file that is written has TLS.
        ("kafka-1.example.org:9093,kafka-2:9093", ["kafka-1.example.org:9093", "kafka-2:9093"], True),
        ("10.0.0.7:9092", ["10.0.0.7:9092"], True),
    ],
)
def test_brokers_elsewhere_need_no_edit_of_the_file(tmp_path: Path, given: str, brokers: list[str], tls: bool) -> None:
    assert run("init", str(tmp_path), "--brokers", given) == 0
    kafka = load(tmp_path / CONFIG_NAME).kafka
    assert (kafka.brokers, kafka.security is not None) == (brokers, tls)
    assert kafka.security is None or not kafka.security.allow_plaintext


@pytest.mark.parametrize(
    "given", ["", "kafka", "kafka:", "kafka:0", "kafka:65536", "1:30", "a:1,,b:2", "a b:1", "a:1}"]
)
def test_what_is_no_address_of_a_broker_is_wrong_usage(tmp_path: Path, given: str) -> None:
    assert run("init", str(tmp_path / "new"), "--brokers", given) == 2
    assert not (tmp_path / "new").exists()


def test_the_first_triggers_judge_the_variant_that_the_file_of_flags_gives(tmp_path: Path) -> None:
    write(tmp_path, NAMES)
    specs = load(tmp_path / CONFIG_NAME).trigger_specs()
    variants = json.loads((tmp_path / FLAGS_NAME).read_text())["flags"]["new-cart"]["variants"]
    assert [spec.condition.variant for spec in specs[:2]] == ["on", "on"]
    assert {"on", specs[0].safe_variant} == set(variants)


def test_the_flag_that_is_written_can_be_turned_back_without_a_doubt(tmp_path: Path) -> None:
    write(tmp_path, NAMES)
    document = FlagdDocument((tmp_path / FLAGS_NAME).read_bytes())
    document.replaced("new-cart", all_to(document.definition("new-cart"), "off"))
    assert document.doubts() == document.refused() == []


@pytest.mark.parametrize("there", [CONFIG_NAME, FLAGS_NAME])
def test_nothing_is_overwritten_and_nothing_is_written_beside_it(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("mine")
    with pytest.raises(FlipbackError, match=there):
        write(tmp_path, NAMES)
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "mine"


@pytest.mark.parametrize("name", ["a b", "", "x: y", "-n", "a,b", "x{}", "a\nb"])
def test_a_name_that_yaml_would_read_otherwise_is_wrong_usage(tmp_path: Path, name: str) -> None:
    assert run("init", str(tmp_path / "new"), f"--service={name}") == 2
    assert not (tmp_path / "new").exists()
