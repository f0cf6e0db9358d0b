"""What a trigger is: a condition on the windows of one scope, held for a time, with an action."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import Literal

from detectors.cells import Scope
from detectors.conditions.metric_table import METRIC_TABLE, Metric, Op
from detectors.errors import SpecError

Reference = Literal["control", "baseline"]
Action = Literal["rollback", "hold", "alert"]

FALSE_ALARMS = 30 * 86_400
"""Mean number of seconds between two false alarms of a trigger, at least."""

PROOF_WINDOW = 60
"""Seconds of the window whose values a proof shows, and in which both arms must have requests."""

LONGEST_SPAN = 3600
"""Most seconds of a window or a hold; state and the log are sized by it."""

MIN_SAMPLES = 30
"""Samples that a ratio or a mean needs, unless the trigger sets another number: with fewer, one failure is more than 3
%."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A parsed condition: `METRIC[@variant] OP VALUE [over WINDOW] [for DURATION]`.

    `value` is a ratio in 0..1, milliseconds of latency, requests per second of throughput, or the measure's own unit;
    with `relative` it is the factor by which the value of the control variant or of the stored baseline is multiplied.
    `quantile` (0..1, both excluded) belongs to latency_quantile alone, `measure` (a name) to measure alone. `over` and
    `hold` are seconds; a hold of 0 fires at the first evaluation that is true.

    `proof` marks `METRIC@variant OP control`, which is true once the variant is proven worse
    (`detectors.sequential.canary_proof`). Absence, which is compared with the control too, is true once the variant has
    fallen silent (`detectors.sequential.absence`). For both, `over` is the window in which there must be requests, and
    from which the shown values are read.
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
    proof: bool = False

    @property
    def sequential(self) -> bool:
        """Whether it accumulates evidence second by second instead of reading a window."""
        return self.proof or self.metric == "absence"

    @property
    def counts_bad(self) -> bool:
        """Whether it is a limit on the share of bad requests: a ratio or a quantile, on its worse side."""
        return METRIC_TABLE[self.metric].worse == self.op

    @property
    def label(self) -> str:
        """The metric as it is written: `error_rate`, `latency_p99.9`, `measure.score`."""
        if self.quantile is not None:
            return f"latency_p{percent(self.quantile)}"
        return f"measure.{self.measure}" if self.measure is not None else self.metric

    @property
    def default_min_samples(self) -> int:
        """Samples that a window needs for a verdict, unless the trigger sets another number.

        A quantile needs ten samples beyond it, 10 / (1 - q). A throughput needs none, because no traffic is a value
        too. A proof needs one: it accumulates evidence by itself.
        """
        if not METRIC_TABLE[self.metric].wants_samples:
            return 0
        if self.proof:
            return 1
        if self.quantile is None:
            return MIN_SAMPLES
        return samples_beyond(self.quantile)


@dataclass(frozen=True, slots=True)
class TriggerSpec:
    """A trigger of one flag in one service and environment.

    `guard`: while the safe variant's requests breach as well, a breach of the whole service causes no action.
    `unknown_grace`, `unknown_alert` and `keep_for` are in seconds. `baseline` is the stored value of the condition's
    metric, in the condition's unit. With `max_window` (seconds) a window that has fewer than `min_samples` is replaced
    by a longer one. `fast` lets `detectors.sequential.fast_tier` fire it too, with one false alarm in `false_alarms`
    seconds at most. Raises SpecError if the condition compares with a baseline or control that is not given, or with
    itself, or if it cannot be fast.
    """

    name: str
    flag: str
    environment: str
    service: str
    condition: Condition
    safe_variant: str
    min_samples: int
    unknown_grace: int = 30
    unknown_alert: int = 300
    keep_for: int = 0
    action: Action = "rollback"
    shadow: bool = False
    guard: bool = True
    control_variant: str | None = None
    baseline: float | None = None
    max_window: int | None = None
    fast: bool = False
    false_alarms: int = FALSE_ALARMS

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
        if self.fast and (not self.condition.counts_bad or relative == "control"):
            raise SpecError(f"{where} cannot be fast: it is no fixed limit on the share of bad requests")

    @property
    def scope(self) -> Scope:
        """The scope whose windows are judged: the named variant of the flag, or the whole service."""
        if self.condition.variant is None:
            return Scope(self.environment, self.service)
        return Scope(self.environment, self.service, self.flag, self.condition.variant)

    @property
    def control_scope(self) -> Scope | None:
        """The scope whose windows give the threshold; None unless the condition compares with the control."""
        if self.condition.relative != "control" or self.control_variant is None:
            return None
        return Scope(self.environment, self.service, self.flag, self.control_variant)

    @property
    def threshold(self) -> float | None:
        """The number the metric is compared with; None if it depends on the control's window."""
        if self.condition.relative == "baseline" and self.baseline is not None:
            return self.condition.value * self.baseline
        return self.condition.value if self.condition.relative is None else None

    @property
    def windows(self) -> tuple[int, ...]:
        """Seconds of the windows that are read, ascending: `over`, twice and four times that, ... and `max_window`."""
        found, longest = [self.condition.over], self.max_window or 0
        while 2 * found[-1] < longest:
            found.append(2 * found[-1])
        return (*found, longest) if longest > found[-1] else tuple(found)

    @property
    def least_samples(self) -> int:
        """Samples that a part of a window, or the time after a flip, needs for a verdict.

        That is `min_samples`; with `max_window` it is at most the default, because a longer window makes up for fewer.
        """
        default = self.condition.default_min_samples
        return self.min_samples if self.max_window is None else min(self.min_samples, default)

    @property
    def bad_limit(self) -> float | None:
        """The share (0..1) of bad requests above which the condition is true; None if it is no such limit.

        It is the complement of the threshold if the metric counts good requests, and 1 - q for a quantile.
        """
        if not self.condition.counts_bad or self.condition.relative == "control" or self.threshold is None:
            return None
        if self.condition.quantile is not None:
            return float(1 - Fraction(repr(self.condition.quantile)))
        # As decimals: in binary floating point 1 - 0.99 is 0.010000000000000009.
        share = Fraction(repr(self.threshold))
        return float(share if self.condition.op == ">" else 1 - share)


def samples_beyond(quantile: float) -> int:
    """Return how many samples have ten beyond a quantile (0..1): 10 / (1 - q)."""
    # In binary floating point 10 / (1 - 0.999) is a hair over 10,000 and would be rounded up to 10,001.
    return ceil(10 / (1 - Fraction(repr(quantile))))


def longest_window(specs: Sequence[TriggerSpec]) -> int:
    """Return how many seconds of the log fill every window when they are read again."""
    return max((s.windows[-1] for s in specs), default=0)


def longest_lookback(specs: Sequence[TriggerSpec]) -> int:
    """Return how many seconds of the log restore every state when they are read again: the longest window, hold and
    keep."""
    return longest_window(specs) + max((s.condition.hold + s.keep_for for s in specs), default=0)


def percent(ratio: float) -> str:
    """Return the shortest decimal of a ratio times 100: 0.999 is `99.9`. It parses to the same number."""
    # In binary floating point 0.07 * 100 is 7.000000000000001.
    text = format(Decimal(repr(ratio)).scaleb(2), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def by_flag(specs: Sequence[TriggerSpec]) -> dict[tuple[str, str], list[int]]:
    """Return the numbers of the triggers of each (environment, flag): at start, hundreds of flags are looked up in
    turn."""
    found: dict[tuple[str, str], list[int]] = {}
    for number, spec in enumerate(specs):
        found.setdefault((spec.environment, spec.flag), []).append(number)
    return found
