"""The state of a flag in words: what it gives, since when, by whom and why."""

from __future__ import annotations

from datetime import UTC, datetime

from agent.events.wording import given
from agent.state.flag_now import FlagNow

STALE_S = 60.0
"""Seconds after which the state of a flag is old: a running executor publishes it every 30 s."""


def flag_line(now: FlagNow, at: float, *, alone: bool = False) -> str:
    """Return the state of a flag at a time (Unix seconds): its variant, since when, by whom and why, and the source.

    `alone`: it could not be checked whether the state is published.
    """
    state = "safe" if now.safe else "in use"
    line = f"gives {given(now.variant, now.percent)} ({state})"
    if now.since is None:
        line += ", unchanged since flipback first read it"
    else:
        reason = f": {now.reason}" if now.reason else ""
        line += f" since {_clock(now.since, at)} ({_ago(at - now.since)} ago), set by {now.by}{reason}"
    if now.unpublished:
        line += ", by the ledger of this machine"
        return line if alone else f"{line}; no executor has published it yet"
    if at - now.read_at > STALE_S:
        line += f"; as of {_clock(now.read_at, at)}, no executor has read it since"
    return line


def _clock(moment: float, at: float) -> str:
    """Return the time of day, with the date if it is a day ago or more."""
    shape = "%H:%M:%SZ" if at - moment < 86_400 else "%Y-%m-%dT%H:%M:%SZ"
    return datetime.fromtimestamp(moment, UTC).strftime(shape)


def _ago(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
