"""What a trigger is: a condition on the windows of one scope, held for a time, with an action."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import Literal

from detectors.cells import Scope
from detectors.errors import SpecError

Metric = Literal[
    "error_rate",
    "timeout_rate",
    "availability",
    "cache_hit_rate",
    "throughput",
    "latency_mean",
    "latency_quantile",
    "measure",
]
Op = Literal[">", "<"]
Reference = Literal["control", "baseline"]
Action = Literal["rollback", "hold", "alert"]

RATIOS: frozenset[Metric] = frozenset({"error_rate", "timeout_rate", "availability", "cache_hit_rate"})
LATENCIES: frozenset[Metric] = frozenset({"latency_mean", "latency_quantile"})

LONGEST = 3600
"""Seconds a window or a hold may last at most; state and the log are sized by it."""

MIN_SAMPLES = 30
"""Samples a ratio or a mean wants unless the trigger says otherwise: under it one failure is more than 3 %."""


@dataclass(frozen=True, slots=True)
class Condition:
    """`METRIC[@variant] OP VALUE [over WINDOW] [for DURATION]`, read.

    `value` is a ratio in 0..1, milliseconds of latency, requests per second of throughput, or the measure's own unit;
    with `relative` it is the factor on what the control variant or the stored baseline shows. `quantile` (0..1, both
    excluded) belongs to latency_quantile alone, `measure` (a name) to measure alone. `over` and `hold` are seconds;
    a hold of 0 fires at the first evaluation that is true.
    """

    metric: Metric
    op: Op
    value: float
    over: int
    hold: int = 0
    quantile: float | None = None
    measure: str | None = None
    variant: str | None = None
    relative: Reference | None = None

    @property
    def label(self) -> str:
        """The metric as it is written: `error_rate`, `latency_p99.9`, `measure.score`."""
        if self.quantile is not None:
            return f"latency_p{percent(self.quantile)}"
        return f"measure.{self.measure}" if self.measure is not None else self.metric

    @property
    def default_min_samples(self) -> int:
        """Samples a window needs before it says anything, unless the trigger sets another number.

        A quantile wants ten samples beyond it, 10 / (1 - q); no traffic at all is a throughput too.
        """
        if self.metric == "throughput":
            return 0
        if self.quantile is None:
            return MIN_SAMPLES
        # In binary floating point 10 / (1 - 0.999) is a hair over 10,000 and would be rounded up to 10,001.
        return ceil(10 / (1 - Fraction(repr(self.quantile))))


@dataclass(frozen=True, slots=True)
class TriggerSpec:
    """A trigger of one flag in one service and environment.

    `guard`: a breach of the whole service is not acted upon while the safe variant's requests breach as well.
    `unknown_grace` and `keep_for` are in seconds. `baseline` is the stored value of the condition's metric, in the
    condition's unit. Raises SpecError when the condition compares with something that is not given, or with itself.
    """

    name: str
    flag: str
    environment: str
    service: str
    condition: Condition
    safe_variant: str
    min_samples: int
    unknown_grace: int = 30
    keep_for: int = 0
    action: Action = "rollback"
    shadow: bool = False
    guard: bool = True
    control_variant: str | None = None
    baseline: float | None = None

    def __post_init__(self) -> None:
        where = f"trigger {self.name!r} of flag {self.flag!r}"
        variant, relative = self.condition.variant, self.condition.relative
        if relative == "baseline" and self.baseline is None:
            raise SpecError(f"{where} compares with a baseline, but no baseline value is given")
        if relative == "control":
            if variant is None or self.control_variant is None:
                raise SpecError(f"{where} compares with the control: it needs a variant and a control variant")
            if variant == self.control_variant:
                raise SpecError(f"{where} compares variant {variant!r} with itself; name another control variant")

    @property
    def scope(self) -> Scope:
        """Whose windows are judged: the named variant of the flag, or the whole service."""
        if self.condition.variant is None:
            return Scope(self.environment, self.service)
        return Scope(self.environment, self.service, self.flag, self.condition.variant)

    @property
    def control_scope(self) -> Scope | None:
        """Whose windows the threshold comes from; None unless the condition compares with the control."""
        if self.condition.relative != "control" or self.control_variant is None:
            return None
        return Scope(self.environment, self.service, self.flag, self.control_variant)

    @property
    def threshold(self) -> float | None:
        """The number the metric is compared with; None when it depends on the control's window."""
        if self.condition.relative == "baseline" and self.baseline is not None:
            return self.condition.value * self.baseline
        return self.condition.value if self.condition.relative is None else None


def longest_lookback(specs: list[TriggerSpec]) -> int:
    """Seconds of the log that must be read again to know every state: the longest window, hold and time of keeping."""
    longest_window = max((s.condition.over for s in specs), default=0)
    return longest_window + max((s.condition.hold + s.keep_for for s in specs), default=0)


def percent(ratio: float) -> str:
    """The shortest decimal of a ratio times 100: 0.999 is `99.9`. It reads back as the same number."""
    # In binary floating point 0.07 * 100 is 7.000000000000001.
    text = format(Decimal(repr(ratio)).scaleb(2), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
