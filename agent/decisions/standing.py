"""The inability that a verdict of a flag in use stays unknown, with what a person can do, and its end."""

from __future__ import annotations

from typing import Final

from agent.events import cloudevents as events
from agent.events.cloudevents import Event
from detectors.missing.unknown_reason import clock
from streams.condition import shortened
from streams.monitor.standing import Standing

_MISSING: Final = (
    "look at what is named: a wrong clock, a buffer or sidecar that holds samples back, a producer whose samples are "
    "refused (flipback.rejected says why) or have fields that cannot be read (flipback.telemetry.rejected shows one)"
)
_CHECKS: Final = {
    "missing": _MISSING,
    "left_out": f"what is named is not watched meanwhile: {_MISSING}",
    "vanished": "it was about to fire when its data ended: see whether {service} still runs; turn the flag back by "
    "hand with `flipback rollback {flag}` if the release broke it",
    "silent": "see whether {service} runs, sends telemetry and names the flag and its variants as the configuration "
    "does",
    "few_samples": "there is less traffic than the trigger needs: raise its max_window, move its limit or set "
    "min_samples",
    "not_kept": "raise max_scopes",
    "one_instance": "look at `n` in the samples of the instance that is named",
    "mismatch": "see what decides who gets the variant: a cache, a targeting rule, lost telemetry",
}
_CHECK: Final = "see `flipback explain {flag}`; meanwhile watch the release yourself"


def standing_event(found: Standing) -> Event:
    """Make the event. Its id follows from the triggers and since when they are unknown, so a restart repeats the id."""
    state = "begun" if found.begun else "ended"
    names = shortened([repr(name) for name in found.triggers])
    known = "unknown in part" if found.kind == "left_out" else "unknown"
    data = {
        "state": state,
        "status": known if found.begun else "known",
        "flag": found.flag,
        "service": found.service,
        "trigger": found.triggers[0],
        "triggers": list(found.triggers),
        "reason": f"{names} {known} since {clock(found.since)}: {found.reason}" if found.begun else found.reason,
    }
    if found.begun:
        data["check"] = _CHECKS.get(found.kind, _CHECK).format(service=found.service, flag=found.flag)
    return Event(
        type=events.INABILITY,
        subject=events.subject_of(found.environment, found.flag),
        data=data,
        id=events.event_id(
            "standing", found.environment, found.flag, found.service, *found.triggers, str(found.since), state
        ),
        time=float(found.t),
    )
