"""A person's orders, rollbacks by hand and restores, read from the audit log for the list of incidents."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from agent.commands.command import BY_HAND
from agent.events import cloudevents as events
from agent.events.cloudevents import Event
from agent.events.wording import ORDER_OUTCOMES


class ByHand(msgspec.Struct, frozen=True, kw_only=True):
    """A person's order. `incident` is the rollback's own or the one that was restored; `at` is Unix seconds."""

    what: Literal["rollback", "restore"]
    environment: str
    flag: str
    incident: str
    at: float
    by: str
    reason: str
    outcome: str


def by_hand(log: Iterable[Event]) -> list[ByHand]:
    """Return the orders in an audit log, the newest first."""
    log = sorted({event.id: event for event in log}.values(), key=lambda event: event.time)
    outcomes = {
        str(event.data.get("command_id")): ORDER_OUTCOMES[event.type] for event in log if event.type in ORDER_OUTCOMES
    }
    found: dict[str, ByHand] = {}
    for event in log:
        data = event.data
        if event.type == events.FLAG_RESTORED:
            found[event.id] = _order("restore", event, data, str(data.get("outcome", "")))
        elif event.type == events.COMMAND_RECEIVED and data.get("trigger") == BY_HAND:
            # A repeated order has the id of the first.
            command = str(data.get("command_id"))
            found[command] = _order("rollback", event, _evidence(data), outcomes.get(command, "under way"))
    return sorted(found.values(), key=lambda order: -order.at)


def restores(orders: Iterable[ByHand]) -> dict[tuple[str, str], ByHand]:
    """Return the newest restore of each incident and flag."""
    return {(order.incident, order.flag): order for order in reversed([*orders]) if order.what == "restore"}


def _order(what: Literal["rollback", "restore"], event: Event, order: dict[str, Any], outcome: str) -> ByHand:
    return ByHand(
        what=what,
        environment=str(event.data.get("environment", "")),
        flag=str(event.data.get("flag", "")),
        incident=str(event.data.get("incident", "")),
        at=event.time,
        by=str(order.get("by") or "a person"),
        reason=str(order.get("reason") or ""),
        outcome=outcome,
    )


def _evidence(data: dict[str, Any]) -> dict[str, Any]:
    command = data.get("command")
    evidence = command.get("evidence") if isinstance(command, dict) else None
    return evidence if isinstance(evidence, dict) else {}
