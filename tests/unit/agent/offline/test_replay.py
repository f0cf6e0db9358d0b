"""Replay: the same recording gives the same lines, byte for byte, however it is cut, spread or shuffled."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.config.load import load
from agent.config.model import Config
from agent.offline.recordings import RecordingError, read
from agent.offline.replay import lines
from streams.replay import Replay, ReplaySettings
from tests.support.recordings import T0, Traffic, config_file, write
from tests.support.recordings import lines as as_lines

CONFIG = """\
apiVersion: flipback/v1
kafka: {brokers: [127.0.0.1:9092]}
telemetry: [{topic: requests, format: json}]
backends: {files: {kind: flagd-file, path: flags.json}}
flags:
  - flag: new-recommendations
    service: recommendations
    backend: files
    safe: "off"
    triggers:
      - {name: errors, when: error_rate > 2% over 5s for 5s, min_samples: 30, fast: false}
      - {name: against, when: error_rate@on > 3x control over 10s for 2s}
      - {name: slow, when: latency_p90 > 40ms over 10s, min_samples: 100}
      - {name: quiet, when: throughput < 3/s over 5s, action: alert}
      - {name: score, when: measure.score < 0.5 over 5s, action: hold}
"""


def recording(seed: int) -> list[bytes]:
    """Return half a minute of several services with a fault in the middle and a gap, in order of time."""
    rng = random.Random(seed)
    samples = []
    for s in range(30):
        if 20 <= s < 24:
            continue
        for _ in range(12):
            on = rng.random() < 0.5
            bad = 8 <= s < 18 and on and rng.random() < 0.6
            samples.append(
                {
                    "ts": T0 + s + rng.random(),
                    "service": rng.choice(["recommendations", "recommendations", "cart"]),
                    "status": 500 if bad else 200,
                    "latency_ms": round(rng.lognormvariate(3, 1), 3),
                    "instance": f"i-{rng.randrange(3)}",
                    "flags": {"new-recommendations": "on" if on else "off"},
                    "measures": {"score": rng.random()},
                }
            )
    samples.sort(key=lambda sample: float(sample["ts"]))  # type: ignore[arg-type]
    return as_lines(samples)


def output(config: Path, sources: list[list[bytes]], batch: int) -> list[bytes]:
    return output_of(load(config), sources, batch)


def output_of(loaded: Config, sources: list[list[bytes]], batch: int) -> list[bytes]:
    specs = loaded.trigger_specs()
    run = Replay(
        sources,
        specs,
        ReplaySettings(format="json", max_scopes=loaded.max_scopes, max_lateness=loaded.max_lateness, evaluate_every=1),
        batch=batch,
    )
    return [msgspec.json.encode(line) for line in lines(run, loaded, evaluations=True)]


class Plain(NamedTuple):
    """A recording, and what is said of it when it is read whole and in order."""

    config: Config
    whole: list[bytes]
    output: list[bytes]


@pytest.fixture(scope="module")
def plain_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Plain]:
    config = load(config_file(tmp_path_factory.mktemp("plain"), CONFIG))

    @cache
    def of(seed: int) -> Plain:
        whole = recording(seed)
        return Plain(config, whole, output_of(config, [whole], 2000))

    return of


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_batches_partitions_and_interleavings_within_the_lateness_change_nothing(
    plain_of: Callable[[int], Plain], data: st.DataObject
) -> None:
    config, whole, plain = plain_of(data.draw(st.integers(0, 5)))
    assert any(b'"to":"firing"' in line for line in plain)

    rng = random.Random(data.draw(st.integers(0, 2**32)))
    # Any order in which no sample comes 2 s or more after a newer one.
    shuffled = sorted(whole, key=lambda line: json.loads(line)["ts"] + rng.uniform(0, 1.99))
    partitions = data.draw(st.integers(1, 5))
    sources: list[list[bytes]] = [[] for _ in range(partitions)]
    for line in shuffled:
        sources[rng.randrange(partitions)].append(line)
    assert output_of(config, sources, data.draw(st.sampled_from([1, 7, 50, 2000]))) == plain


def test_every_evaluation_is_there_with_one_row_a_trigger(tmp_path: Path) -> None:
    config = config_file(tmp_path, CONFIG)
    rows = [json.loads(line) for line in output(config, [recording(1)], 100)]
    times = [row["time"] for row in rows if row["type"] == "evaluation"]
    assert sorted(set(times)) == list(range(T0 + 1, T0 + 31))
    assert all(times.count(t) == 5 for t in set(times))


def test_after_a_command_nothing_more_is_sent_for_the_flag(tmp_path: Path) -> None:
    config = config_file(tmp_path, CONFIG)
    commands = [json.loads(line) for line in output(config, [recording(1)], 100) if b'"type":"command"' in line]
    assert len(commands) == 1
    assert commands[0]["target"] == "off"


def test_an_instance_that_breaches_alone_among_several_commands_nothing(tmp_path: Path) -> None:
    def lie(sample: dict[str, object]) -> None:
        if sample["instance"] == "i-0":
            sample["status"] = 500

    traffic = Traffic(seconds=60, per_second=60, bad=1, period=1, faulty=lambda s: s >= 20, mark=lie)
    rows = [json.loads(line) for line in output(config_file(tmp_path, CONFIG), [as_lines(traffic.samples())], 500)]
    assert any(row["type"] == "change" and row["trigger"] == "errors" and row["to"] == "firing" for row in rows)
    assert [row for row in rows if row["type"] == "command"] == []


def test_gzip_is_told_by_its_bytes(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.jsonl", [{"ts": T0, "service": "s"}])
    (tmp_path / "b.jsonl").write_bytes(gzip.compress(plain.read_bytes()))
    assert list(read(tmp_path / "b.jsonl", "json")) == list(read(plain, "json"))


@pytest.mark.parametrize(
    ("content", "format", "message"),
    [
        (b"\x1f\x8bxx", "json", "cannot be read"),
        (b"\x01\x00", "columnar", "ends inside the length"),
        (b"\x05\x00\x00\x00ab", "columnar", "ends inside a record"),
        (b"\xff\xff\xff\xff", "columnar", "at most"),
    ],
)
def test_a_recording_that_cannot_be_read_says_why(tmp_path: Path, content: bytes, format: str, message: str) -> None:
    path = tmp_path / "broken"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=message):
        list(read(path, format))  # type: ignore[arg-type]


def test_bad_records_are_tallied_and_cost_only_themselves(tmp_path: Path) -> None:
    loaded = load(config_file(tmp_path, CONFIG))
    specs = loaded.trigger_specs()
    good = recording(2)
    bad = [b"{", b'{"ts": "now", "service": "s"}', b'{"ts": 1, "service": "s"}']
    run = Replay(
        [good[:100] + bad + good[100:]],
        specs,
        ReplaySettings(format="json", max_scopes=100, max_lateness=2.0, evaluate_every=1),
    )
    assert [msgspec.json.encode(line) for line in lines(run, loaded, evaluations=True)] == output(
        config_file(tmp_path, CONFIG), [good], 2000
    )
    assert sum(run.tally.rejected.values()) == len(bad)


COUNTERS = """\
apiVersion: flipback/v1
kafka: {brokers: [127.0.0.1:9092]}
telemetry: [{topic: counters, format: counters}]
backends: {files: {kind: flagd-file, path: flags.json}}
flags:
  - flag: new-cart
    service: cart
    backend: files
    safe: "off"
    triggers:
      - {name: errors, when: error_rate > 2% over 10s for 5s, min_samples: 30, fast: false}
      - {name: variant, when: error_rate@on > 2% over 10s for 5s, min_samples: 30, fast: false}
      - {name: cold, when: cache_hit_rate < 40% over 10s, min_samples: 30}
      - {name: quiet, when: throughput < 10/s over 10s, action: alert}
      - {name: quiet-minute, when: throughput < 10/s over 1m, action: alert}
