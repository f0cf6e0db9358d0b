"""Monitor and executor, wired by what they publish: a flag turned on again is turned back as soon as it may be."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.commands.keys import PrivateKey
from agent.config.flags import Flag, Trigger, When
from agent.decisions.blame import Blame, BlameRules, JudgedFlags
from agent.decisions.commander import Commander, CommanderOutputs
from agent.decisions.issuing import IssueSettings
from agent.decisions.turns import AutomationLimit
from agent.events.cloudevents import COMMAND_REJECTED, INABILITY, Event
from agent.executor.result_publisher import ResultPublisher
from agent.state.incidents import CommandResult, Incident, encode
from agent.state.state_tables import StateTables
from detectors.conditions.grammar import parse
from tests.unit.agent.decisions.test_commander import evidence, spec
from tests.unit.agent.executor.test_executor import COOLDOWN, KEY, REF, Desk

WHEN = "error_rate > 2% over 10s for 5s"
FLAG = Flag(
    flag=REF.flag, service="shop", backend="files", safe="off", triggers=[Trigger(name="errors", when=When(WHEN))]
)
SPEC = replace(spec(), flag=REF.flag, condition=parse(WHEN))


@dataclass
class Pair:
    """A monitor that signs with `key`, and an executor on a flag that fails whenever it is on."""

    directory: Path
    key: PrivateKey = KEY
    skew: float = 0.0
    events: list[Event] = field(default_factory=list)
    written: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.now = 1_700_000_000.0
        self.known = StateTables()
        self.desk = Desk(self.directory / "ledger")
        self.results = ResultPublisher(self._result)
        self.commander = Commander(
            {(FLAG.environment, FLAG.flag): FLAG},
            self.known,
            IssueSettings(self.key, rules_hash="r", lifetime=60.0),
            outputs=CommanderOutputs(command=self._command, incident=self._incident, event=self._event),
            clock=lambda: self.now,
            blame=Blame(lambda: JudgedFlags({}, 0.0), BlameRules(3600, 120, AutomationLimit(1, 600.0))),
        )

    async def _command(self, key: bytes, raw: bytes) -> None:
        before = len(self.desk.backend.writes)
        result = await self.desk.execute(raw)
        if len(self.desk.backend.writes) > before:
            self.written.append(self.now)
        await self.results.publish(raw, result, self.desk.now)

    async def _incident(self, incident: Incident) -> None:
        self.known.incident(encode(incident))

    async def _result(self, result: CommandResult) -> None:
        self.known.incident(encode(result))

    async def _event(self, event: Event) -> None:
        self.events.append(event)

    async def run(self, seconds: int, **turned_on: int) -> None:
        """Let time pass; the flag is turned on at the seconds named."""
        start, begun = int(self.now), None
        for t in range(start, start + seconds):
            self.now, self.desk.now = float(t), t + self.skew
            if t - start in turned_on.values():
                self.desk.backend.edit("on")
            status = self.known.see(await self.desk.executor.read_flag(*REF))
            if status.safe:
                begun = None
                continue
            begun = t if begun is None else begun
            if t - begun >= 5:
                await self.commander.firing(t, [evidence(t, of=SPEC, since=float(begun))])

    def flips(self, since: float) -> list[float]:
        return [at - since for at in self.written]

    def reasons(self) -> list[str]:
        return [event.data["reason"] for event in self.events if event.type == INABILITY]


@pytest.mark.parametrize("skew", [0.0, 3.0, -3.0])
async def test_a_flag_turned_on_in_its_cooldown_is_turned_back_when_that_is_over(tmp_path: Path, skew: float) -> None:
    pair = Pair(tmp_path, skew=skew)
    start = pair.now
    await pair.run(120, undone=20)
    first, second = pair.flips(start)
    assert first == 5
    assert first + COOLDOWN <= second <= first + COOLDOWN + 3
    assert pair.reasons() == []
    refused = [event.data["reason"] for event in pair.desk.told if event.type == COMMAND_REJECTED]
    assert refused == ["cooldown"]


async def test_somebody_who_undoes_each_flip_is_told_of_as_a_fight(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    await pair.run(300, one=20, two=90, three=160)
    assert len(pair.written) >= 3
    (reason, *_) = pair.reasons()
    assert "flip 3 of the flag" in reason


async def test_an_executor_that_does_not_know_the_key_is_heard_in_a_second(tmp_path: Path) -> None:
    pair = Pair(tmp_path, key=PrivateKey(Ed25519PrivateKey.generate()))
    await pair.run(8)
    assert pair.written == []
    (reason,) = pair.reasons()
    assert "refused, unknown-key: signed with key" in reason


async def test_a_flip_leaves_nothing_to_be_told(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    start = pair.now
    await pair.run(120)
    told: list[Any] = pair.reasons()
    assert (pair.flips(start), told) == ([5], [])
    assert [one.outcome for one in pair.known.results.values()] == ["applied"]
