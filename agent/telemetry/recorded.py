"""Checks a recording against a configuration: names without a match, and samples that did not count."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from agent.backends.shown import instead
from detectors.arrays import Int
from detectors.cells import LATE, NO_OUTCOME, REJECTED, REQUESTS, Scope
from detectors.conditions.spec import TriggerSpec
from detectors.missing.missing_samples import MOST_MISSING
from streams.monitor.health import TriggerHealth

Counts = Mapping[Scope, Int]
"""The sums of a recording: the columns of detectors.cells.COUNTS of each scope."""


def unmatched(specs: Sequence[TriggerSpec], counts: Counts, safe: Collection[tuple[str, str]] = ()) -> Iterator[str]:
    """A sentence for each name of a trigger that no sample had: a service, a flag of it, a variant of that.

    Flags in `safe`, each (flag, environment), give one variant to all: the other variants are not checked.
    """
    services = {f"{scope.environment}/{scope.service}": scope for scope in counts if not scope.flag}
    said = set[str]()
    for spec in specs:
        service = f"{spec.environment}/{spec.service}"
        if service not in services:
            said.add(f"no sample is of {service}, which flag {spec.flag!r} watches; {instead(service, services)}")
            continue
        if spec.condition.variant is None or (spec.flag, spec.environment) in safe:
            continue
        variants = {scope.variant for scope in counts if scope[:3] == (spec.environment, spec.service, spec.flag)}
        if not variants:
            said.add(f"no sample of {service} carries flag {spec.flag!r}, by which trigger {spec.name!r} judges")
        elif spec.condition.variant not in variants:
            said.add(
                f"no sample of {service} has variant {spec.condition.variant!r} of flag {spec.flag!r}, which trigger "
                f"{spec.name!r} judges; {instead(spec.condition.variant, variants)}"
            )
    yield from sorted(said)


def never_judged(triggers: Iterable[TriggerHealth], judged: Collection[tuple[str, str]]) -> Iterator[str]:
    """A sentence for each trigger that was unknown from the beginning to the end.

    `triggers` are the last verdicts, `judged` the (flag, trigger) of those that had another state at any time.
    """
    for last in triggers:
        if last.state == "unknown" and (last.flag, last.trigger) not in judged:
            why = last.reason or "nothing was evaluated"
            yield f"{last.flag}/{last.trigger} was unknown from beginning to end: {why}"


def matches_nothing(specs: Sequence[TriggerSpec], counts: Counts) -> bool:
    """Does the recording lack every watched service?"""
    return not any(Scope(spec.environment, spec.service) in counts for spec in specs)


def lost(counts: Counts) -> Iterator[str]:
    """A sentence for each service with samples that did not count or have no outcome."""
    for scope, row in sorted(counts.items()):
        if scope.flag:
            continue
        requests, late, rejected, untold = (int(row[column]) for column in (REQUESTS, LATE, REJECTED, NO_OUTCOME))
        parts = [f"{late:,} came late" if late else "", f"{rejected:,} were rejected" if rejected else ""]
        parts.append(f"{untold:,} do not say how the request ended" if untold else "")
        if any(parts):
            total = requests + late + rejected
            share = 100 * max(late + rejected, untold) / total
            unknown = f"; more than {MOST_MISSING} % at a time leaves verdicts unknown" if share > MOST_MISSING else ""
            yield f"{scope}: of {total:,} samples {', '.join(part for part in parts if part)}{unknown}"
