"""A real OpenFeature client of a flagd file sees the changes that flipback makes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.contrib.provider.flagd import FlagdProvider
from openfeature.contrib.provider.flagd.config import ResolverType
from openfeature.evaluation_context import EvaluationContext

from agent.backends import settings
from agent.backends.contract import Outcome
from agent.backends.flagd.backend import FlagdFileBackend
from agent.control.restore import flipped, restore
from agent.events.cloudevents import Event
from agent.executor.executor import Executor
from agent.executor.limits import FlipRate
from agent.executor.settings import FlipPace, Permissions
from agent.ledger.automation import Automation
from agent.ledger.ledger import Ledger
from agent.state.flags import FlagWatch
from tests.unit.agent.executor.test_executor import KEY, MANAGED, REF, command, signed

FLAG = "new-checkout"
OP = "operation"


class Shop:
    """A flagd file, an executor that changes it, and an application that evaluates its flag."""

    def __init__(self, directory: Path, definition: dict[str, object]) -> None:
        self.path = directory / "flags.json"
        other = {"state": "ENABLED", "variants": {"a": "A", "b": "B"}, "defaultVariant": "a"}
        self.path.write_text(json.dumps({"flags": {"other": other, FLAG: definition}}, indent=1))
        self.backend = FlagdFileBackend(settings.FlagdFile(path=self.path))
        self.ledger = Ledger(directory / "ledger")
        self.events: list[Event] = []
        self.executor = Executor(
            Permissions([MANAGED], {"files": self.backend}, {KEY.id: KEY.public}),
            self.ledger,
            Automation(directory),
            FlipPace(FlipRate(1, 600.0), cooldown_s=60.0),
            watch=FlagWatch(),
            emit=self.emit,
            now=lambda: 1001.0,
        )
        # The client polls the file at the interval `deadline_ms`.
        provider = FlagdProvider(
            resolver_type=ResolverType.FILE, offline_flag_source_path=str(self.path), deadline_ms=20
        )
        api.set_provider_and_wait(provider, domain=str(directory))
        self.client: OpenFeatureClient = api.get_client(domain=str(directory))

    async def emit(self, event: Event) -> None:
        self.events.append(event)

    def share(self, default: bool, subjects: int = 200) -> float:
        """The share of subjects that get the new path; `default` is the default in the application's code."""
        values = [
            self.client.get_boolean_value(FLAG, default, EvaluationContext(targeting_key=f"user-{subject}"))
            for subject in range(subjects)
        ]
        return sum(values) / subjects

    async def flip(self) -> str:
        status = await self.executor.read_flag(FLAG, "production")
        assert (await self.executor.execute(signed(flag_version=status.version))).outcome is Outcome.APPLIED
        return command(flag_version=status.version).incident

    async def close(self) -> None:
        self.executor.close()
        await self.backend.close()


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not condition():  # the client has no event to wait for
            await asyncio.sleep(0.01)


VARIANTS: dict[str, object] = {"variants": {"on": True, "off": False}}
DEFINITIONS: dict[str, dict[str, object]] = {
    "on for all": {"state": "ENABLED", **VARIANTS, "defaultVariant": "on"},
    "on by a rule": {
        "state": "ENABLED",
        **VARIANTS,
        "defaultVariant": "off",
        "targeting": {"if": [{"in": ["user", {"var": "targetingKey"}]}, "on", "off"]},
    },
    "on for half": {
        "state": "ENABLED",
        **VARIANTS,
        "defaultVariant": "off",
        "targeting": {"fractional": [["on", 50], ["off", 50]]},
    },
    "disabled, and on in the application's code": {"state": "DISABLED", **VARIANTS, "defaultVariant": "on"},
    "without a default, and on in the application's code": {"state": "ENABLED", **VARIANTS},
}


@pytest.fixture(params=DEFINITIONS)
async def shop(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shop]:
    shop = Shop(tmp_path, DEFINITIONS[request.param])
    yield shop
    await shop.close()
    api.clear_providers()


async def test_a_client_sees_the_flag_off_after_a_flip_and_as_before_after_a_restore(shop: Shop) -> None:
    before, content = shop.share(default=True), shop.path.read_bytes()
    assert before > 0.4
    incident = await shop.flip()
    await eventually(lambda: shop.share(default=True) == 0)
    assert shop.client.get_string_value("other", "neither") == "A"
    (entry,) = flipped(shop.ledger, incident)
    await restore(shop.ledger, {"files": shop.backend}, entry, reason="fixed", by="ann", now=time.time)
    await eventually(lambda: shop.share(default=True) == before)
    assert shop.path.read_bytes() == content


async def test_a_client_gives_a_percentage_to_its_share_and_keeps_those_it_had(tmp_path: Path) -> None:
    shop = Shop(tmp_path, DEFINITIONS["on for all"])

    def treated() -> set[int]:
        keys = [EvaluationContext(targeting_key=f"user-{subject}") for subject in range(2000)]
        return {at for at, key in enumerate(keys) if shop.client.get_boolean_value(FLAG, True, key)}

    async def set_percent(percent: float) -> set[int]:
        before = shop.share(default=True)
        deadline = time.monotonic() + 60
        version = (await shop.backend.read(REF, deadline=deadline)).version
        await shop.backend.set_percent(REF, "on", "off", percent, expect=version, op_id=OP, deadline=deadline)
        await eventually(lambda: shop.share(default=True) != before)
        return treated()

    few, some, half = await set_percent(1), await set_percent(10), await set_percent(50)
    assert few < some < half
    # The limits are four standard deviations of a share of 2,000 subjects.
    assert 0.073 < len(some) / 2000 < 0.127
    assert 0.455 < len(half) / 2000 < 0.545
    await shop.close()
    api.clear_providers()
