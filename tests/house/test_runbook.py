"""After the commands of the runbook, the backends read a flag as safe."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from agent.backends import flag_definition, settings

RUNBOOK = (Path(__file__).parents[2] / "docs" / "runbook.md").read_text()
RULES = {"if": [{"var": "beta"}, "on", "off"]}
BEFORE = {"state": "DISABLED", "variants": {"on": True, "off": False}, "defaultVariant": "on", "targeting": RULES}
NAMES = {
    "flagd-file": "flagd file",
    "firestore": "Firestore",
    "rtdb": "Realtime Database",
    "remote-config": "Remote Config",
    "unleash": "Unleash",
    "webhook": "Webhook",
}


def part(kind: str) -> str:
    """Return the runbook's text on a flag system."""
    _, _, rest = RUNBOOK.partition(f"**{NAMES[kind]}.**")
    return re.split(r"^\*\*|^## ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def bodies(kind: str) -> list[dict[str, Any]]:
    return [json.loads(body) for body in re.findall(r"-d '(\{.*?\})'$", part(kind), re.MULTILINE)]


def test_every_kind_of_flag_system_has_a_way_by_hand() -> None:
    kinds = {kind.__struct_config__.tag for kind in settings.Backend.__args__}
    assert kinds == set(NAMES)
    assert all(len(part(str(kind))) > 50 for kind in kinds)


def test_what_is_sent_to_the_realtime_database_makes_the_flag_safe() -> None:
    assert len(bodies("rtdb")) == 2
    for body in bodies("rtdb"):
        merged = {name: value for name, value in {**BEFORE, **body}.items() if value is not None}
        assert flag_definition.variant(merged) == "off"


def test_what_is_sent_to_firestore_makes_the_flag_safe() -> None:
    (body,) = bodies("firestore")
    masked = re.findall(r"updateMask\.fieldPaths=(\w+)", part("firestore"))
    sent = {name: value["stringValue"] for name, value in body["fields"].items()}
    merged = {name: value for name, value in BEFORE.items() if name not in masked} | sent
    assert flag_definition.variant(merged) == "off"


@pytest.mark.parametrize("command", ["rollback FLAG", "halt", "resume", "restore INCIDENT"])
def test_the_runbook_names_what_flipback_can_do_itself(command: str) -> None:
    assert re.search(rf"^    flipback {command} -c flipback.yaml .*--reason", RUNBOOK, re.MULTILINE)
