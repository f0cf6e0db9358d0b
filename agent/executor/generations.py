"""The generations of flags, as recorded in the ledger."""

from __future__ import annotations

from agent.ledger.ledger import Ledger
from agent.state.flags import FlagStatus, FlagWatch


def watch_from(ledger: Ledger) -> FlagWatch:
    """Make a FlagWatch that continues the generations in the ledger.

    If the flags topic were lost, generations would start at 1 again, and a command on generation 1 would be taken for
    the one that was executed then.
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
