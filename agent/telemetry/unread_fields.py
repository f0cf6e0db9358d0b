"""Fields that a trigger needs and whose values cannot be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from agent.telemetry.recorded import Counts
from detectors.cells import REQUESTS, Scope
from detectors.conditions.spec import TriggerSpec
from detectors.missing.missing_samples import MOST_MISSING
from detectors.windows.unreadable import VARIANT, shortened, unreadable, unreadable_of, what_is_unreadable

Unread = Mapping[tuple[Scope, str], int]
"""How many values of a scope could not be read, by the measure of `detectors.windows.unreadable` that counts them."""


def unread_fields(specs: Sequence[TriggerSpec], counts: Counts, unread: Unread) -> Iterator[str]:
    """A sentence for each field that a service's triggers need, if too many of its values cannot be read."""
    said: dict[str, None] = {}
    for spec in specs:
        service = Scope(spec.environment, spec.service)
        requests = int(counts[service][REQUESTS]) if service in counts else 0
        needed = []
        if (name := unreadable_of(spec.condition)) is not None:
            needed.append((name, *what_is_unreadable(spec.condition)))
        if spec.condition.variant is not None:
            needed.append((unreadable("variant", spec.flag), f"variant of {shortened(spec.flag)!r}", VARIANT))
        for name, field, must in needed:
            count = unread.get((service, name), 0)
            if 100 * count > MOST_MISSING * requests:
                share = 100 * count / max(requests, 1)
                said[f"{service}: {field} of {share:.3g} % of requests could not be read: {must}"] = None
    yield from said
