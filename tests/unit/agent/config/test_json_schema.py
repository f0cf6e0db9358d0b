"""The published JSON Schema accepts what the decoder accepts, and rejects the same wrong shapes and names."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from agent.config.json_schema import schema
from agent.config.load import check

COMPOSE = Path(__file__).parents[4] / "compose"
SAMPLE = yaml.safe_load((COMPOSE / "flipback.yaml").read_text())
VALIDATOR = jsonschema.Draft202012Validator(schema())


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


def test_the_samples_hold_to_the_schema() -> None:
    VALIDATOR.validate(SAMPLE)
    VALIDATOR.validate(tomllib.loads((COMPOSE / "flipback.toml").read_text()))


def test_what_the_schema_calls_default_may_be_written() -> None:
    """The sample is still valid with every default written out."""
    made = schema()["$defs"]
    whole = copy.deepcopy(SAMPLE)
    for target, name in (
        (whole, "Config"),
        (whole["kafka"], "KafkaSettings"),
        (whole["command"], "CommandSettings"),
        (whole["web"], "WebSettings"),
        (whole["telemetry"][0], "TelemetrySettings"),
        (whole["flags"][0]["triggers"][0], "Trigger"),
    ):
        for setting, shape in made[name]["properties"].items():
            if "default" in shape and setting not in ("kafka", "command", "web", "baseline"):
                target[setting] = shape["default"]
        optional = {s for s in made[name]["properties"] if s not in made[name]["required"]}
        assert all("default" in made[name]["properties"][setting] for setting in optional)
    VALIDATOR.validate(whole)


def test_every_setting_is_described() -> None:
    for name, struct in schema()["$defs"].items():
        assert struct["description"], name


def change(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    *parents, last = (int(part) if part.isdigit() else part for part in path.split("."))

    def apply(config: Any) -> None:
        for parent in parents:
            config = config[parent]
        config[last] = value

    return apply


@pytest.mark.parametrize(
    "broken",
    [
        change("apiVersion", "flipback/v2"),
        change("wibble", 1),
        change("kafka", None),
        change("kafka.brokers", []),
        change("kafka.brokers", "127.0.0.1:9092"),
        change("kafka.prefix", "a.b"),
        change("kafka.create_topics", "yes"),
        change("kafka.security", {"mechanism": "MD5"}),
        change("telemetry.0.format", "xml"),
        change("telemetry.0.topic", "a b"),
        change("telemetry", []),
        change("backends.files.kind", "other"),
        change("backends.files", {"path": "x"}),
        change("backends", {}),
        change("flags.0.safe", False),
        change("flags.0.safe", ""),
        change("flags.0.service", "shop\n"),
        change("flags.0.environment", "a/b"),
        change("flags.0.triggers", []),
        change("flags.0.triggers.0.when", "error_rate >= 2%"),
        change("flags.0.triggers.0.when", "Error > 2%"),
        change("flags.0.triggers.0.min_samples", -1),
        change("flags.0.triggers.0.min_samples", "30"),
        change("flags.0.triggers.0.action", "panic"),
        change("flags.0.triggers.0.whn", "x"),
        change("mode", "dry"),
        change("evaluate_every", 1),
        change("max_lateness", "2 s"),
        change("max_lateness", "soon"),
        change("state_dir", ""),
        change("max_scopes", 0),
        change("web.port", 70_000),
    ],
)
def test_schema_and_decoder_refuse_the_same(broken: Callable[[dict[str, Any]], None], tmp_path: Path) -> None:
    config = copy.deepcopy(SAMPLE)
    config["baseline"] = str(COMPOSE / config["baseline"])
    VALIDATOR.validate(config)
    broken(config)
    assert not VALIDATOR.is_valid(config)
    path = tmp_path / "flipback.yaml"
    path.write_text(yaml.safe_dump(config))
    assert check(path)[1]
