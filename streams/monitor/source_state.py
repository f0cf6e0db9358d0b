"""The state of one source partition of the telemetry."""

from __future__ import annotations

from dataclasses import dataclass

from detectors.state import BEFORE


@dataclass(slots=True)
class SourceState:
    """Seconds before `final` are final, later ones open. `heard_at` is when the last record was read, in monotonic
    seconds.

    `ahead` is the last watermark if it was not accepted. `caught_up` says that no records waited to be read.
    `whole_from` is the first second that was read completely; None if reading began at the start of the log. `gone`
    says that the topic no longer has the partition.
    """

    number: int
    heard_at: float
    whole_from: int | None = None
    watermark: float | None = None
    final: int = BEFORE
    ahead: float | None = None
    caught_up: bool = True
    gone: bool = False
