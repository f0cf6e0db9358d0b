"""Recordings that nobody made for flipback hold what is written about them."""

from __future__ import annotations

import shutil
from collections import Counter
from functools import lru_cache
from pathlib import Path

import pytest

from agent.config.baseline import read_baseline
from agent.config.load import load
from agent.errors import ConfigError
from streams.decoders.decoder import Decoder
from streams.decoders.interner import Interner
from streams.decoders.watch_list import WatchList
from streams.slices import Slice, Source
from streams.telemetry.sample import KIND_COUNTS
from tests.oracle import crash_rates, mooncake, nginx_status
from tests.oracle.replays import DATA


def test_the_counters_of_nginx_are_counted_to_the_last_request() -> None:
    values: list[bytes | None] = list(nginx_status.records())
    interner = Interner(WatchList.of([]))
    slice_ = Slice(Source("counters", 0), values, list(range(len(values))), [-1] * len(values), {})
    batch = Decoder({"counters": "counters"}, interner).decode(slice_)
    assert batch.rejects == []
    found: Counter[tuple[str, str]] = Counter()
    names = ("requests", "errors", "timeouts", "unavailable", "cache_hits", "cache_lookups")
    starts, scopes, _ = batch.table.expansion()
    for profile, kind, n in zip(batch.columns.profile, batch.columns.kind, batch.columns.n, strict=True):
        service = interner.scopes[scopes[starts[profile]]].service
        found.update({(service, name): int(of * n) for name, of in zip(names, KIND_COUNTS[kind], strict=False)})
    first, *_, last = nginx_status.statuses()
    before, after = dict(nginx_status.totals(first)), dict(nginx_status.totals(last))
    for service, counters in after.items():
        for name, total in counters.items():
            assert found[service, name] == total - before[service][name], (service, name)


@pytest.mark.parametrize("places", [mooncake.SHRUNK, mooncake.BLOCKS])
def test_the_cache_of_mooncake_hits_what_another_one_of_its_size_hits(places: int) -> None:
    other = lru_cache(maxsize=places)(lambda block: None)
    cache, hits = mooncake.Lru(), 0
    for _, blocks in mooncake.requests():
        for block in blocks:
            hits += cache.look_up(block, places)
            other(block)
    assert hits == other.cache_info().hits > 0


def test_the_baseline_of_mooncake_is_what_was_measured_before_the_incident() -> None:
    stored = read_baseline(DATA / "mooncake-baseline.json").value("production", mooncake.SERVICE, "cache_hit_rate")
    measured = mooncake.hit_rate(mooncake.SHRUNK_FROM - 600, mooncake.SHRUNK_FROM)
    assert stored == pytest.approx(measured, abs=0.01)


def test_a_limit_that_the_cache_of_mooncake_breaches_when_it_is_well_is_refused(tmp_path: Path) -> None:
    text = (DATA / "mooncake.yaml").read_text()
    path = tmp_path / "mooncake.yaml"
    shutil.copy(DATA / "mooncake-baseline.json", tmp_path)
    path.write_text(text.replace("cache_hit_rate < 0.5x baseline for 5m", "cache_hit_rate < 40% for 5m"))
    with pytest.raises(ConfigError, match=r"a service that is well has 0\.63 bad requests in one"):
        load(path)


def test_an_hour_of_the_crash_rates_is_a_minute_with_its_crashes() -> None:
    hours = [hour for hour in crash_rates.series()["app1-09"] if hour.crashes is not None]
    values: list[bytes | None] = [record for record in crash_rates.records() if b'"app1-09"' in record]
    slice_ = Slice(Source("counters", 0), values, list(range(len(values))), [-1] * len(values), {})
    columns = Decoder({"counters": "counters"}, Interner(WatchList.of([]))).decode(slice_).columns
    found: Counter[int] = Counter()
    for ts, kind, n in zip(columns.ts, columns.kind, columns.n, strict=True):
        found[int(ts) // 60 * 60] += int(KIND_COUNTS[kind][1] * n)
    assert +found == +Counter({hour.at: hour.crashes for hour in hours if hour.crashes})
