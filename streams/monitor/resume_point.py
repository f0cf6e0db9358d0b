"""Where a shard resumes, from the records of the process that judged its partition before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from streams.monitor.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumePoint:
    """The default is that of a new deployment: nothing was published, and the log is read from its start.

    `published` is the time (Unix seconds) of the newest health record: of a second up to it no event and no health
    record is published again. `announced` is what that record says of verdicts that stay unknown
    (`streams.monitor.published.announced_before`). `checkpoint` is the state of the triggers: the seconds up to it fill
    the windows and are not evaluated. `from_start` says that reading begins at the first record of the log.
    """

    published: int | None = None
    announced: Mapping[tuple[str, str, str], tuple[int, bool]] = field(default_factory=dict)
    checkpoint: Checkpoint | None = None
    from_start: bool = True


NEW_DEPLOYMENT = ResumePoint()
