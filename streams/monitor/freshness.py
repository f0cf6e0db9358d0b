"""Whether a shard may act: nothing is missing, the evidence is recent, and the clock can be trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime

from streams.clock import Now
from streams.condition import ShardCondition, shortened
from streams.monitor.merge import AHEAD, Merge

SILENT_AFTER = 10.0
"""Seconds without a partial after which a source partition's owner counts as silent; it sends one every second."""

BACKLOG_AFTER = 3.0
"""A second that is older than the allowed lateness and this many seconds is not acted upon while more waits to be
read, because the unread records may show that the fault is over."""

LIVE = ShardCondition("live", "")


@dataclass(frozen=True, slots=True)
class AgeLimits:
    """How many seconds old evidence may be to act upon it: `most`, and `backlog` while more waits to be read."""

    most: float
    backlog: float

    @classmethod
    def of(cls, catching_up_after: float, max_lateness: float) -> AgeLimits:
        return cls(catching_up_after, min(catching_up_after, max_lateness + BACKLOG_AFTER))


def condition(merge: Merge, limits: AgeLimits, now: Now) -> ShardCondition:
    """The condition at `now` of the shard whose partials `merge` has."""
    if missing := merge.missing():
        return ShardCondition("unknown", f"nothing heard yet of {shortened(missing)}")
    if silent := merge.silent(now.monotonic, SILENT_AFTER):
        detail = f"no ingest has spoken for {shortened(silent)} for {SILENT_AFTER:.0f} s{_given_up(merge)}"
        return ShardCondition("unknown", detail)
    if ahead := merge.ahead(now.latest):
        by = f"{max(ahead.values()):.0f} s ahead of this machine's clock"
        todo = "that of the monitor or that of ingest is wrong; see that both machines follow NTP"
        return ShardCondition("unknown", f"what ingest says of {shortened([*ahead])} is {by}: {todo}")
    if now.problem:
        return ShardCondition("unknown", now.problem)
    mark = merge.watermark
    if mark is None or now.time - mark > limits.most:
        known = "no evidence yet" if mark is None else f"the evidence is {now.time - mark:.0f} s old"
        waiting = shortened(merge.lagging(now.time - limits.most))
        return ShardCondition("catching_up", f"{known}: waiting for {waiting}{_given_up(merge)}")
    if backlog := merge.lagging(now.time - limits.backlog, caught_up=False):
        waits = f"more waits to be read in {shortened(backlog)}"
        return ShardCondition("catching_up", f"the evidence is {now.time - mark:.0f} s old: {waits}")
    return LIVE


def _given_up(merge: Merge) -> str:
    if merge.lost_until is None or (merge.watermark or -math.inf) >= merge.lost_until:
        return ""
    until = datetime.fromtimestamp(merge.lost_until, UTC).strftime("%H:%M:%S")
    return f"; what the others say of the time before {until} UTC no longer fits in memory, it stays unknown"


def judged(of_shard: ShardCondition, limits: AgeLimits, t: int, *, superseded: bool, now: Now) -> ShardCondition:
    """The condition under which the second that ends at `t` is judged, in a shard of condition `of_shard`.

    `superseded` says that a later second is complete already.
    """
    age = now.time - t
    if age > limits.most or (of_shard.status == "live" and superseded and age > limits.backlog):
        # Either it is among the last seconds of a backlog and old although the watermark has reached the present, or
        # acting upon the second before took long.
        return ShardCondition("catching_up", f"judged {age:.0f} s after its end")
    return of_shard


def ahead_of(time: int | None, now: Now) -> float:
    """By how many seconds the judged time is ahead of the clock; 0 if it is within what clocks may differ."""
    return 0.0 if time is None or time - now.latest <= AHEAD else time - now.latest
