"""A command is obeyed for a short time only: from when it was issued until it expires."""

from __future__ import annotations

from agent.commands.command import Command, Reason, Rejection

CLOCK_SKEW_S = 5.0
"""Seconds that a command's `issued_at` may be ahead of the executor's clock: clocks of two machines differ."""


def stale(command: Command, now: float) -> Rejection | None:
    """Return why the command is not valid at `now` (Unix seconds), if so."""
    if command.issued_at > now + CLOCK_SKEW_S:
        ahead = f"issued {command.issued_at - now:.1f} s ahead of this clock, {CLOCK_SKEW_S:.0f} s are allowed"
        return Rejection(Reason.FROM_THE_FUTURE, ahead)
    if now >= command.expires_at:
        return Rejection(Reason.EXPIRED, f"expired {now - command.expires_at:.1f} s ago")
    return None
