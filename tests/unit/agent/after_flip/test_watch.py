"""The watch after a flip, on windows fed second by second: what is judged, when, and that it is published once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import msgspec
import pytest

from agent.after_flip.rules import PATIENCE
from agent.after_flip.watch import AfterFlipWatch, lookback
from agent.config.flags import Flag, Trigger, When
from agent.config.model import AfterFlipSettings
from agent.events.cloudevents import (
    FLAG_EFFECT_UNKNOWN,
    FLAG_EFFECTIVE,
    FLAG_INEFFECTIVE,
    FLAG_NOT_RECOVERED,
    FLAG_RECOVERED,
    FLAG_RECOVERY_UNKNOWN,
    Event,
)
from agent.state.flags import FlagStatus
from agent.state.incidents import AfterFlip, CommandResult, Incident, ResultOutcome, encode
from agent.state.state_tables import StateTables
from detectors.cells import Scope
from detectors.conditions.grammar import parse
from detectors.conditions.spec import TriggerSpec
from streams.monitor.observer import Exposure
from streams.monitor.settings import ShardSettings
from streams.monitor.shard import Shard
from streams.settings import Seconds
from tests.support.cells import Cell, cells
from tests.unit.streams.monitor.test_shard import said

T = 1_700_000_000
EFFECT, BAKE = 20.0, 40.0
FLIP = T + 30
"""When the flag was seen safe; traffic begins at T."""
END = FLIP + int(BAKE + PATIENCE) + 20
"""When nothing of the flip is open any more."""

FLAG = Flag(
    flag="new",
    service="shop",
    backend="files",
    safe="off",
    triggers=[Trigger(name="errors", when=When("error_rate > 20% over 10s for 5s"))],
)


def spec(when: str = "error_rate > 20% over 10s for 5s", service: str = "shop") -> TriggerSpec:
    return TriggerSpec(
        name="errors",
        flag="new",
        environment="production",
        service=service,
        condition=parse(when),
        safe_variant="off",
        min_samples=30,
    )


INCIDENT = Incident(
    id="i",
    environment="production",
    flag="new",
    service="shop",
    trigger="errors",
    flag_version="g1-a",
    outcome="commanded",
    command="c",
    fired_at=float(FLIP - 2),
    commanded_at=float(FLIP - 1),
    expires_at=float(FLIP + 59),
    metric="error_rate",
    scope="production/shop",
    op=">",
    value=0.5,
    threshold=0.2,
    before=Exposure(10.0, 20.0, 20.0),
)
SAFE = FlagStatus(
    flag="new",
    environment="production",
    version="g2-off",
    variant="off",
    safe=True,
    at=float(FLIP),
    changed_at=float(FLIP),
)

Arms = Mapping[str, tuple[int, int]]
"""Requests and errors in a second by variant; "" means requests without a variant."""

BEFORE: Arms = {"on": (10, 10), "off": (10, 0)}
OBEYED: Arms = {"off": (20, 0)}
IGNORED = BEFORE
SILENT: Arms = {}


@dataclass
class Bench:
    """A shard with its watch, whose topics are lists. `now` is the end of the last second fed."""

    known: StateTables = field(default_factory=StateTables)
    specs: tuple[TriggerSpec, ...] = (spec(),)
    now: int = T
    events: list[Event] = field(default_factory=list)
    records: list[AfterFlip] = field(default_factory=list)
    others: list[Bench] = field(default_factory=list)
    """Whose watches judge the seconds of this shard too."""

    def __post_init__(self) -> None:
        self.shard = Shard(
            0,
            self.specs,
            ["requests"],
            ShardSettings(max_scopes=50, evaluate_every=1, catching_up_after=15.0),
        )
        self.watch = AfterFlipWatch(
            {("production", "new"): FLAG},
            self.known,
            AfterFlipSettings(effect=Seconds(EFFECT), bake=Seconds(BAKE)),
            self._publish,
        )

    def _publish(self, event: Event, said: AfterFlip) -> None:
        self.events.append(event)
        self.records.append(said)

    async def feed(self, until: int, arms: Arms, *, lag: float = 2.0, service: str = "shop") -> None:
        """Feed traffic up to `until`; each second arrives `lag` seconds after its end."""
        await self.feed_all(until, {service: arms}, lag=lag)

    async def feed_all(self, until: int, services: Mapping[str, Arms], *, lag: float = 2.0) -> None:
        while self.now < until:
            rows = []
            for service, arms in services.items():
                whole = [sum(n) for n in zip(*arms.values(), strict=True)] if arms else []
                if whole:
                    rows.append((Scope("production", service), _cell(*whole)))
                rows += [
                    (Scope("production", service, "new", variant), _cell(*counts))
                    for variant, counts in arms.items()
                    if variant
                ]
            block = [cells(self.now, *rows)] if rows else []
            self.now += 1
            for second in self.shard.take(said(float(self.now), *block), self.now + lag):
                for watch in (self.watch, *(other.watch for other in self.others)):
                    await watch.judged(second)

    def types(self) -> list[str]:
        return [event.type for event in self.events]


def _cell(requests: int, errors: int) -> Cell:
    counts = {"requests": requests, "errors": errors}
    return Cell(counts, instances={"i-1": counts})


def bench(incident: Incident = INCIDENT, status: FlagStatus = SAFE, *specs: TriggerSpec) -> Bench:
    made = Bench(specs=specs or (spec(),))
    made.known.incident(encode(incident))
    made.known.flag(encode(status))
    return made


async def test_a_service_that_obeys_the_flag_is_effective_and_recovered_and_each_is_said_once() -> None:
    test = bench()
    await test.feed(FLIP + 3, BEFORE)
    await test.feed(END, OBEYED)
    effective, recovered = test.events
    assert (effective.type, recovered.type) == (FLAG_EFFECTIVE, FLAG_RECOVERED)
    # The first 5 s without another variant begin 3 s after the flip.
    assert effective.time == FLIP + 8
    assert effective.data["took_s"] == 3.0
    assert (effective.data["before_rps"], effective.data["after_rps"]) == (10.0, 0.0)
    assert recovered.time == FLIP + BAKE
    assert [recovered.data[name] for name in ("value", "was", "threshold", "samples")] == [0.0, 0.5, 0.2, 200]
    for event in test.events:
        assert event.subject == "production/new"
        assert event.data["incident"] == "i"
    assert test.records[-1] == AfterFlip(incident="i", service="shop", effect="effective", bake="recovered")


@pytest.mark.parametrize("outcome", ["already", None])
async def test_of_several_triggers_that_fired_for_one_flip_the_one_that_wrote_tells_the_effect(
    outcome: ResultOutcome | None,
) -> None:
    known = StateTables()
    for name in ("a-first", "i", "z-last"):
        own = msgspec.structs.replace(INCIDENT, id=name, command=f"c-{name}", trigger="errors")
        known.incident(encode(own))
        found = "applied" if name == "i" else outcome
        if found is not None:
            known.incident(encode(CommandResult(sent="s", command=f"c-{name}", outcome=found, at=float(FLIP))))
    known.flag(encode(SAFE))
    target = Bench(known)
    await target.feed(FLIP, BEFORE)
    await target.feed(FLIP + 100, OBEYED)
    said = [(event.type, event.data["incident"]) for event in target.events]
    assert [incident for kind, incident in said if kind == FLAG_EFFECTIVE] == ["i"]
    # Each trigger has its own metric, which may have recovered or not.
    assert [incident for kind, incident in said if kind == FLAG_RECOVERED] == ["a-first", "i", "z-last"]


async def test_a_service_that_ignores_the_flag_is_ineffective_at_the_limit_and_not_recovered() -> None:
    test = bench()
    await test.feed(END, IGNORED)
    ineffective, failed = test.events
    assert (ineffective.type, failed.type) == (FLAG_INEFFECTIVE, FLAG_NOT_RECOVERED)
    assert ineffective.time == FLIP + EFFECT
    assert (ineffective.data["before_rps"], ineffective.data["after_rps"]) == (10.0, 10.0)
    assert ineffective.data["instances"] == ["i-1"]
    assert "files" in ineffective.data["check"]
    assert (failed.data["verdict"], failed.data["value"], failed.data["was"]) == ("no-better", 0.5, 0.5)


async def test_a_flag_that_took_effect_and_was_not_the_cause_is_told_apart() -> None:
    test = bench()
    await test.feed(FLIP, BEFORE)
    await test.feed(FLIP + 60, {"off": (20, 15)})
    assert test.types() == [FLAG_EFFECTIVE, FLAG_NOT_RECOVERED]
    assert test.events[1].data["verdict"] == "worse"


async def test_the_window_of_the_bake_lies_after_the_time_the_flag_had_to_take_effect() -> None:
    long = spec("error_rate > 20% over 60s for 5s")
    test = bench(INCIDENT, SAFE, long)
    await test.feed(FLIP + int(EFFECT), IGNORED)
    await test.feed(FLIP + 100, OBEYED)
    (recovered,) = [event for event in test.events if event.type == FLAG_RECOVERED]
    assert (recovered.time, recovered.data["value"]) == (FLIP + EFFECT + 60, 0.0)


async def test_a_trigger_on_a_variant_without_traffic_is_followed_by_the_whole_service() -> None:
    on = spec("error_rate@on > 20% over 10s for 5s")
    test = bench(msgspec.structs.replace(INCIDENT, value=1.0, scope="production/shop/new@on"), SAFE, on)
    await test.feed(FLIP, BEFORE)
    await test.feed(FLIP + 60, {"off": (20, 5)})
    assert test.types() == [FLAG_EFFECTIVE, FLAG_NOT_RECOVERED]
    assert (test.events[1].data["scope"], test.events[1].data["value"]) == ("production/shop", 0.25)


async def test_a_trigger_on_a_variant_that_still_has_traffic_is_followed_by_the_variant() -> None:
    on = spec("error_rate@on > 20% over 10s for 5s")
    test = bench(msgspec.structs.replace(INCIDENT, value=1.0), SAFE, on)
    await test.feed(FLIP + 60, {"on": (10, 5), "off": (90, 0)})
    assert test.types() == [FLAG_INEFFECTIVE, FLAG_NOT_RECOVERED]
    assert (test.events[1].data["scope"], test.events[1].data["value"]) == ("production/shop/new@on", 0.5)


LEFT_OTHERWISE = {
    "shadow": (msgspec.structs.replace(INCIDENT, outcome="shadow"), SAFE),
    "old record": (msgspec.structs.replace(INCIDENT, value=None, threshold=None, before=None), SAFE),
    "not flipped": (INCIDENT, msgspec.structs.replace(SAFE, version="g1-a", safe=False)),
    "turned on again": (INCIDENT, msgspec.structs.replace(SAFE, version="g3-on", safe=False)),
    "changed again": (INCIDENT, msgspec.structs.replace(SAFE, version="g3-other")),
    "no change": (INCIDENT, msgspec.structs.replace(SAFE, changed_at=None)),
    "another flag": (msgspec.structs.replace(INCIDENT, flag="another"), SAFE),
}


@pytest.fixture(scope="module")
def left_otherwise() -> dict[str, Bench]:
    """A watch of its own for each, on one shard; the last is of a flip as it was left, of which all is said."""
    benches = {name: bench(*case) for name, case in LEFT_OTHERWISE.items()} | {"as it was left": bench()}
    feeding, *feeding.others = benches.values()
    asyncio.run(feeding.feed(END, IGNORED))
    assert benches["as it was left"].types() == [FLAG_INEFFECTIVE, FLAG_NOT_RECOVERED]
    return benches


@pytest.mark.parametrize("case", LEFT_OTHERWISE)
def test_nothing_is_said_of_what_is_not_a_flip_as_it_was_left(left_otherwise: dict[str, Bench], case: str) -> None:
    assert left_otherwise[case].events == []
    assert left_otherwise[case].records == []


async def test_a_person_who_turns_the_flag_on_again_ends_both_checks_in_silence() -> None:
    test = bench()
    await test.feed(FLIP + int(EFFECT) - 1, IGNORED)
    test.known.flag(encode(msgspec.structs.replace(SAFE, version="g3-on", safe=False, changed_at=FLIP + 18.0)))
    await test.feed(END, IGNORED)
    assert test.events == []


async def test_seconds_that_are_judged_too_late_say_nothing_and_the_first_live_one_does() -> None:
    test = bench()
    await test.feed(FLIP, BEFORE)
    await test.feed(FLIP + 60, IGNORED, lag=100.0)
    assert test.events == []
    await test.feed(FLIP + 61, IGNORED)
    assert test.types() == [FLAG_INEFFECTIVE, FLAG_NOT_RECOVERED]


async def test_a_silent_service_is_unknown_and_neither_effective_nor_recovered() -> None:
    test = bench()
    await test.feed(FLIP, BEFORE)
    await test.feed(FLIP + int(EFFECT + PATIENCE) - 1, SILENT)
    assert test.events == []
    await test.feed(END, SILENT)
    assert test.types() == [FLAG_EFFECT_UNKNOWN, FLAG_RECOVERY_UNKNOWN]
    assert test.events[0].time == FLIP + EFFECT + PATIENCE
    assert test.events[1].time == FLIP + BAKE + PATIENCE
    assert "silent" in test.events[0].data["reason"]
    assert "samples 0" in test.events[1].data["reason"]


async def test_a_service_that_comes_back_in_time_is_judged_by_what_it_says_then() -> None:
    test = bench()
    await test.feed(FLIP, BEFORE)
    await test.feed(FLIP + 100, SILENT)
    await test.feed(FLIP + 120, OBEYED)
    assert test.types() == [FLAG_EFFECTIVE, FLAG_RECOVERED]


async def test_samples_without_variants_say_nothing_of_the_effect_and_all_of_the_recovery() -> None:
    test = bench(msgspec.structs.replace(INCIDENT, before=Exposure(0.0, 0.0, 20.0)))
    await test.feed(FLIP, {"": (20, 10)})
    await test.feed(FLIP + 60, {"": (20, 0)})
    assert test.types() == [FLAG_EFFECT_UNKNOWN, FLAG_RECOVERED]
    assert "carry no variant" in test.events[0].data["reason"]


async def test_in_little_traffic_as_much_is_waited_for_as_it_takes_to_miss_the_variant() -> None:
    test = bench(msgspec.structs.replace(INCIDENT, before=Exposure(1.0, 2.0, 2.0)))
    await test.feed(FLIP, {"on": (1, 1), "off": (1, 0)})
    await test.feed(FLIP + 60, {"off": (2, 0)})
    # Twenty requests of the variant would have come in 20 s.
    assert [(event.type, event.time - FLIP) for event in test.events if event.type == FLAG_EFFECTIVE] == [
        (FLAG_EFFECTIVE, 20)
    ]


async def test_every_service_that_watches_the_flag_is_looked_at_and_the_bake_is_of_the_incidents_own() -> None:
    test = bench(INCIDENT, SAFE, spec(), spec(service="cart"))
    await test.feed_all(FLIP, {"shop": BEFORE, "cart": {"on": (30, 0), "off": (10, 0)}})
    await test.feed_all(FLIP + 60, {"shop": OBEYED, "cart": {"on": (20, 0), "off": (20, 0)}})
    found = {(event.data["service"], event.type): event for event in test.events}
    assert set(found) == {("shop", FLAG_EFFECTIVE), ("cart", FLAG_INEFFECTIVE), ("shop", FLAG_RECOVERED)}
    cart = found["cart", FLAG_INEFFECTIVE]
    assert (cart.data["before_rps"], cart.data["after_rps"]) == (30.0, 20.0)
    assert len({event.id for event in test.events}) == 3


async def test_the_exposure_of_another_service_before_the_flip_is_told_again_by_the_log() -> None:
    test = bench(INCIDENT, SAFE, spec(service="cart"))
    # Everything but the last second is a replay.
    await test.feed(FLIP, {"on": (30, 0)}, lag=500.0, service="cart")
    await test.feed(FLIP + 19, OBEYED, lag=500.0, service="cart")
    await test.feed(FLIP + 20, OBEYED, service="cart")
    assert [(e.type, e.data["before_rps"]) for e in test.events] == [(FLAG_EFFECTIVE, 30.0)]


async def test_another_service_whose_log_begins_after_the_flip_is_unknown() -> None:
    test = bench(INCIDENT, SAFE, spec(service="cart"))
    test.now = FLIP + 11
    await test.feed(FLIP + 60, OBEYED, service="cart")
    assert test.types() == [FLAG_EFFECT_UNKNOWN]


async def test_who_takes_over_says_nothing_a_second_time_and_goes_on_with_what_is_open() -> None:
    first = bench()
    await first.feed(FLIP, BEFORE)
    await first.feed(FLIP + 30, OBEYED)
    assert first.types() == [FLAG_EFFECTIVE]
    second = bench()
    for record in first.records:
        second.known.incident(encode(record))
    assert second.known.unreadable == 0
    await second.feed(FLIP, BEFORE)
    await second.feed(FLIP + 100, OBEYED)
    assert second.types() == [FLAG_RECOVERED]


async def test_an_older_record_of_ones_own_that_comes_back_unsays_nothing() -> None:
    test = bench()
    await test.feed(FLIP, BEFORE)
    await test.feed(FLIP + 60, OBEYED)
    first, both = test.records
    assert (first.bake, both.bake) == (None, "recovered")
    test.known.incident(encode(first))
    await test.feed(FLIP + 70, OBEYED)
    assert test.types() == [FLAG_EFFECTIVE, FLAG_RECOVERED]


async def test_a_crash_before_it_was_noted_says_the_same_under_the_same_id() -> None:
    first = bench()
    await first.feed(FLIP, BEFORE)
    await first.feed(FLIP + 30, OBEYED)
    second = bench()
    await second.feed(FLIP, BEFORE)
    await second.feed(FLIP + 30, OBEYED)
    assert [event.id for event in first.events] == [event.id for event in second.events] != []


async def test_an_incident_that_becomes_known_after_its_flag_is_looked_at_too() -> None:
    test = bench()
    incident = test.known.incidents.pop("i")
    await test.feed(FLIP + 3, BEFORE)
    test.known.incidents["i"] = incident
    await test.feed(FLIP + 30, OBEYED)
    assert test.types() == [FLAG_EFFECTIVE]


async def test_a_trigger_that_was_taken_out_of_the_configuration_is_unknown() -> None:
    renamed = replace(spec(), name="other")
    test = bench(INCIDENT, SAFE, renamed)
    await test.feed(FLIP, BEFORE)
    await test.feed(FLIP + 60, OBEYED)
    assert test.types() == [FLAG_EFFECTIVE, FLAG_RECOVERY_UNKNOWN]
    assert "configuration" in test.events[1].data["reason"]


def test_only_a_flag_in_several_services_needs_more_of_the_log() -> None:
    settings = AfterFlipSettings()
    cart = msgspec.structs.replace(FLAG, service="cart")
    assert lookback([FLAG, msgspec.structs.replace(cart, flag="other")], settings) == 0
    assert lookback([FLAG, cart], settings) == 60 + PATIENCE + 60


def test_an_incident_written_before_these_fields_is_read() -> None:
    record = msgspec.to_builtins(INCIDENT)
    for name in ("metric", "scope", "op", "value", "threshold", "before"):
        del record[name]
    known = StateTables()
    known.incident(msgspec.json.encode(record))
    assert known.incidents["i"].value is None
    assert known.unreadable == 0
