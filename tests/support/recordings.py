"""Recordings made for tests, one JSON sample a line, and an oracle that evaluates a rule on them with plain loops."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

T0 = 1_700_000_000
SERVICE = "recommendations"

CONFIG = """\
apiVersion: flipback/v1
kafka: {brokers: [127.0.0.1:9092]}
telemetry:
  - {topic: requests, format: json}
backends:
  files: {kind: flagd-file, path: flags.json}
flags:
  - flag: new-recommendations
    service: recommendations
    backend: files
    safe: "off"
    triggers:
      - {name: errors, when: error_rate > 2% for 2m, min_samples: 30, fast: false}
      - {name: slow, when: latency_p95 > 45s for 1m, min_samples: 200}
      - {name: cold-cache, when: cache_hit_rate < 40% for 5m, min_samples: 30}
      - {name: down, when: availability < 99% for 30s, min_samples: 30, fast: false}
"""


def config_file(directory: Path, text: str = CONFIG) -> Path:
    path = directory / "flipback.yaml"
    path.write_text(text)
    return path


@dataclass(frozen=True)
class Traffic:
    """`per_second` requests in each second of [T0, T0 + seconds). In `faulty` seconds, `bad` of every `period` fail.

    The k-th request of second s ends at s + k / per_second. `mark` changes a sample into one that failed. `silent`
    seconds have no requests.
    """

    seconds: int
    per_second: int
    bad: int
    period: int
    faulty: Callable[[int], bool]
    mark: Callable[[dict[str, object]], None]
    silent: Callable[[int], bool] = lambda s: False

    def samples(self) -> list[dict[str, object]]:
        out = []
        for s in range(self.seconds):
            if self.silent(s):
                continue
            for k in range(self.per_second):
                sample: dict[str, object] = {
                    "ts": T0 + s + k / self.per_second,
                    "service": SERVICE,
                    "status": 200,
                    "latency_ms": 20.0,
                    "cache": "hit",
                    "instance": f"i-{k % 3}",
                    # All users have the flag on, so that there is no control group that could breach too.
                    "flags": {"new-recommendations": "on"},
                }
                if self.faulty(s) and k % self.period < self.bad:
                    self.mark(sample)
                out.append(sample)
        return out


def lines(samples: Iterable[dict[str, object]]) -> list[bytes]:
    return [msgspec.json.encode(sample) for sample in samples]


def write(path: Path, samples: Iterable[dict[str, object]]) -> Path:
    path.write_bytes(b"".join(line + b"\n" for line in lines(samples)))
    return path


def expected_firing(
    samples: Sequence[dict[str, object]],
    *,
    counts: Callable[[dict[str, object]], tuple[int, int]],
    breach: Callable[[int, int], bool],
    over: int,
    hold: int,
    min_samples: int,
    grace: int = 30,
) -> int | None:
    """The first evaluation at which a rule fires, computed second by second; None if it never does.

    `counts` gives what a sample adds to (numerator, denominator); `breach` decides on their sums over the window.
    """
    per_second = counted(samples, counts)
    return first_firing(per_second, breach=breach, over=over, hold=hold, min_samples=min_samples, grace=grace)


def counted(
    samples: Iterable[dict[str, object]], counts: Callable[[dict[str, object]], tuple[int, int]]
) -> dict[int, tuple[int, int]]:
    """What the samples of each second add to (numerator, denominator)."""
    per_second: dict[int, tuple[int, int]] = {}
    for sample in samples:
        second = int(float(sample["ts"]))  # type: ignore[arg-type]
        a, b = per_second.get(second, (0, 0))
        x, y = counts(sample)
        per_second[second] = (a + x, b + y)
    return per_second


def first_firing(
    per_second: Mapping[int, tuple[int, int]],
    *,
    breach: Callable[[int, int], bool],
    over: int,
    hold: int,
    min_samples: int,
    grace: int = 30,
) -> int | None:
    """The same as `expected_firing`, of counts by second."""
    held: int | None = None
    last_known: int | None = None
    for t in range(min(per_second) + 1, max(per_second) + 2):
        window = [per_second.get(s, (0, 0)) for s in range(t - over, t)]
        top, bottom = sum(a for a, _ in window), sum(b for _, b in window)
        if bottom < min_samples:
            if last_known is not None and t - last_known > grace:
                held = None
            elif held is not None:
                held += 1
            continue
        last_known = t
        if not breach(top, bottom):
            held = None
            continue
        held = t if held is None else held
        if t - held >= hold:
            return t
    return None
