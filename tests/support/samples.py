"""Samples for tests: at random, in every format, and exact counts of them by plain loops."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
from hypothesis import strategies as st

from detectors.cells import COUNTS, MEASURE_SCALE, Cells, Scope
from detectors.histogram import bins
from streams.decoders.decoder import Decoder
from streams.decoders.faults import Faults
from streams.decoders.interner import Interner
from streams.decoders.watch_list import WatchList
from streams.ingest.reducer import Reducer
from streams.settings import Format
from streams.slices import Slice, Source
from streams.telemetry.columnar import encode
from streams.telemetry.sample import Sample

T0 = 1_700_000_000
TOPIC = "requests"
WATCH = WatchList.of([Scope("production", "cart", "new", "on"), Scope("production", "cart", "dark", "")])

samples = st.builds(
    Sample,
    ts=st.floats(T0, T0 + 6, exclude_max=True),
    service=st.sampled_from(["cart", "shop"]),
    environment=st.sampled_from(["production", "staging"]),
    route=st.sampled_from([None, "/a"]),
    instance=st.sampled_from([None, "i-1", "i-2"]),
    status=st.sampled_from([None, 200, 404, 408, 500, 502, 503, 504, 599]),
    outcome=st.sampled_from([None, None, "ok", "error", "timeout", "unavailable"]),
    latency_ms=st.none() | st.floats(0, 100_000),
    cache=st.sampled_from([None, "hit", "miss", "bypass"]),
    flags=st.none() | st.dictionaries(st.sampled_from(["new", "dark", "other"]), st.sampled_from(["on", "off"])),
    measures=st.none() | st.dictionaries(st.sampled_from(["score", "price"]), st.floats(-1000, 1000), max_size=2),
    n=st.sampled_from([1, 1, 1, 2, 1000]),
)


completed = st.builds(
    lambda sample, id: sample if id is None or sample.n != 1 else msgspec.structs.replace(sample, id=id),
    samples,
    st.none() | st.text(min_size=1, max_size=128),
)
"""Samples of which some have the id of their request."""
started = st.builds(
    lambda sample, id: msgspec.structs.replace(sample, n=1, id=id, kind="started"),
    samples,
    st.text(min_size=1, max_size=128),
)


@dataclass
class CellCounts:
    """One scope in one second, counted the plain way."""

    counts: Counter[str] = field(default_factory=Counter)
    hist: Counter[int] = field(default_factory=Counter)
    instances: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    measures: dict[str, tuple[int, int]] = field(default_factory=dict)


CellsByScope = dict[tuple[Scope, int], CellCounts]


def count(given: Iterable[Sample], watch: WatchList = WATCH) -> CellsByScope:
    """What the samples add up to, one by one; of starts nothing."""
    result: CellsByScope = defaultdict(CellCounts)
    for sample in given:
        if sample.kind == "started":
            continue
        n = 1 if sample.n is None else sample.n
        environment = sample.environment or "production"
        watched = watch.flags.get((environment, sample.service), frozenset())
        scopes = [Scope(environment, sample.service)]
        scopes += [Scope(environment, sample.service, f, v) for f, v in (sample.flags or {}).items() if f in watched]
        adds: Counter[str] = Counter(requests=n)
        outcome = sample.outcome or _from_status(sample.status)
        if outcome == "unknown":
            adds["no_outcome"] += n
        elif outcome != "ok":
            adds["errors"] += n
        if outcome == "timeout":
            adds["timeouts"] += n
        if outcome == "unavailable":
            adds["unavailable"] += n
        if sample.cache in ("hit", "miss"):
            adds["cache_lookups"] += n
            adds["cache_hits"] += n * (sample.cache == "hit")
        if sample.latency_ms is not None:
            adds["latency_count"] += n
            adds["latency_us"] += round(sample.latency_ms * 1000) * n
        for scope in scopes:
            cell = result[scope, math.floor(sample.ts)]
            cell.counts.update(adds)
            cell.instances[sample.instance or ""].update(adds)
            if sample.latency_ms is not None:
                cell.hist[int(bins(np.array([sample.latency_ms]))[0])] += n
            for name, value in (sample.measures or {}).items():
                times, total = cell.measures.get(name, (0, 0))
                cell.measures[name] = times + n, total + round(value * MEASURE_SCALE) * n
    return dict(result)


def _from_status(status: int | None) -> str:
    if status is None:
        return "unknown"
    if not 500 <= status <= 599 and status != 408:
        return "ok"
    return {408: "timeout", 504: "timeout", 502: "unavailable", 503: "unavailable"}.get(status, "error")


def cells_by_scope(blocks: Iterable[Cells]) -> CellsByScope:
    """The counts of cells; a (scope, second) stands once in all blocks together."""
    result: CellsByScope = {}
    for cells in blocks:
        rows = []
        for i in range(len(cells)):
            key = cells.scopes[cells.scope[i]], int(cells.second[i])
            assert key not in result, f"{key} was closed twice"
            result[key] = counted = CellCounts(Counter(_named(cells.counts[i])))
            rows.append(counted)
        for i, cell in enumerate(cells.hist_cell.tolist()):
            rows[cell].hist[int(cells.hist_bin[i])] += int(cells.hist_count[i])
        for i, cell in enumerate(cells.instance_cell.tolist()):
            rows[cell].instances[cells.instances[cells.instance_id[i]]] = Counter(_named(cells.instance_counts[i]))
        for i, cell in enumerate(cells.measure_cell.tolist()):
            name = cells.measures[cells.measure_id[i]]
            rows[cell].measures[name] = int(cells.measure_count[i]), int(cells.measure_sum[i])
    return result


def _named(row: np.ndarray) -> dict[str, int]:
    return {name: int(value) for name, value in zip(COUNTS, row, strict=True) if value}


def records_of(given: Sequence[Sample], form: Format, a_record: int = 1) -> list[bytes]:
    """The samples in records of a format, with `a_record` samples each, or one if a record holds only one."""
    if form == "counters":
        return list(snapshots(given))
    if form == "json":
        return [msgspec.json.encode(sample) for sample in given]
    parts = [given[i : i + a_record] for i in range(0, len(given), a_record)]
    if form == "json-array":
        return [msgspec.json.encode(list(part)) for part in parts]
    if form == "ndjson":
        return [msgspec.json.Encoder().encode_lines(part) for part in parts]
    return [encode(part) for part in parts]


def without_values(sample: Sample) -> Sample:
    """The sample as counters can represent it: without latency and measures, and with a known outcome."""
    status = 200 if sample.status is None and sample.outcome is None else sample.status
    return msgspec.structs.replace(sample, latency_ms=None, measures=None, status=status)


def snapshots(given: Sequence[Sample]) -> Iterator[bytes]:
    """Snapshots of counters that rise with every sample, in order of time; each series begins with zeros.

    They have neither latency nor measures.
    """
    totals: dict[tuple[object, ...], Counter[str]] = {}
    names: dict[tuple[object, ...], dict[str, object]] = {}
    rows: dict[tuple[tuple[object, ...], float], dict[str, int]] = {}
    for sample in given:
        key = sample.environment, sample.service, sample.instance, tuple(sorted((sample.flags or {}).items()))
        fields = {name: getattr(sample, name) for name in ("environment", "service", "instance", "flags")}
        names[key] = {name: value for name, value in fields.items() if value is not None}
        total = totals.setdefault(key, Counter(requests=0))
        n = sample.n or 1
        total["requests"] += n
        outcome = sample.outcome or _from_status(sample.status)
        total["errors"] += n * (outcome != "ok")
        total["timeouts"] += n * (outcome == "timeout")
        total["unavailable"] += n * (outcome == "unavailable")
        total["cache_lookups"] += n * (sample.cache in ("hit", "miss"))
        total["cache_hits"] += n * (sample.cache == "hit")
        # A series has one snapshot at a time; a later one replaces it.
        rows[key, sample.ts] = dict(total)
    for series in names.values():
        yield msgspec.json.encode({"ts": T0 - 1, **series, "counters": {"requests": 0}})
    for (of, ts), counters in rows.items():
        yield msgspec.json.encode({"ts": ts, **names[of], "counters": counters})


class Stage:
    """One source partition's decoder and reducer."""

    def __init__(self, form: Format, *, watch: WatchList = WATCH, max_scopes: int = 2000) -> None:
        self.interner = Interner(watch, max_scopes)
        self.decoder = Decoder({TOPIC: form}, self.interner)
        self.reducer = Reducer(Source(TOPIC, 0), self.interner, 2.0)
        self.offset = 0
        self.rejects: dict[int, str] = {}
        self.reasons: dict[int, str] = {}
        self.faults = Faults()

    def take(self, values: Sequence[bytes | None], *, now: float = math.inf, timestamp: int = -1) -> None:
        offsets = list(range(self.offset, self.offset + len(values)))
        self.offset += len(values)
        batch = self.decoder.decode(Slice(Source(TOPIC, 0), list(values), offsets, [timestamp] * len(values), {}))
        self.faults.add_all(batch.faults)
        for reject in batch.rejects + self.reducer.add(batch, now):
            self.rejects[reject.offset] = reject.kind
            self.reasons[reject.offset] = reject.reason

    def dropped(self) -> dict[str, int]:
        """How many samples count without a field, by the field's name."""
        return {fault.field: fault.samples for fault in self.faults.entries() if fault.kind == "dropped"}

    def close(self, watermark: float = T0 + 10.0) -> CellsByScope:
        return cells_by_scope([self.reducer.close(watermark)])


def as_json(**fields: object) -> bytes:
    return json.dumps({"ts": T0 + 0.5, "service": "cart", "status": 200, **fields}).encode()
