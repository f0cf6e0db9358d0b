"""What counts as one source of evidence (docs/promises.md#p2-evidence-before-a-flip).

A sample names its own instance, so a broken machine with two workers, or a program that invents names, counts as
several. A topic can be configured so that the machine's part of the name is the source, or the Kafka partition.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np

from detectors.arrays import Int
from streams.decoders.interner import Table
from streams.slices import Source

INSTANCE: Final = "instance"
PARTITION: Final = "partition"


def pattern_of(rule: str) -> re.Pattern[str] | None:
    """The pattern of a rule, None for INSTANCE and PARTITION. Raises ValueError for a pattern that is not valid."""
    if rule in (INSTANCE, PARTITION):
        return None
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise ValueError(f"no regular expression: {error}") from None
    if pattern.groups != 1:
        raise ValueError(f"a regular expression with {pattern.groups} groups, expected 1: the part that is the source")
    return pattern


class SourceRule:
    """Replaces the instances of a topic's samples by their sources."""

    def __init__(self, rule: str) -> None:
        self._by_partition = rule == PARTITION
        self._pattern = pattern_of(rule)
        self._table: Table | None = None
        self._numbers: Int = np.zeros(0, dtype=np.int64)

    def numbered(self, instance: Int, source: Source, table: Table) -> Int:
        """The numbers in `table` of the sources of samples with these instance numbers (n,)."""
        if self._by_partition:
            return np.full(len(instance), table.instances[f"{source.topic}/{source.partition}"], dtype=np.int64)
        if self._pattern is None:
            return instance
        if table is not self._table:
            self._table, self._numbers = table, np.zeros(0, dtype=np.int64)
        # Match each name once. The sources become names of the table too, and are matched like the others.
        names = table.instances.names[len(self._numbers) :]
        if names:
            new = [table.instances[self._named(name)] for name in names]
            self._numbers = np.concatenate([self._numbers, np.array(new, dtype=np.int64)])
        numbers: Int = self._numbers[instance]
        return numbers

    def _named(self, instance: str) -> str | None:
        found = self._pattern.match(instance) if self._pattern is not None and instance else None
        return (found.group(1) if found is not None else None) or instance or None
