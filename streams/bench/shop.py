"""Generated requests of a shop, as JSON records or as columnar batches made with the public encoder.

All numbers come from a seeded generator, so that every run has the same data except for its times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec
import numpy as np

from detectors.arrays import Float
from detectors.cells import Scope
from streams.decoders.watch_list import WatchList
from streams.telemetry.columnar import ColumnarBatch, encode
from streams.telemetry.sample import Cache, Outcome, Sample

ENVIRONMENT = "production"
VARIANTS = ("on", "off")
INSTANCES = 3
"""Instances of each service."""

_JITTER = 0.05
"""Maximum number of seconds by which requests reach the topic out of order."""
_KINDS: Final[tuple[tuple[int, Outcome], ...]] = (
    (200, "ok"),
    (404, "ok"),
    (500, "error"),
    (503, "unavailable"),
    (504, "timeout"),
)
_KIND_SHARES = (0.97, 0.01, 0.01, 0.005, 0.005)
_CACHES: Final[tuple[Cache, ...]] = ("hit", "miss", "bypass")
_CACHE_SHARES = (0.6, 0.2, 0.2)
_CHUNK = 5000


class TimedRecord(NamedTuple):
    """A record's value, and its timestamp in Unix milliseconds."""

    value: bytes
    timestamp_ms: int


@dataclass(slots=True)
class Shop:
    """`services` services, each with one flag of two variants, which together send `rate` requests a second."""

    services: int
    rate: float
    _numbers: np.random.Generator = field(default_factory=lambda: np.random.default_rng(20240501))

    def service(self, number: int) -> str:
        return f"service-{number:03}"

    def flag(self, number: int) -> str:
        return f"release-{number:03}"

    def watch_list(self) -> WatchList:
        """Every service, its flag and both variants."""
        scopes = []
        for number in range(self.services):
            whole = Scope(ENVIRONMENT, self.service(number))
            scopes += [whole, *(whole._replace(flag=self.flag(number), variant=v) for v in VARIANTS)]
        return WatchList.of(scopes, [])

    def json(self, start: float, requests: int, share: float) -> Iterator[TimedRecord]:
        """Single JSON records of one partition, which gets `share` of the requests; event time begins at `start`."""
        done = 0
        while done < requests:
            size = min(_CHUNK, requests - done)
            due = start + (done + np.arange(size)) / (self.rate * share)
            rows = self._rows(due, size)
            for ts, service, variant, instance, kind, cache, latency in zip(*rows, strict=True):
                status, outcome = _KINDS[kind]
                yield TimedRecord(
                    (
                        f'{{"ts":{ts:.6f},"service":"service-{service:03}","environment":"{ENVIRONMENT}",'
                        f'"route":"/api/v1/items","method":"GET","instance":"pod-{service:03}-{instance}",'
                        f'"status":{status},"outcome":"{outcome}","latency_ms":{latency:.3f},'
                        f'"cache":"{_CACHES[cache]}","flags":{{"release-{service:03}":"{VARIANTS[variant]}"}},"n":1}}'
                    ).encode(),
                    int(ts * 1000),
                )
            done += size

    def _rows(self, due: Float, size: int) -> list[list[float]]:
        numbers = self._numbers
        columns = (
            due + numbers.uniform(0, _JITTER, size),
            numbers.integers(0, self.services, size),
            numbers.integers(0, len(VARIANTS), size),
            numbers.integers(0, INSTANCES, size),
            numbers.choice(len(_KINDS), size, p=_KIND_SHARES),
            numbers.choice(len(_CACHES), size, p=_CACHE_SHARES),
            numbers.lognormal(3.4, 0.6, size),
        )
        return [column.tolist() for column in columns]

    def templates(self, count: int, samples: int) -> list[ColumnarBatch]:
        """Batches of `samples` samples whose times are seconds since the first of the batch; see `at`."""
        found = []
        for _ in range(count):
            rows = self._rows(np.zeros(samples), samples)
            made = [
                Sample(
                    # Any valid time; `at` sets the real ones.
                    ts=1e9,
                    service=self.service(int(service)),
                    environment=ENVIRONMENT,
                    instance=f"pod-{int(service):03}-{int(instance)}",
                    status=_KINDS[int(kind)][0],
                    outcome=_KINDS[int(kind)][1],
                    cache=_CACHES[int(cache)],
                    latency_ms=round(latency, 3),
                    flags={self.flag(int(service)): VARIANTS[int(variant)]},
                )
                for _, service, variant, instance, kind, cache, latency in zip(*rows, strict=True)
            ]
            found.append(_decoder.decode(encode(made)))
        return found

    def columnar(self, start: float, records: int, samples: int, share: float) -> Iterator[TimedRecord]:
        """Columnar records of one partition, each of `samples` samples."""
        templates = self.templates(32, samples)
        step = samples / (self.rate * share)
        for number in range(records):
            yield self.at(templates[number % len(templates)], start + number * step, step)

    def at(self, template: ColumnarBatch, start: float, span: float) -> TimedRecord:
        """The batch with its samples spread over `span` seconds from `start`."""
        ts = start + np.sort(self._numbers.uniform(0, span, template.n))
        # The same bytes as `streams.telemetry.columnar.encode` of samples with these times.
        batch = msgspec.structs.replace(template, ts=ts.astype("<f8").tobytes())
        return TimedRecord(_encoder.encode(batch), int((start + span) * 1000))


_decoder = msgspec.msgpack.Decoder(ColumnarBatch)
_encoder = msgspec.msgpack.Encoder()
