"""How a configuration is loaded: defaults, paths, the resolved triggers, and the hash of its rules."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from agent.backends.settings import FlagdFile
from agent.config.flags import Flag, Trigger
from agent.config.load import load, rules_hash
from agent.config.model import CommandSettings, Config, KeySettings, WebSettings
from detectors.cells import Scope
from detectors.conditions.grammar import parse
from detectors.conditions.spec import TriggerSpec, longest_lookback
from streams.settings import KafkaSettings, SecuritySettings, TelemetrySettings

COMPOSE = Path(__file__).parents[4] / "compose"
SMALLEST = """\
apiVersion: flipback/v1
kafka: {brokers: [127.0.0.1:9092]}
telemetry:
  - {topic: requests, format: json}
backends:
  files: {kind: flagd-file, path: flags.json}
flags:
  - flag: new-recommendations
    service: recommendations
    backend: files
    safe: "off"
    triggers:
      - {name: errors, when: error_rate > 2% for 2m}
      - {name: slow, when: latency_p95 > 45s for 1m}
      - {name: cold-cache, when: cache_hit_rate < 40% for 5m}
      - {name: down, when: availability < 99% for 30s}
"""

Loader = Callable[..., Config]


@pytest.fixture
def loaded(tmp_path: Path) -> Loader:
    """Load the smallest file with parts of its text replaced, and with text appended."""

    def loaded(*changes: tuple[str, str], more: str = "") -> Config:
        text = SMALLEST
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "flipback.yaml"
        path.write_text(text + more)
        return load(path)

    return loaded


def test_what_is_not_said_has_the_documented_default(loaded: Loader, tmp_path: Path) -> None:
    config = loaded()
    assert config.kafka == KafkaSettings(brokers=["127.0.0.1:9092"])
    kafka = config.kafka
    assert (kafka.prefix, kafka.create_topics, kafka.partials_partitions) == ("flipback", True, 8)
    assert (kafka.replication, kafka.session_timeout, kafka.security) == (-1, 6.0, None)
    assert config.telemetry == [TelemetrySettings(topic="requests", format="json")]
    assert (config.evaluate_every, config.max_lateness, config.unknown_grace) == (1, 2.0, 30)
    assert (config.catching_up_after, config.max_scopes, config.mode) == (15.0, 2000, "active")
    assert (config.command.expires, config.command.cooldown) == (60.0, 60.0)
    assert (config.web.host, config.web.port) == ("127.0.0.1", 6071)
    assert config.state_dir == tmp_path / ".flipback"
    assert config.signing_key == tmp_path / ".flipback" / "flipback.key"
    assert config.public_keys == [tmp_path / ".flipback" / "flipback.pub"]
    assert config.baseline is None
    assert (config.flags[0].environment, config.flags[0].control) == ("production", None)


def test_the_smallest_file_comes_to_the_four_seed_triggers(loaded: Loader) -> None:
    def seed(name: str, when: str, min_samples: int, *, fast: bool = False) -> TriggerSpec:
        return TriggerSpec(
            name=name,
            flag="new-recommendations",
            environment="production",
            service="recommendations",
            condition=parse(when),
            safe_variant="off",
            min_samples=min_samples,
            unknown_grace=30,
            max_window=600,
            fast=fast,
            false_alarms=30 * 86_400,
        )

    specs = loaded().trigger_specs()
    assert specs == [
        seed("errors", "error_rate > 2% over 1m for 2m", 900, fast=True),
        seed("slow", "latency_p95 > 45s over 30s for 1m", 280),
        seed("cold-cache", "cache_hit_rate < 40% over 1m for 5m", 139),
        seed("down", "availability < 99% over 15s for 30s", 5900, fast=True),
    ]
    assert longest_lookback(specs) == 600 + 300


def test_paths_are_relative_to_the_file(loaded: Loader, tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text('{"apiVersion": "flipback/v1", "baseline": {}}')
    keys = "keys: {signing_key: secret/k.pem, public_keys: [/etc/a.pub, b.pub]}\n"
    config = loaded(more=keys + "baseline: b.json\nstate_dir: ../state\n")
    assert config.backends == {"files": FlagdFile(path=tmp_path / "flags.json")}
    assert config.signing_key == tmp_path / "secret/k.pem"
    assert config.public_keys == [Path("/etc/a.pub"), tmp_path / "b.pub"]
    assert config.baseline == tmp_path / "b.json"
    assert config.state_dir == tmp_path / "../state"


def test_yaml_and_toml_say_the_same() -> None:
    assert load(COMPOSE / "flipback.yaml") == load(COMPOSE / "flipback.toml")


def test_the_sample_holds_the_seed_triggers(loaded: Loader) -> None:
    seeds = [(spec.name, spec.condition) for spec in loaded().trigger_specs()]
    assert [(spec.name, spec.condition) for spec in load(COMPOSE / "flipback.yaml").trigger_specs()][:4] == seeds


def test_the_sample_names_every_setting() -> None:
    """The sample loads with its commented settings enabled, and then has every field of every struct."""
    text = (COMPOSE / "flipback.yaml").read_text()
    text = re.sub(r"^( *)# (security:|keys:|  \w+: )", r"\1\2", text, flags=re.MULTILINE)
    data = yaml.safe_load(text)

    def missing(value: Any, struct: type[msgspec.Struct]) -> set[str]:
        return {field.encode_name for field in msgspec.structs.fields(struct)} - set(value)

    assert missing(data, Config) == set()
    assert missing(data["kafka"], KafkaSettings) == set()
    assert missing(data["kafka"]["security"], SecuritySettings) == set()
    for name, struct in (("command", CommandSettings), ("keys", KeySettings), ("web", WebSettings)):
        assert missing(data[name], struct) == set()
    assert missing(data["flags"][0], Flag) == set()
    assert missing(data["flags"][0]["triggers"][4], Trigger) == set()


def test_defaults_in_the_sample_are_the_defaults() -> None:
    sample = load(COMPOSE / "flipback.yaml")
    for struct in (sample, sample.kafka, sample.command, sample.web, sample.telemetry[0]):
        for field in msgspec.structs.fields(struct):
            if field.name in ("baseline", "state_dir") or field.required:
                continue
            default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
            assert getattr(struct, field.name) == default, field.name


def test_a_trigger_may_set_its_samples_grace_action_and_mode(loaded: Loader) -> None:
    slow = "name: slow, min_samples: 7, unknown_grace: 0s, action: hold, mode: shadow"
    config = loaded(("name: slow", slow), more="unknown_grace: 1m\n")
    first, second, *_ = config.trigger_specs()
    assert (first.min_samples, first.unknown_grace, first.action, first.shadow) == (900, 60, "rollback", False)
    assert (second.min_samples, second.unknown_grace, second.action, second.shadow) == (7, 0, "hold", True)
    assert type(first.unknown_grace) is int


@pytest.mark.parametrize(
    ("change", "more", "shadows"),
    [
        (("service:", "service:"), "", [False, False, False, False]),
        (("service:", "service:"), "mode: shadow\n", [True, True, True, True]),
        (("service:", "mode: shadow\n    service:"), "", [True, True, True, True]),
        (("name: slow", "name: slow, mode: shadow"), "", [False, True, False, False]),
        (("name: slow", "name: slow, mode: active"), "mode: shadow\n", [True, True, True, True]),
    ],
)
def test_shadow_wins_wherever_it_is_said(
    loaded: Loader, change: tuple[str, str], more: str, shadows: list[bool]
) -> None:
    assert [spec.shadow for spec in loaded(change, more=more).trigger_specs()] == shadows


def test_the_control_is_the_safe_variant_unless_another_is_named(loaded: Loader) -> None:
    relative = ("error_rate > 2%", "error_rate@on > 3x control")
    assert loaded(relative).trigger_specs()[0].control_scope == Scope(
        "production", "recommendations", "new-recommendations", "off"
    )
    named = loaded(relative, ("safe:", "control: old\n    safe:")).trigger_specs()
    assert named[0].control_variant == "old"
    assert named[1].control_variant is None


def test_a_baseline_is_given_to_the_conditions_that_compare_with_it(loaded: Loader, tmp_path: Path) -> None:
    stored = '{"production/recommendations": {"latency_p95": 812, "error_rate": 0.001}}'
    (tmp_path / "b.json").write_text(f'{{"apiVersion": "flipback/v1", "baseline": {stored}}}')
    specs = loaded(("latency_p95 > 45s", "latency_p95 > 1.5x baseline"), more="baseline: b.json\n").trigger_specs()
    assert [spec.baseline for spec in specs] == [None, 812.0, None, None]
    assert [spec.threshold for spec in specs] == [0.02, 1218.0, 0.4, 0.99]


def test_triggers_are_resolved_once_and_keep_the_baseline_they_began_with(loaded: Loader, tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    path.write_text('{"apiVersion": "flipback/v1", "baseline": {"production/recommendations": {"latency_p95": 812}}}')
    config = loaded(("latency_p95 > 45s", "latency_p95 > 1.5x baseline"), more="baseline: b.json\n")
    before = config.trigger_specs()
    path.unlink()
    assert config.trigger_specs() == before
    config.trigger_specs().clear()
    assert config.trigger_specs() == before
    shadow = msgspec.structs.replace(config, mode="shadow", baseline=None, flags=loaded().flags)
    assert all(spec.shadow for spec in shadow.trigger_specs())


def test_brokers_off_loopback_are_accepted_with_tls_or_when_plaintext_is_allowed(loaded: Loader) -> None:
    for security in ("{}", "{cafile: ca.pem}", "{allow_plaintext: true}"):
        config = loaded(("{brokers: [127.0.0.1:9092]}", f"{{brokers: ['kafka:9092'], security: {security}}}"))
        assert config.kafka.security is not None
    for broker in ("localhost:9092", "'[::1]:9092'", "127.8.8.8:9092"):
        assert loaded(("127.0.0.1:9092", broker)).kafka.security is None


@pytest.mark.parametrize(
    "change",
    [
        ("2% for 2m", "3% for 2m"),
        ("2% for 2m", "2% over 30s for 2m"),
        ("name: slow", "name: slow, min_samples: 9"),
        ("name: slow", "name: slow, min_samples: 280"),
        ("name: slow", "name: slow, max_window: 5m"),
        ("name: slow", "name: slow, fast: true"),
        ("name: errors", "name: errors, fast: false"),
        ("name: errors", "name: errors, false_alarms: 7d"),
        ("name: slow", "name: slow, action: alert"),
        ("name: slow", "name: slow, mode: shadow"),
        ("name: slow", "name: slower"),
        ('safe: "off"', "safe: old"),
        ("apiVersion", "evaluate_every: 2s\napiVersion"),
        ("apiVersion", "max_lateness: 3s\napiVersion"),
        ("apiVersion", "unknown_grace: 3s\napiVersion"),
    ],
)
def test_the_hash_changes_with_the_rules(loaded: Loader, change: tuple[str, str]) -> None:
    assert rules_hash(loaded(change)) != rules_hash(loaded())


def test_the_hash_stays_with_what_changes_no_verdict(loaded: Loader) -> None:
    base = rules_hash(loaded())
    assert re.fullmatch("[0-9a-f]{64}", base)
    errors = "      - {name: errors, when: error_rate > 2% for 2m}\n"
    assert rules_hash(loaded((errors, ""), ("1m}\n", "1m}\n" + errors))) == base
    assert rules_hash(loaded(("error_rate > 2% for 2m", "error_rate>0.02 over 60s for 120s"))) == base
    assert rules_hash(loaded(("name: slow", "name: slow, min_samples: auto, max_window: 600s, fast: false"))) == base
    assert rules_hash(loaded(("flags.json", "other.json"), more="evaluate_every: 1s\nweb: {port: 0}\n")) == base


def test_the_hash_is_stable_over_versions(loaded: Loader) -> None:
    # If it changes, commands in flight during an update are refused: the changelog must say so.
    assert rules_hash(loaded()) == "f2af8b3f21492781e29c90b972629df75b9945fcb96f05dd9cf26f47e21f520d"
