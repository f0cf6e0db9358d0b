"""What a trigger has learnt of its healthy rate in a day, so that a restart does not forget it: a compacted topic.

The log of partials holds minutes, the healthy rate rests on a day. A record a trigger, written every ten minutes, is
read before the first partial. Seconds that it counts already are not counted again when the log is replayed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from detectors.conditions.spec import TriggerSpec
from detectors.triggers.fast_triggers import Day
from streams.unreadable import UNREADABLE

EVERY = 600
"""Seconds of event time between two records of a trigger: what a restart may lose is little of a day."""

Key = tuple[str, str, str, str]
"""Environment, service, flag and trigger."""


class HealthyRateRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A trigger's day. `of` says what is counted as bad and where; a day of something else is of no use.

    `until` is the Unix second before which all is counted, `hours` has a row an hour: its number since 1970, minutes
    with requests, requests, bad ones, and the sums over the minutes of bad^2 / requests and of requests^2.
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
    """What a record says; None where it is none."""
    try:
        return _decoder.decode(value or b"")
    except UNREADABLE:
        return None


def learnt(specs: Sequence[TriggerSpec], days: Mapping[int, Day]) -> Iterator[HealthyRateRecord]:
    """The records of the triggers, by number, that have learnt something."""
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


def days(specs: Sequence[TriggerSpec], records: Iterable[HealthyRateRecord]) -> dict[int, Day]:
    """The days of the triggers, by number; those of another condition are left out."""
    known = {(s.environment, s.service, s.flag, s.name): (number, s) for number, s in enumerate(specs) if s.fast}
    found = {}
    for record in records:
        number, spec = known.get(record.key, (0, None))
        if spec is not None and record.of == _of(spec):
            found[number] = Day(record.until, tuple(record.hours))
    return found


def _of(spec: TriggerSpec) -> str:
    # Of a ratio the limit does not matter; of a latency it says which requests are bad.
    limit = f" > {spec.threshold!r}ms" if spec.condition.quantile is not None else ""
    return f"{spec.condition.label} of {spec.scope}{limit}"
