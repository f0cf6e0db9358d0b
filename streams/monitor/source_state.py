"""What is known of one source partition of the telemetry."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NEVER = int(np.iinfo(np.int64).min)


@dataclass(slots=True)
class SourceState:
    """`final` is the first second that is still open. `heard_at` is in monotonic seconds.

    `ahead` is a watermark that was not believed, until a later one is. `caught_up` says that nothing waited to be read.
    `whole_from` is the first second of which everything was read, where reading began in the middle of the log.
    `gone` says that its topic no longer has the partition.
    """

    number: int
    heard_at: float
    whole_from: int | None = None
    watermark: float | None = None
    final: int = NEVER
    ahead: float | None = None
    caught_up: bool = True
    gone: bool = False
