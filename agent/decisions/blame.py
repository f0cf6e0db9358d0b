"""Choose which of several flags is turned back, and when none is.

A trigger on a whole service fires for every flag of the service. The most suspect flag is turned back first, and the
next one only if the breach is still there after the bake time. If more than half of the watched flags are ill at once,
the cause is shared infrastructure and no flag is turned back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from agent.config.model import Config
from agent.decisions import turns
from agent.decisions.peer_monitors import PeerMonitors
from agent.decisions.turns import AutomationLimit, FlagKey
from agent.state.flags import FlagStatus
from agent.state.state_tables import StateTables
from detectors.sequential.likelihood_ratio import PROOF
from streams.monitor.evidence import FiringEvidence

AT_ONCE_S = 3.0
"""The least time in seconds for which an ill flag stays ill without being seen so again; two evaluations if those take
longer."""

LEAST_SERVICES = 3
"""Services that must be ill before the infrastructure can be the cause: two flags of one service always fire both."""


@dataclass(frozen=True, slots=True)
class Objection:
    """Why a flag is not turned back now. `shared`: no flag is turned back, which is announced once, not per flag."""

    kind: str
    detail: str
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Suspect:
    """A flag whose trigger fires.

    `proof` comes from detectors.sequential.likelihood_ratio, in nats, None if there is no control to compare
    with. `changed_at` is when the flag last changed, None if no change was seen.
    """

    flag: str
    proof: float | None
    changed_at: float | None


def first(suspects: Sequence[Suspect], now: float, window: float) -> Suspect:
    """Return the suspect to turn back first: the one with the strongest proof, else the one that changed last.

    Only changes within `window` seconds before `now` count. Ties are broken by name.
    """

    def order(one: Suspect) -> tuple[float, float, str]:
        proof = one.proof if one.proof is not None and one.proof >= PROOF else 0.0
        recent = one.changed_at if one.changed_at is not None and now - one.changed_at <= window else -math.inf
        return -proof, -recent, one.flag

    return min(suspects, key=order)


def infrastructure(ill: Iterable[FlagKey], watched: Mapping[FlagKey, Iterable[str]]) -> str | None:
    """Return why the cause is an outage and not a release: more than half of the watched flags are ill, in at least
    `LEAST_SERVICES` services. Return None if that is not so.

    `watched` maps each flag to its services.
    """
    known = set(ill) & watched.keys()
    services = {service for flag in known for service in watched[flag]}
    if 2 * len(known) <= len(watched) or len(services) < LEAST_SERVICES:
        return None
    return (
        f"{len(known)} of {len(watched)} watched flags are ill at once, in {len(services)} services: it is taken for "
        "an outage of what they share, and no flag is turned back"
    )


class JudgedFlags(NamedTuple):
    """What a process judges: the services of each flag, and the newest evaluation that all live shards have done."""

    flags: Mapping[FlagKey, Collection[str]]
    until: float


@dataclass(frozen=True, slots=True)
class BlameRules:
    """The settings of the choice among flags. Times are in seconds.

    `window`: the greatest age of a change that is blamed. `bake`: how long a service gets to recover after one flag was
    turned back before the next one is, and how long a flag waits for another one that is not turned back. `limit`: how
    many flags may be turned back. `evaluate_every`: the time between two evaluations.
    """

    window: float
    bake: float
    limit: AutomationLimit
    evaluate_every: float = 1.0

    @classmethod
    def of(cls, config: Config) -> Self:
        flags = {(flag.environment, flag.flag) for flag in config.flags}
        return cls(
            window=config.blame.window,
            bake=config.after_flip.bake,
            limit=AutomationLimit(config.automation.most(len(flags)), config.automation.within),
            evaluate_every=config.evaluate_every,
        )


class Blame:
    """The choice among all flags whose triggers fire now in the services that this process judges.

    `judged` returns what the process judges. `peers` has the ill flags of the other monitors, None if there are none.
    """

    def __init__(
        self,
        judged: Callable[[], JudgedFlags],
        rules: BlameRules,
        *,
        peers: PeerMonitors | None = None,
    ) -> None:
        self._judge = judged
        self._rules = rules
        self._peers = peers
        self._at_once = max(AT_ONCE_S, 2 * rules.evaluate_every)
        self._judged = JudgedFlags({}, -math.inf)
        self._services = 0
        self._seen: dict[FlagKey, tuple[float, FiringEvidence]] = {}
        self._ill: dict[FlagKey, float] = {}
        self._ill_since: dict[FlagKey, int] = {}
        self._chosen: dict[FlagKey, float] = {}

    def observe(self, evidences: Iterable[FiringEvidence], ill: Iterable[FlagKey], t: int, now: float) -> None:
        """Record the triggers that fire at evaluation `t` of a shard, and the `ill` flags; `now` is the clock.

        A flag with a pending trigger is ill too: in an outage of everything, one trigger fires before the others.
        """
        self._judged = self._judge()
        watched = self._judged.flags if self._peers is None else self._peers.watched
        self._services = len({service for watching in watched.values() for service in watching})
        self._ill |= dict.fromkeys(ill, now)
        for evidence in evidences:
            if evidence.spec.action == "rollback":
                key = evidence.spec.environment, evidence.spec.flag
                self._seen[key] = now, evidence
                self._ill[key] = now
        self._drop_recovered(now)
        self._seen = {key: (at, found) for key, (at, found) in self._seen.items() if self._is_now(at, now)}
        self._chosen = {key: min(at, now) for key, at in self._chosen.items() if key in self._seen}
        self._ill_since = {key: self._ill_since.get(key, t) for key in self._ill}

    def expire(self, now: float) -> None:
        """Drop flags that are no longer ill and publish that; called after every evaluation, also without ill flags."""
        if self._ill:
            self._drop_recovered(now)

    def _drop_recovered(self, now: float) -> None:
        self._ill = {key: at for key, at in self._ill.items() if self._is_now(at, now)}
        if self._peers is not None:
            self._peers.publish_ill(self._ill, self._judged.flags, now)

    def _is_now(self, at: float, now: float) -> bool:
        # abs: if the clock is set back by an hour, a flag must not stay ill for an hour.
        return abs(now - at) <= self._at_once

    def early(self, evidence: FiringEvidence) -> bool:
        """Is it too early to exclude an outage? Never so with fewer than `LEAST_SERVICES` services.

        An outage that begins at the end of a second shows only in the busiest service in that second. So nothing is
        decided at the evaluation in which a flag is first ill, nor before all shards have done that evaluation.
        """
        since = self._ill_since.get((evidence.spec.environment, evidence.spec.flag), evidence.t)
        return self._services >= LEAST_SERVICES and (evidence.t <= since or self._judged.until < since)

    def objection(
        self, evidence: FiringEvidence, group: Collection[FlagKey], tables: StateTables, now: float
    ) -> Objection | None:
        """Return why the flag of this evidence is not turned back now, None if it may be.

        `group` has all flags that would be turned back together, the flag itself included.
        """
        flags = tables.flags
        # If a flag is safe already, its ill service is no sign of an outage: the flag may have been the cause.
        ill = {key for key in self._ill if key not in flags or not flags[key].safe}
        outage = infrastructure(ill, self._judged.flags)
        if outage is None and self._peers is not None:
            others = {key for key in self._peers.ill(now) if key not in flags or not flags[key].safe}
            outage = infrastructure(ill | others, self._peers.watched)
        if outage is not None:
            return Objection("outage", outage, shared=True)
        spec = evidence.spec
        if spec.condition.variant is not None:
            # The trigger compares the flag's own variant, so no other flag can be the cause.
            return None
        waits = turns.before(spec, tables, now, self._rules.bake)
        if waits is not None:
            return Objection(*waits)
        suspects = [
            self._suspect(found, flags)
            for key, found in self._rivals(evidence, flags)
            if self._passed_over(key, flags[key].version, tables, now) is None
        ]
        chosen = first([*suspects, self._suspect(evidence, flags)], now, self._rules.window)
        if chosen.flag == spec.flag:
            late = turns.beyond_limit(spec, group, tables, now, self._rules.limit)
            return None if late is None else Objection(*late)
        self._chosen.setdefault((spec.environment, chosen.flag), now)
        why = f"proven worse than its control ({chosen.proof:.1f} nats)" if _proven(chosen) else "the last to change"
        return Objection("blame", f"flag {chosen.flag!r} of the same service is turned back first: it is {why}")

    def passed_over(
        self, evidence: FiringEvidence, tables: StateTables, now: float
    ) -> Iterator[tuple[FiringEvidence, str]]:
        """Yield the other firing flags of the service that this one no longer waits for, each with the reason."""
        if evidence.spec.condition.variant is not None:
            return
        for key, found in self._rivals(evidence, tables.flags):
            why = self._passed_over(key, tables.flags[key].version, tables, now)
            if why is not None:
                yield found, why

    def _passed_over(self, key: FlagKey, version: str, tables: StateTables, now: float) -> str | None:
        """Return why a flag is no longer chosen before others; None if it still may be."""
        why = turns.given_up(key, version, tables, now, self._rules.bake)
        if why is not None:
            return why
        waited = now - self._chosen.get(key, now)
        return f"it was not turned back within {self._rules.bake:.0f} s" if waited > self._rules.bake else None

    def _rivals(
        self, evidence: FiringEvidence, flags: Mapping[FlagKey, FlagStatus]
    ) -> Iterator[tuple[FlagKey, FiringEvidence]]:
        """Yield the other flags that could be turned back and whose trigger on the whole service fires too."""
        spec = evidence.spec
        for key, (_, other) in self._seen.items():
            status, its = flags.get(key), other.spec
            if (
                (its.environment, its.service) == (spec.environment, spec.service)
                and its.flag != spec.flag
                and its.condition.variant is None
                and not its.shadow
                and other.obstacle is None
                and status is not None
                and not status.safe
            ):
                yield key, other

    def _suspect(self, evidence: FiringEvidence, flags: Mapping[FlagKey, FlagStatus]) -> Suspect:
        spec = evidence.spec
        status = flags.get((spec.environment, spec.flag))
        return Suspect(spec.flag, evidence.proof, None if status is None else status.changed_at)


def _proven(suspect: Suspect) -> bool:
    return suspect.proof is not None and suspect.proof >= PROOF