"""


def snapshots(seed: int) -> list[bytes]:
    """Return counters of two processes with 100 requests/s each, every 5.1 s. The one with the flag on fails in the
    second minute.
    """
    rng, found = random.Random(seed), []
    for name, on in (("a", True), ("b", False)):
        errors, last, at = 0.0, 0.0, rng.random()
        while at < 180:
            errors += 30 * (at - last) if on and 60 <= at < 120 else 0
            lookups = round(100 * at)
            counters = {"requests": round(100 * at), "errors": round(errors)}
            counters |= {"cache_hits": lookups // 2, "cache_lookups": lookups}
            flags = {"new-cart": "on" if on else "off"}
            found.append({"ts": T0 + at, "service": "cart", "instance": name, "flags": flags, "counters": counters})
            last, at = at, at + 5.1 + rng.uniform(-0.05, 0.05)
    found.sort(key=lambda row: row["ts"])  # type: ignore[arg-type,return-value]
    return as_lines(found)


def judged(config: Path, sources: list[list[bytes]], batch: int) -> list[bytes]:
    loaded = load(config)
    specs = loaded.trigger_specs()
    rules = ReplaySettings(format="counters", max_scopes=100, max_lateness=2.0, evaluate_every=1)
    run = Replay(sources, specs, rules, batch=batch)
    return [msgspec.json.encode(line) for line in lines(run, loaded, evaluations=True)]


@pytest.mark.parametrize("seed", [0, 1])
def test_counters_are_judged_alike_however_they_are_cut_and_each_series_in_a_partition_of_its_own(
    seed: int, tmp_path: Path
) -> None:
    config = config_file(tmp_path, COUNTERS)
    whole = snapshots(seed)
    plain = judged(config, [whole], 2000)
    assert judged(config, [whole], 1) == plain
    by_key = [[line for line in whole if name in line] for name in (b'"a"', b'"b"')]
    assert judged(config, by_key, 3) == plain
    fired = {
        row["trigger"]: row["time"] - T0
        for row in map(json.loads, reversed(plain))
        if row["type"] == "change" and row["to"] == "firing"
    }
    # A snapshot with the fault comes within 5.15 s and is judged at the next second; the breach must hold for 5 s.
    assert set(fired) == {"errors", "variant"}
    assert all(65 <= at <= 72 for at in fired.values())


def test_a_window_of_counters_holds_one_snapshot_more_or_less(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in judged(config_file(tmp_path, COUNTERS), [snapshots(3)], 500)]
    for trigger, window in (("quiet", 10), ("quiet-minute", 60)):
        values = [row["value"] for row in rows if row["type"] == "evaluation" and row["trigger"] == trigger]
        settled = values[window + 10 :]
        # Two processes with 100 requests/s each.
        assert max(abs(value - 200) for value in settled) <= 200 * 5.2 / window
        assert max(abs(value - 200) for value in settled) >= 200 * 0.02


def test_a_replay_names_what_is_wrong_with_samples_that_count_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    sample = {"ts": T0, "service": "recommendations", "status_code": 500, "latency_ms": -1}
    write(path, [sample | {"ts": T0 + second} for second in range(9)])
    run = Replay(
        [read(path, "json")],
        [],
        ReplaySettings(format="json", max_scopes=9, max_lateness=2.0, evaluate_every=1),
        names=["requests"],
    )
    for _ in run.seconds():
        pass
    told = {(fault.kind, fault.field): fault.samples for fault in run.tally.faults.entries()}
    assert told == {("missing", "status"): 9, ("dropped", "latency_ms"): 9}
