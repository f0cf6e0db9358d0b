"""The generations of flags that a ledger has seen."""

from __future__ import annotations

from agent.ledger.ledger import Ledger
from agent.state.flags import FlagStatus, FlagWatch


def watch_from(ledger: Ledger) -> FlagWatch:
    """Go on from the generations that the ledger has seen.

    If the flags topic is lost, generations would begin anew, and a command on the first of them would be taken for the
    one that was carried out then.
    """
    watch = FlagWatch()
    for entry in ledger.entries():
        for event in entry.events:
            version, variant = event.data.get("flag_version"), event.data.get("variant")
            if isinstance(version, str):
                watch.prime(
                    FlagStatus(
                        flag=entry.command.flag,
                        environment=entry.command.environment,
                        version=version,
                        variant=variant,
                        safe=variant == entry.command.target,
                        at=event.time,
                        changed_at=event.time,
                    )
                )
    return watch
