"""The healthy rates that triggers have learnt in a day, as records of a compacted topic, so that a restart keeps them.

A restart reads minutes of partials, a healthy rate depends on a day. Each trigger has one record, which is written
every ten minutes and read before the first partial. Seconds that it counts are not counted again in a replay.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from detectors.conditions.spec import TriggerSpec
from detectors.triggers.fast_triggers import Day
from streams.unreadable import UNREADABLE

EVERY = 600
"""Seconds of event time between two records of a trigger, which a restart may lose: little of a day."""

Key = tuple[str, str, str, str]
"""Environment, service, flag and trigger."""


class HealthyRateRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The requests of a day that a trigger has counted.

    `of` says which requests are bad, and of which scope; a record of another condition is not used. Seconds before
    `until` (Unix seconds) are counted. `hours` has a row for each hour: its number since 1970, minutes with requests,
    requests, bad requests, and the sums over the minutes of bad^2 / requests and of requests^2.
    """

    environment: str
    service: str
    flag: str
    trigger: str
    of: str
    until: int
    hours: list[tuple[int, float, float, float, float, float]]

    @property
    def key(self) -> Key:
        return self.environment, self.service, self.flag, self.trigger


encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(HealthyRateRecord)


def decode(value: bytes | None) -> HealthyRateRecord | None:
    """Read a record; None if it cannot be read."""
    try:
        return _decoder.decode(value or b"")
    except UNREADABLE:
        return None


def records_of(specs: Sequence[TriggerSpec], days: Mapping[int, Day]) -> Iterator[HealthyRateRecord]:
    """The records of the triggers that have counted an hour; `days` is by the number of the trigger."""
    for number, day in days.items():
        spec = specs[number]
        if day.hours:
            yield HealthyRateRecord(
                environment=spec.environment,
                service=spec.service,
                flag=spec.flag,
                trigger=spec.name,
                of=_of(spec),
                until=day.until,
                hours=[*day.hours],
            )


def days_of(specs: Sequence[TriggerSpec], records: Iterable[HealthyRateRecord]) -> dict[int, Day]:
    """The days by the number of the trigger; records of other triggers or other conditions are left out."""
    known = {(s.environment, s.service, s.flag, s.name): (number, s) for number, s in enumerate(specs) if s.fast}
    found = {}
    for record in records:
        number, spec = known.get(record.key, (0, None))
        if spec is not None and record.of == _of(spec):
            found[number] = Day(record.until, tuple(record.hours))
    return found


def _of(spec: TriggerSpec) -> str:
    # The limit of a ratio does not matter; that of a latency decides which requests are bad.
    limit = f" > {spec.threshold!r}ms" if spec.condition.quantile is not None else ""
    return f"{spec.condition.label} of {spec.scope}{limit}"
