"""After a flip: did the flag take effect, and was it the cause? Each verdict is published once and never acted upon.

A flag that reads safe in the flag system proves nothing about the service, which may read another file, hold a cache,
or ignore the flag. So the service's own samples are judged: the flag's other variants must vanish from them (the
effect), and the metric that fired must be well again (the bake). If the samples do not decide, the verdict is unknown.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from agent.after_flip.events import bake_event, effect_event
from agent.after_flip.rules import LAST_SECONDS, PATIENCE, BakeVerdict, bake, effect, exposure_after
from agent.config.flags import Flag
from agent.config.model import AfterFlipSettings
from agent.events.cloudevents import Event
from agent.state.flags import generation
from agent.state.incidents import AfterFlip, Incident
from agent.state.state_tables import StateTables
from streams.monitor.evaluated_second import EvaluatedSecond
from streams.monitor.observer import Exposure, Observer, whole

_BEFORE_UNTIL = 10.0


def lookback(flags: Sequence[Flag], settings: AfterFlipSettings) -> int:
    """Return the seconds of the log to read again after a restart, to know the exposure before a flip that is watched.

    An incident records the exposure of its own service. For other services of the flag only the log has it.
    """
    services: dict[tuple[str, str], set[str]] = {}
    for flag in flags:
        services.setdefault((flag.environment, flag.flag), set()).add(flag.service)
    several = any(len(found) > 1 for found in services.values())
    return math.ceil(settings.effect + PATIENCE) + 60 if several else 0


class AfterFlipWatch:
    """Watches the flags of commanded incidents for as long as they are as the flip left them.

    `flags` has the managed flags by (environment, flag). `tables` has the verdicts published so far, read from their
    topic: a monitor that takes over does not publish them again, and judges open incidents from the start. `publish`
    publishes an event and, once that is written, the verdicts; it returns at once.
    """

    def __init__(
        self,
        flags: Mapping[tuple[str, str], Flag],
        tables: StateTables,
        settings: AfterFlipSettings,
        publish: Callable[[Event, AfterFlip], object],
    ) -> None:
        self._flags = flags
        self._tables = tables
        self._settings = settings
        self._publish = publish
        self._incidents: dict[tuple[str, str], list[str]] = {}
        self._indexed = 0
        self._before: dict[tuple[str, str], Exposure] = {}

    async def judged(self, second: EvaluatedSecond) -> None:
        """Judge what is open at an evaluated second of a shard, while the shard's windows end at that second."""
        for incident, changed_at, flipped in list(self._open(second.observer)):
            for service in second.observer.services[incident.environment, incident.flag]:
                verdicts = self._tables.after_flips.get(
                    (incident.id, service), AfterFlip(incident=incident.id, service=service)
                )
                if flipped and verdicts.effect is None:
                    verdicts = self._effect(incident, verdicts, second, changed_at)
                if verdicts.bake is None and service == incident.service and not second.muted:
                    self._bake(incident, verdicts, second, changed_at)
            # Yield: a flip in the same process then waits for one incident at most, not for all open ones.
            await asyncio.sleep(0)

    def _open(self, observer: Observer) -> Iterator[tuple[Incident, float, bool]]:
        """Yield the incidents whose flag is as their flip left it, of flags that the shard watches.

        With each: when the flag changed, and whether the effect of the flip is published in this incident.
        """
        if self._indexed != len(self._tables.incidents):
            self._indexed = len(self._tables.incidents)
            self._incidents = {}
            for incident in self._tables.incidents.values():
                # Incidents of an earlier version of flipback do not record what fired.
                if incident.outcome == "commanded" and incident.value is not None:
                    self._incidents.setdefault((incident.environment, incident.flag), []).append(incident.id)
        for ref, ids in self._incidents.items():
            status = self._tables.flags.get(ref)
            if ref not in observer.services or status is None or not status.safe or status.changed_at is None:
                continue
            # The flip made the next generation. A later generation is of a person or of another flip.
            made = generation(status.version)
            own = [
                one for one in map(self._tables.incidents.__getitem__, ids) if generation(one.flag_version) + 1 == made
            ]
            if own:
                publisher = self._flipped_by(own)
                yield from ((one, status.changed_at, one is publisher) for one in own)

    def _flipped_by(self, own: Sequence[Incident]) -> Incident:
        """Return the incident in which the flip's effect is published: the one with a published effect, else the one
        whose command wrote the flag, else the first.
        """

        def place(one: Incident) -> tuple[bool, bool, float, str]:
            verdicts = self._tables.after_flips.get((one.id, one.service))
            result = self._tables.result_of(one)
            wrote = result is not None and result.outcome == "applied"
            return verdicts is None or verdicts.effect is None, not wrote, one.begun, one.id

        return min(own, key=place)

    def _effect(self, incident: Incident, verdicts: AfterFlip, second: EvaluatedSecond, changed_at: float) -> AfterFlip:
        where = incident.environment, verdicts.service, incident.flag
        before = self._exposure_before(incident, verdicts.service, second, changed_at)
        if second.muted or second.time <= changed_at:
            return verdicts
        since = math.ceil(changed_at)
        # To read a minute costs a millisecond, and the newest seconds suffice unless there is little traffic.
        now = second.observer.requests(*where, since=max(since, second.time - LAST_SECONDS))
        if before is None or exposure_after(before, now) is None:
            now = second.observer.requests(*where, since=since)
        found = effect(before, now, elapsed=second.time - changed_at, limit=self._settings.effect)
        if found is None:
            return verdicts
        serving: list[str] = []
        if found.verdict == "ineffective" and found.after is not None:
            serving = second.observer.serving(*where, since=second.time - found.after.seconds)
        event = effect_event(
            incident,
            self._flags[incident.environment, incident.flag],
            verdicts.service,
            found,
            before=before,
            serving=serving,
            changed_at=changed_at,
            t=second.time,
        )
        self._before.pop((incident.id, verdicts.service), None)
        return self._record(event, msgspec.structs.replace(verdicts, effect=found.verdict))

    def _exposure_before(
        self, incident: Incident, service: str, second: EvaluatedSecond, changed_at: float
    ) -> Exposure | None:
        if service == incident.service:
            return incident.before
        key = incident.id, service
        # The last second before the change has the exposure; if none was seen, the first one soon after it does.
        if second.time <= changed_at or (key not in self._before and second.time <= changed_at + _BEFORE_UNTIL):
            self._before[key] = second.observer.exposure(incident.environment, service, incident.flag)
        return self._before.get(key)

    def _bake(self, incident: Incident, verdicts: AfterFlip, second: EvaluatedSecond, changed_at: float) -> None:
        found = self._baked(incident, second, changed_at)
        if found is None:
            return
        flag = self._flags[incident.environment, incident.flag]
        event = bake_event(incident, flag, found, t=second.time)
        self._record(event, msgspec.structs.replace(verdicts, bake=found.verdict))

    def _baked(self, incident: Incident, second: EvaluatedSecond, changed_at: float) -> BakeVerdict | None:
        observer = second.observer
        spec = observer.triggers.get((incident.environment, incident.service, incident.flag, incident.trigger))
        scope = incident.scope or ""
        if spec is None or spec.condition.label != incident.metric:
            if second.time < changed_at + self._settings.bake:
                return None
            return BakeVerdict("unknown", scope, None, "the trigger is not in the configuration any more")
        # The whole window must lie after the time that the flag had to take effect.
        due = changed_at + max(self._settings.bake, self._settings.effect + spec.condition.over)
        if second.time < due:
            return None
        measured, measured_scope = observer.measure(spec, spec.scope), spec.scope
        if measured.samples == 0 or measured.samples < spec.least_samples:
            # The flip took the variant's traffic away, so judge the whole service.
            measured, measured_scope = observer.measure(spec, whole(spec)), whole(spec)
        verdict = bake(incident, measured, spec.least_samples)
        if verdict is not None:
            return BakeVerdict(verdict, str(measured_scope), measured, "")
        if second.time < due + PATIENCE:
            return None
        reason = f"samples {measured.samples}, wanted {spec.least_samples}, late {measured.late}"
        if measured.lacking:
            reason += "; more than 1 % of its samples are missing, or do not tell what the trigger asks for"
        return BakeVerdict("unknown", str(measured_scope), None, reason)

    def _record(self, event: Event, verdicts: AfterFlip) -> AfterFlip:
        self._tables.after_flips[verdicts.incident, verdicts.service] = verdicts
        self._publish(event, verdicts)
        return verdicts
