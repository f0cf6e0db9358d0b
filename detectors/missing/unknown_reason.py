"""Why a window gives no verdict: the reason as a number, and as a text for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Final

import numpy as np

from detectors.cells import LATE, Scope
from detectors.conditions.metric_table import METRIC_TABLE
from detectors.conditions.spec import TriggerSpec
from detectors.missing.judged_instances import JudgedInstances
from detectors.missing.missing_samples import MOST_MISSING, Missing
from detectors.missing.unattributed import UnattributedLoss
from detectors.missing.unread_variants import UnreadVariants
from detectors.windows.store import WindowStore
from detectors.windows.unreadable import VARIANT, shortened, unreadable_of, what_is_unreadable


class UnknownReason(IntEnum):
    """Why a window gives no verdict; if several reasons apply, the lowest number wins."""

    NONE = 0
    NOT_KEPT = 1
    MISSING = 2
    FEW_SAMPLES = 3
    NO_VALUE = 4
    MISMATCH = 5
    NO_LIMIT = 6
    NO_SHARE = 7
    SILENT = 8
    ONE_INSTANCE = 9


_TEXTS: Final = {
    int(UnknownReason.NOT_KEPT): "scope not kept: there are more than max_scopes",
    int(UnknownReason.NO_VALUE): "no value: nothing to divide by",
    int(UnknownReason.MISMATCH): "sample ratio mismatch: requests are not shared as the flag's percentage says",
    int(UnknownReason.NO_LIMIT): "too few timed requests to take {label} of",
    int(UnknownReason.NO_SHARE): "too few requests of the variant seen to know its share",
    int(UnknownReason.SILENT): "no request of the control in {over} s either",
}

_ARRIVING = 5
"""Seconds without a late sample after which no more of them are expected."""

_VARIANTS = 4


class ReasonTexts:
    """Writes reasons for people, from the windows as they are at the last evaluation."""

    def __init__(
        self,
        specs: Sequence[TriggerSpec],
        store: WindowStore,
        instances: JudgedInstances,
        variants: UnreadVariants,
        unattributed: UnattributedLoss,
    ) -> None:
        self._specs = specs
        self._store = store
        self._instances = instances
        self._unread_variants = variants
        self._unattributed = unattributed
        self._missing_texts: dict[tuple[int, int, bool, str | None], str] = {}
        self._late: dict[int, int] | None = None
        self._carried: tuple[int, dict[tuple[str, str], dict[str, set[str]]]] | None = None
        self.hidden: dict[int, str] = {}
        """By trigger number: which instance hides a breach of the others, as a text for people."""

    def begin(self) -> None:
        """Drop the texts of the evaluation before."""
        self._missing_texts, self._late = {}, None

    def missing(self, i: int, missing: Missing, *, slot: int, seconds: int, outcome: bool) -> str:
        """Return what the window of trigger `i` lacks: kinds and shares, which instances, and until when."""
        key = slot, seconds, outcome, unreadable_of(self._specs[i].condition)
        text = self._missing_texts.get(key)
        if text is None:
            # Triggers of one window share the text: after an outage all of them need it.
            text = self._missing_texts[key] = self._lost(i, missing, seconds) + self._instances_and_end(
                slot, seconds, outcome=outcome
            )
        return text

    def _lost(self, i: int, missing: Missing, seconds: int) -> str:
        """Return kinds and shares of what is missing.

        Rejected samples of unknown service are left out if too much is missing without them.
        """
        late, rejected, unknown, unattributed, unread, read, variant, total = (int(column[i]) for column in missing)
        lost = late + rejected + unknown + unattributed + unread + variant
        # An absence reads the display window, whatever its own.
        length = self._store.display if self._specs[i].condition.metric == "absence" else seconds
        of_topics = min(unattributed, self._unattributed.of_topics(i, length))
        if 100 * (lost - of_topics) > MOST_MISSING * (total - of_topics):
            lost, unattributed, total, of_topics = lost - of_topics, unattributed - of_topics, total - of_topics, 0
        shares = [(late, "late"), (rejected + unattributed, "rejected")]
        parts = [f"{word} {_percent(count, total)}" for count, word in shares if count]
        if unknown:
            parts.append(f"outcome known for {_percent(total - unknown, total)} of requests")
        fields = list(self._fields(i, seconds, unread=unread, read=read, variant=variant, total=total))
        parts += [what for what, _ in fields]
        text = " and ".join(parts)
        if len(parts) > 1:
            text += f": {_percent(lost, total)} missing"
        if not (unknown or fields) or len(parts) > 1:
            text += f" > {MOST_MISSING} %"
        where = self._unattributed.where(i, length) if of_topics else ""
        return (f"{text} ({where})" if where else text) + "".join(f": {must}" for _, must in fields[:1])

    def _fields(
        self, i: int, seconds: int, *, unread: int, read: int, variant: int, total: int
    ) -> Iterator[tuple[str, str]]:
        """Yield each field that could not be read, with its share of requests, and what its value must be."""
        if unread:
            field, must = what_is_unreadable(self._specs[i].condition)
            few = 100 * unread <= MOST_MISSING * total
            of = f"{_percent(unread, unread + read)} of the requests that have one"
            yield f"{field} of {of if few else f'{_percent(unread, total)} of requests'} could not be read", must
        if variant:
            count, carried = self._unread_variants.share(i, seconds)
            if not count:
                # An absence reads the display window, whatever its own.
                count, carried = self._unread_variants.share(i, self._store.display)
            flag = shortened(self._specs[i].flag)
            yield f"variant of {flag!r} of {_percent(count, carried)} of requests could not be read", VARIANT

    def one_instance(self, i: int) -> str:
        """Return which instance hides a breach of the other instances of trigger `i`."""
        return self.hidden.get(i, "one instance has most of the weight")

    def left_out(self, *, slot: int, seconds: int, outcome: bool) -> str:
        """Return the text of the instances that are left out of a window."""
        return self._instances.text(seconds, slot, outcome=outcome)

    def names_left_out(self, *, slot: int, seconds: int, outcome: bool) -> frozenset[str]:
        """Return the names of the instances that are left out of a window."""
        return frozenset(self._instances.left_out(seconds, slot, outcome=outcome))

    def other(self, reason: int, spec: TriggerSpec, scope: Scope, samples: int, requests: int) -> str:
        """Return the text of any other reason."""
        metric = spec.condition.metric
        if reason in (UnknownReason.FEW_SAMPLES, UnknownReason.NO_VALUE) and not samples:
            if requests and (needs := METRIC_TABLE[metric].needs):
                return f"no sample has {needs}"
            if requests and spec.condition.measure is not None:
                return f"no sample has measure {spec.condition.measure!r}"
            if metric != "throughput" or not self._seen(scope):
                return self._silence(scope)
        if reason == UnknownReason.FEW_SAMPLES:
            return f"samples {samples} < min_samples {spec.min_samples}"
        if reason == UnknownReason.NO_VALUE and metric == "throughput":
            return "not watched for the whole window yet"
        return _TEXTS.get(reason, "").format(label=spec.condition.label, over=spec.condition.over)

    def _seen(self, scope: Scope) -> bool:
        return self._store.newest(scope) is not None

    def _silence(self, scope: Scope) -> str:
        """Return since when a scope has had no samples; if it never had any, what was seen of its service and flag."""
        newest = self._store.newest(scope)
        if newest is not None:
            return f"none since {clock(newest + 1)}"
        if not scope.flag:
            return "never seen"
        carried = self._variants().get((scope.environment, scope.service))
        if carried is None:
            return f"never seen, and no sample of {scope.service!r} either"
        variants = sorted(carried.get(scope.flag, ()))
        if not variants:
            return f"never seen: no sample carries flag {scope.flag!r}"
        return f"never seen: variants of {scope.flag!r} that were seen are {', '.join(map(repr, variants[:_VARIANTS]))}"

    def _variants(self) -> dict[tuple[str, str], dict[str, set[str]]]:
        """Return the variants seen of each flag in each service. It loops over all scopes, so at most once in ten
        seconds."""
        end = self._store.end or 0
        if self._carried is None or not 0 <= end - self._carried[0] < 10:
            found: dict[tuple[str, str], dict[str, set[str]]] = {}
            for scope in self._store.scopes():
                if self._seen(scope):
                    of_service = found.setdefault((scope.environment, scope.service), {})
                    if scope.flag:
                        of_service.setdefault(scope.flag, set()).add(scope.variant)
            self._carried = end, found
        return self._carried[1]

    def _instances_and_end(self, slot: int, seconds: int, *, outcome: bool) -> str:
        who = self._instances.text(seconds, slot, outcome=outcome)
        return (f": {who}" if who else "") + self._until(slot, seconds)

    def _until(self, slot: int, seconds: int) -> str:
        """Return until when late samples stay in the window; empty if more are expected."""
        end, last = self._store.end or 0, self._last_late().get(slot)
        if last is None or end - last < _ARRIVING or last + seconds <= end:
            return ""
        return f"; the last came at {clock(last)}, about {last + seconds - end} s more until they leave the window"

    def _last_late(self) -> dict[int, int]:
        """Return the second of the newest late sample, by slot: of all slots at once, because after an outage all need
        it."""
        if self._late is None:
            end, display = self._store.end or 0, self._store.display
            rows = np.flatnonzero(self._store.window(display).sums[LATE])
            seconds, at = np.nonzero(self._store.by_second.read(rows, LATE, end - display, end))
            self._late = dict(zip(rows[at].tolist(), (seconds + (end - display + 1)).tolist(), strict=True))
        return self._late


def clock(t: int) -> str:
    """Return the time of day, UTC, as `13:04:05`."""
    minutes, second = divmod(t % 86_400, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{second:02}"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / max(whole, 1):.4g} %"
