"""From a firing trigger to a command: once per incident, only on evidence of the flag's present version, and with an
announcement if nothing is commanded."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.commands.command import Cause, Command, Evidence, verify
from agent.commands.keys import PrivateKey
from agent.config.flags import Flag, Trigger, When
from agent.decisions.blame import Blame, BlameRules, JudgedFlags
from agent.decisions.commander import Commander, CommanderOutputs
from agent.decisions.follow_up import UNSEEN_AFTER
from agent.decisions.issuing import IssueSettings, for_command
from agent.decisions.turns import AutomationLimit
from agent.events.cloudevents import COMMAND_SHADOWED, INABILITY, Event
from agent.state.flags import FlagStatus
from agent.state.incidents import Incident, encode
from agent.state.state_tables import StateTables
from detectors.conditions.grammar import parse
from detectors.conditions.spec import Action, TriggerSpec
from streams.monitor.evidence import FRESH_SECONDS, FiringEvidence, TierName
from streams.monitor.observer import Exposure

T = 1_700_000_000
KEY = PrivateKey(Ed25519PrivateKey.generate())
FLAG = Flag(
    flag="new",
    service="shop",
    backend="files",
    safe="off",
    triggers=[Trigger(name="errors", when=When("error_rate > 2% for 20s"))],
)
LIFETIME = 60.0


def spec(*, name: str = "errors", action: Action = "rollback", shadow: bool = False) -> TriggerSpec:
    return TriggerSpec(
        name=name,
        flag="new",
        environment="production",
        service="shop",
        condition=parse("error_rate > 2% for 20s"),
        safe_variant="off",
        min_samples=30,
        action=action,
        shadow=shadow,
    )


def evidence(t: int = T, *, of: TriggerSpec | None = None, since: float = T - 20, **changes: Any) -> FiringEvidence:
    whole = FiringEvidence(
        spec=of or spec(),
        t=t,
        window=(t - 10.0, float(t)),
        value=0.5,
        threshold=0.02,
        control=None,
        samples=100,
        counts={"requests": 100, "errors": 50},
        sources=2,
        instances=["i-1", "i-2"],
        age=2.0,
        first_true_at=since,
        fresh=True,
        obstacle=None,
    )
    return replace(whole, **changes)


def status(version: str = "g1-a", *, changed_at: float | None = None, safe: bool = False) -> FlagStatus:
    return FlagStatus(
        flag="new",
        environment="production",
        version=version,
        variant="off" if safe else "on",
        safe=safe,
        at=float(T),
        changed_at=changed_at,
    )


@dataclass
class Bench:
    """A commander whose topics are lists; `broken` names the output that fails."""

    known: StateTables = field(default_factory=StateTables)
    now: float = T + 2.0
    broken: str = ""
    flags: list[Flag] = field(default_factory=lambda: [FLAG])
    watched: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    limit: AutomationLimit = field(default_factory=lambda: AutomationLimit(9, 600.0))
    written: list[tuple[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.commander = Commander(
            {(flag.environment, flag.flag): flag for flag in self.flags},
            self.known,
            IssueSettings(KEY, rules_hash="r", lifetime=LIFETIME),
            outputs=CommanderOutputs(command=self._command, incident=self._incident, event=self._event),
            clock=lambda: self.now,
            blame=Blame(lambda: JudgedFlags(self.watched, math.inf), BlameRules(3600, 120, self.limit)),
        )

    def see(self, seen: FlagStatus) -> None:
        self.known.flag(encode(seen))

    async def _write(self, what: str, value: Any) -> None:
        if what == self.broken:
            raise ConnectionError(what)
        await asyncio.sleep(0)
        self.written.append((what, value))

    async def _command(self, key: bytes, value: bytes) -> None:
        command = verify(value, {KEY.id: KEY.public})
        assert isinstance(command, Command)
        assert key.decode() == f"production/{command.flag}"
        await self._write("command", command)

    async def _incident(self, incident: Incident) -> None:
        await self._write("incident", incident)

    async def _event(self, event: Event) -> None:
        await self._write("event", event)

    def of(self, what: str) -> list[Any]:
        return [value for kind, value in self.written if kind == what]


async def test_a_firing_trigger_becomes_one_signed_command_and_then_its_incident() -> None:
    bench = Bench()
    bench.see(status())
    for t in range(T, T + 5):
        await bench.commander.firing(T, [evidence(t)])
    assert [kind for kind, _ in bench.written] == ["command", "incident"]
    (command,), (incident,) = bench.of("command"), bench.of("incident")
    assert (command.flag, command.target, command.flag_version) == ("new", "off", "g1-a")
    assert (command.issued_at, command.expires_at) == (T + 2.0, T + 2.0 + LIFETIME)
    assert command.evidence.counts == {"requests": 100, "errors": 50}
    assert (incident.id, incident.command, incident.fired_at) == (command.incident, command.id, T)


async def test_an_incident_keeps_what_fired_for_those_who_look_after_the_flip() -> None:
    bench = Bench()
    bench.see(status())
    before = Exposure(others=5.0, variants=10.0, requests=20.0)
    await bench.commander.firing(T, [evidence(exposure=lambda: before)])
    (incident,) = bench.of("incident")
    assert (incident.metric, incident.scope, incident.op) == ("error_rate", "production/shop", ">")
    assert (incident.value, incident.threshold, incident.before) == (0.5, 0.02, before)


async def test_a_crash_between_command_and_incident_sends_the_same_command_again() -> None:
    first = Bench(broken="incident")
    first.see(status())
    with pytest.raises(ConnectionError):
        await first.commander.firing(T, [evidence()])
    second = Bench(now=T + 9.0)
    second.see(status())
    await second.commander.firing(T, [evidence(T + 7)])
    assert [c.id for c in first.of("command")] == [c.id for c in second.of("command")]
    assert len(second.of("incident")) == 1


async def test_a_command_that_was_not_acknowledged_latches_nothing() -> None:
    bench = Bench(broken="command")
    bench.see(status())
    with pytest.raises(ConnectionError):
        await bench.commander.firing(T, [evidence()])
    bench.broken = ""
    await bench.commander.firing(T, [evidence(T + 1)])
    assert [kind for kind, _ in bench.written] == ["command", "incident"]


async def test_who_takes_over_knows_the_incident_from_its_topic() -> None:
    first = Bench()
    first.see(status())
    await first.commander.firing(T, [evidence()])
    second = Bench()
    second.see(status())
    second.known.incident(encode(first.of("incident")[0]))
    await second.commander.firing(T, [evidence(T + 1)])
    assert second.written == []


async def test_two_shards_that_tell_of_one_incident_at_the_same_time_make_one_command() -> None:
    bench = Bench()
    bench.see(status())
    other = replace(spec(), service="search")
    await asyncio.gather(bench.commander.firing(T, [evidence()]), bench.commander.firing(T, [evidence(of=other)]))
    assert len(bench.of("command")) == len(bench.of("incident")) == 1


async def test_every_trigger_has_an_incident_of_its_own() -> None:
    bench = Bench()
    bench.see(status())
    await bench.commander.firing(T, [evidence()])
    await bench.commander.firing(T, [evidence(of=spec(name="slow"))])
    assert len({command.id for command in bench.of("command")}) == 2


async def test_a_flag_that_is_safe_needs_no_command() -> None:
    bench = Bench()
    bench.see(status(safe=True))
    await bench.commander.firing(T, [evidence()])
    assert bench.written == []


@pytest.mark.parametrize("action", ["hold", "alert"])
async def test_only_rollback_commands(action: Action) -> None:
    bench = Bench()
    bench.see(status())
    await bench.commander.firing(T, [evidence(of=spec(action=action))])
    assert bench.written == []


async def test_a_shadow_trigger_tells_what_it_would_have_sent_once() -> None:
    bench = Bench()
    bench.see(status())
    for t in (T, T + 1, T + 500):
        bench.now = t + 2.0
        await bench.commander.firing(T, [evidence(t, of=spec(shadow=True))])
    assert [kind for kind, _ in bench.written] == ["incident", "event"]
    assert bench.of("incident")[0].outcome == "shadow"
    assert bench.of("event")[0].type == COMMAND_SHADOWED


async def test_a_flag_whose_state_nobody_told_is_announced_and_not_guessed() -> None:
    bench = Bench()
    for t in range(T, T + 3):
        await bench.commander.firing(T, [evidence(t)])
    (event,) = bench.of("event")
    assert event.type == INABILITY
    assert "executor" in event.data["reason"]
    assert bench.of("command") == []


async def test_evidence_that_is_not_enough_commands_nothing_and_says_why_once() -> None:
    bench = Bench()
    bench.see(status())
    for t in range(T, T + 3):
        await bench.commander.firing(T, [evidence(t, obstacle=f"the newest sample is {t - T + 16} s old")])
    (event,) = bench.of("event")
    assert (event.type, event.data["reason"]) == (INABILITY, "the newest sample is 16 s old")
    assert bench.of("command") == []
    await bench.commander.firing(T, [evidence(T + 3)])
    assert len(bench.of("command")) == 1


async def test_a_flag_still_not_safe_30_s_after_its_command_is_announced_once() -> None:
    bench = Bench()
    bench.see(status())
    await bench.commander.firing(T, [evidence()])
    for passed in (1.0, UNSEEN_AFTER, UNSEEN_AFTER + 0.1, UNSEEN_AFTER + 1):
        bench.now = T + 2.0 + passed
        await bench.commander.firing(T, [evidence(T + int(passed))])
        assert len(bench.of("event")) == (1 if passed > UNSEEN_AFTER else 0)
    assert bench.of("event")[0].type == INABILITY


async def test_a_command_that_expired_unseen_is_sent_anew_under_its_id() -> None:
    bench = Bench()
    bench.see(status())
    await bench.commander.firing(T, [evidence()])
    bench.now += LIFETIME
    await bench.commander.firing(T, [evidence(T + 60)])
    assert len(bench.of("command")) == 1
    bench.now += 10
    await bench.commander.firing(T, [evidence(T + 70)])
    first, second = bench.of("command")
    assert first.id == second.id
    assert second.expires_at == bench.now + LIFETIME


async def test_a_flag_that_a_person_turned_on_again_is_not_overruled_by_the_old_window() -> None:
    bench = Bench()
    bench.see(status("g3-a", changed_at=T + 100.0))
    # The condition is true since long before the change, so it needs its hold and a fresh breach under the new version.
    for t in range(T + 100, T + 120):
        await bench.commander.firing(T, [evidence(t, since=T - 20)])
    await bench.commander.firing(T, [evidence(T + 130, since=T - 20, fresh=False)])
    assert bench.written == []
    await bench.commander.firing(T, [evidence(T + 131, since=T - 20)])
    assert [command.flag_version for command in bench.of("command")] == ["g3-a"]


async def test_after_a_change_fresh_seconds_are_waited_for_even_where_the_hold_is_shorter() -> None:
    bench = Bench()
    bench.see(status("g3-a", changed_at=T + 100.0))
    short = replace(spec(), condition=parse("error_rate > 2% over 60s for 5s"))
    await bench.commander.firing(T, [evidence(T + 100 + FRESH_SECONDS - 1, of=short, since=T - 20)])
    assert bench.written == []
    await bench.commander.firing(T, [evidence(T + 100 + FRESH_SECONDS, of=short, since=T - 20)])
    assert len(bench.of("command")) == 1


async def test_a_breach_that_began_after_the_change_is_the_ordinary_case() -> None:
    bench = Bench()
    bench.see(status("g3-a", changed_at=T + 100.0))
    await bench.commander.firing(T, [evidence(T + 122, since=T + 102.0)])
    assert len(bench.of("command")) == 1


async def test_a_new_version_of_the_flag_is_a_new_incident() -> None:
    bench = Bench()
    bench.see(status("g1-a"))
    await bench.commander.firing(T, [evidence()])
    bench.see(status("g2-off", changed_at=T + 3.0, safe=True))
    await bench.commander.firing(T, [evidence(T + 4)])
    bench.see(status("g3-a", changed_at=T + 50.0))
    await bench.commander.firing(T, [evidence(T + 90, since=T + 60.0)])
    first, second = bench.of("incident")
    assert first.id != second.id
    assert (first.flag_version, second.flag_version) == ("g1-a", "g3-a")


def test_what_is_not_readable_in_the_tables_is_counted_and_changes_nothing() -> None:
    known = StateTables()
    known.flag(encode(status("g2-a")))
    known.flag(b"{}")
    known.flag(None)
    known.incident(b"nonsense")
    assert known.unreadable == 3
    assert known.flags["production", "new"].version == "g2-a"


def group(*together: str) -> list[Flag]:
    """Return the flag with its companions, each in its own service and backend."""
    others = [
        Flag(flag=name, service=f"{name}-service", backend=f"{name}-files", safe=f"{name}-off", triggers=FLAG.triggers)
        for name in together
    ]
    return [msgspec.structs.replace(FLAG, together=list(together)), *others]


def of_flag(name: str, version: str, *, safe: bool = False) -> FlagStatus:
    return msgspec.structs.replace(status(version, safe=safe), flag=name)


async def test_each_flag_of_a_group_has_a_command_of_its_own_in_one_incident() -> None:
    bench = Bench(flags=group("a", "b"))
    for seen in (status("g1-x"), of_flag("a", "g4-y"), of_flag("b", "g9-z", safe=True)):
        bench.see(seen)
    for t in range(T, T + 5):
        await bench.commander.firing(T, [evidence(t)])
    assert [kind for kind, _ in bench.written] == ["command", "command", "command", "incident"]
    first, second, third = bench.of("command")
    assert (first.flag, first.flag_version, first.cause) == ("new", "g1-x", None)
    assert (second.flag, second.flag_version, second.cause) == ("a", "g4-y", Cause(flag="new", flag_version="g1-x"))
    assert (second.service, second.backend, second.target) == ("a-service", "a-files", "a-off")
    assert (third.flag, third.flag_version) == ("b", "g9-z")
    assert {made.incident for made in bench.of("command")} == {bench.of("incident")[0].id}
    assert len({made.id for made in bench.of("command")}) == 3
    assert bench.of("incident")[0].command == first.id
    assert {made.evidence.value for made in bench.of("command")} == {0.5}


async def test_a_companion_of_unknown_state_is_announced_and_the_others_are_commanded() -> None:
    bench = Bench(flags=group("a", "b"))
    bench.see(status("g1-x"))
    bench.see(of_flag("b", "g9-z"))
    for t in range(T, T + 3):
        await bench.commander.firing(T, [evidence(t)])
    assert [made.flag for made in bench.of("command")] == ["new", "b"]
    (event,) = bench.of("event")
    assert event.type == INABILITY
    assert "'a'" in event.data["reason"]


async def test_a_crash_in_the_middle_of_a_group_sends_the_same_commands_again() -> None:
    first = Bench(flags=group("a"), broken="incident")
    second = Bench(flags=group("a"))
    for bench in (first, second):
        bench.see(status("g1-x"))
        bench.see(of_flag("a", "g4-y"))
    with pytest.raises(ConnectionError):
        await first.commander.firing(T, [evidence()])
    # Somebody changed the companion meanwhile: the same command is sent, with the companion's new version.
    second.see(of_flag("a", "g5-y"))
    await second.commander.firing(T, [evidence(T + 1)])
    assert [made.id for made in first.of("command")] == [made.id for made in second.of("command")]
    assert second.of("command")[1].flag_version == "g5-y"


async def test_in_shadow_mode_every_flag_of_a_group_is_told_of_and_none_commanded() -> None:
    bench = Bench(flags=group("a"))
    bench.see(status("g1-x"))
    bench.see(of_flag("a", "g4-y"))
    await bench.commander.firing(T, [evidence(of=spec(shadow=True))])
    assert bench.of("command") == []
    assert [event.subject for event in bench.of("event")] == ["production/new", "production/a"]


@pytest.mark.parametrize("tier", ["fast", "proof"])
async def test_evidence_that_was_gathered_since_the_change_needs_no_hold(tier: TierName) -> None:
    bench = Bench()
    bench.see(status("g2-b", changed_at=T - 3.5))
    gathered = replace(evidence(fresh=False), tier=tier, evidence=20.5, bound=14.8, null_rate=0.1)
    await bench.commander.firing(T, [replace(gathered, since=T - 4.0)])
    assert bench.of("command") == [], "a second of it is of the version before"
    await bench.commander.firing(T, [replace(gathered, since=T - 3.0)])
    (command,) = bench.of("command")
    told = command.evidence
    assert (told.tier, told.evidence, told.bound, told.null_rate, told.since) == (tier, 20.5, 14.8, 0.1, T - 3.0)


def test_evidence_without_a_tier_is_of_a_condition_that_was_held() -> None:
    whole = msgspec.to_builtins(for_command(evidence()))
    for name in ("tier", "evidence", "bound", "null_rate", "since"):
        del whole[name]
    assert msgspec.convert(whole, Evidence) == for_command(evidence())


async def test_a_flag_that_was_turned_on_by_a_clock_that_is_ahead_is_turned_back_all_the_same() -> None:
    bench = Bench(known=StateTables(lambda: T + 2.0))
    bench.see(status())
    bench.see(status("g2-b", changed_at=T + 3600.0))
    for second in range(T, T + 30):
        bench.now = second + 2.0
        await bench.commander.firing(second, [evidence(second, since=T - 20)])
    assert [command.flag_version for command in bench.of("command")] == ["g2-b"]
