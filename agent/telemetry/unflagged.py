"""Sentences on requests that carry no flag: they count for the service and for no variant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from agent.telemetry.recorded import Counts
from detectors.cells import ERRORS, NO_OUTCOME, REQUESTS, Scope
from detectors.conditions.spec import TriggerSpec
from detectors.missing.unflagged import Counted, Unflagged, unflagged
from detectors.windows.unreadable import shortened, unreadable
from streams.monitor.health import WithoutFlag


def sentence(found: WithoutFlag | Unflagged) -> str:
    """The share of a service's requests that carry no flag, and its consequence, in a sentence."""
    service = f"{found.environment}/{found.service}"
    head = f"{_percent(found.share)} of the requests of {service} carry no flag {shortened(found.flag)!r}"
    if found.failing and found.failed is not None and found.others_failed is not None:
        return (
            f"{head}: they are in no variant, {_percent(found.failed)} of them fail, of the others "
            f"{_percent(found.others_failed)}; a request that fails must carry its flags, or no `@variant` trigger "
            "sees it"
        )
    return f"{head}: they are in no variant, and no `@variant` trigger sees them"


def unflagged_in(
    specs: Sequence[TriggerSpec], counts: Counts, unread: Mapping[tuple[Scope, str], int]
) -> Iterator[str]:
    """A sentence for each flag of a `@variant` trigger that a notable part of a recording does not carry."""
    flags = dict.fromkeys((s.environment, s.service, s.flag) for s in specs if s.condition.variant is not None)
    for of in flags:
        service = Scope(*of[:2])
        if service not in counts:
            continue
        own = [row for scope, row in counts.items() if scope[:3] == of]
        # Requests with an unreadable variant count as failed ones with the flag, so the sentence errs on the low side.
        lost = unread.get((service, unreadable("variant", of[2])), 0)
        requests, failed, untold = (sum(int(row[c]) for row in own) for c in (REQUESTS, ERRORS, NO_OUTCOME))
        whole = Counted(*(int(counts[service][column]) for column in (REQUESTS, ERRORS, NO_OUTCOME)))
        found = unflagged(of, whole, Counted(requests + lost, failed + lost, untold))
        if found is not None:
            yield sentence(found)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
