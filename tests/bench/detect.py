"""`make bench-detect`: measures delays and false alarms of the detectors by simulation, with their theoretical bounds.

python -m tests.bench.detect [PART]... [--json]     parts: fast steady low bursty canary ratio absence drift cost

All random numbers come from one seed, so that a run can be repeated. Arrivals are Poisson; in each second a request is
bad with a given probability. Delays are whole seconds from the change to the alarm. A figure without a limit is for
information. The exit status is 1 if a limit is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from math import log, log1p
from pathlib import Path

import numpy as np

from agent.config.load import load
from agent.offline.simulate import false_alarms
from agent.offline.simulated_service import Scenario
from detectors.arrays import Bool, Float, Int
from detectors.sequential.absence import Absence, AbsenceConfig
from detectors.sequential.canary_proof import CanaryProof, CanaryProofConfig
from detectors.sequential.fast_tier import FastTier, FastTierConfig
from detectors.sequential.healthy_rate import HealthyRate, HealthyRateConfig
from detectors.sequential.sample_ratio import SampleRatio, SampleRatioConfig
from streams.monitor.drift import DriftConfig, DriftWatch

SEED = 20_260_101
HEALTHY, THRESHOLD = 0.005, 0.02
RATES = (5, 50, 500, 5000)
DAYS = 200
DAY = 86_400
LOW_RATES, LOW_DAYS = (0.1, 0.3, 1.0), 90
SEEDS = {
    "errors": "error_rate > 2% for 2m",
    "slow": "latency_p95 > 45s for 1m",
    "cold-cache": "cache_hit_rate < 40% for 5m",
    "down": "availability < 99% for 30s",
}
COST_ROWS = 10_000
TICK = 0.5
"""Mean seconds between evidence and the end of its second."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line: the measured `value`, the theoretical `bound` and the promised `limit`; None if there is none."""

    part: str
    case: str
    unit: str
    value: float
    bound: float | None = None
    limit: float | None = None
    note: str = ""

    @property
    def kept(self) -> bool:
        return self.limit is None or self.value <= self.limit


def divergence(p: float, q: float) -> float:
    """The Kullback-Leibler divergence of two Bernoulli distributions, in nats."""
    return sum(a * log(a / b) for a, b in ((p, q), (1 - p, 1 - q)) if a)


def traffic(rng: np.random.Generator, rate: float, share: Float | float, rows: int) -> tuple[Int, Int]:
    """The numbers of bad requests and of all requests of one second, for each row."""
    requests = rng.poisson(rate, rows)
    return rng.binomial(requests, share), requests


def fast() -> Iterator[Figure]:
    """Delays of the fast tier at a fixed r0, after five healthy minutes."""
    runs, warm, patience = 400, 300, 3000
    limits = {0.5: 1.2, 0.2: 2.0, 0.05: 25.0}
    for rate in RATES:
        for p in (1.0, 0.5, 0.2, 0.05):
            rng = np.random.default_rng(SEED)
            detector = FastTier(runs, FastTierConfig())
            delay = np.full(runs, np.nan)
            for second in range(warm + patience):
                bad, requests = traffic(rng, rate, HEALTHY if second < warm else p, runs)
                alarm = detector.update(second, bad, requests, THRESHOLD)
                if second >= warm:
                    delay[alarm & np.isnan(delay)] = second - warm + 1
                    if not np.isnan(delay).any():
                        break
            bound = detector.bound / divergence(p, THRESHOLD) / rate
            # One second more, because a second is evaluated only when it is over.
            limit = limits.get(p) if rate == 50 else 1.5 * bound + 1
            yield Figure(
                "fast", f"{rate}/s, {p:.0%} fail: mean delay", "s", float(delay.mean()), bound, limit,
                f"95 %: {np.quantile(delay, 0.95):.0f} s",
            )  # fmt: skip


def steady() -> Iterator[Figure]:
    """False alarms of the fast tier on a service with a constant rate, below r0 and equal to it."""
    rows, seconds = 2000, DAYS * DAY // 2000
    for share in (HEALTHY, THRESHOLD):
        for rate in RATES:
            rng = np.random.default_rng(SEED)
            detector = FastTier(rows, FastTierConfig())
            count = Episodes(rows)
            for second in range(seconds):
                bad, requests = traffic(rng, rate, share, rows)
                count.add(detector.update(second, bad, requests, THRESHOLD))
            yield Figure(
                "steady", f"{rate}/s, {share:.1%} fail, r0 {THRESHOLD:.0%}: false alarms", "a month",
                count.seen * 30 / DAYS, 1.0, 1.0, f"{count.seen} in {DAYS} days",
            )  # fmt: skip


def low() -> Iterator[Figure]:
    """How often the seed triggers, with all defaults, fire on a healthy service with little traffic.

    Windows, `min_samples: auto` and the fast tier work together, in a thousand simulated copies.
    """
    flag = {"flag": "new", "service": "shop", "backend": "files", "safe": "off"}
    config = {
        "apiVersion": "flipback/v1",
        "kafka": {"brokers": ["127.0.0.1:9092"]},
        "telemetry": [{"topic": "requests", "format": "json"}],
        "backends": {"files": {"kind": "flagd-file", "path": "flags.json"}},
        "flags": [{**flag, "triggers": [{"name": name, "when": when} for name, when in SEEDS.items()]}],
    }
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "flipback.yaml"
        # Every JSON document is also YAML.
        path.write_text(json.dumps(config))
        specs = load(path).trigger_specs()
    for rate in LOW_RATES:
        for spec in specs:
            rng = np.random.default_rng(SEED)
            scenario = Scenario(rate=rate, split=0.5, healthy=HEALTHY, bad=2 * THRESHOLD)
            alarms = false_alarms(spec, scenario, LOW_DAYS, False, rng) * LOW_DAYS / 30
            yield Figure("low", f"{rate}/s, seed trigger {spec.name}: rollbacks", "90 days", alarms, None, 0.0)


def minutes(rng: np.random.Generator, kind: str, cv: float, rows: int) -> Float:
    """A random rate of one minute for each row, with mean `HEALTHY` and coefficient of variation `cv`."""
    if kind == "gamma":
        return np.minimum(HEALTHY * rng.gamma(cv**-2, cv**2, rows), 1.0)
    spread = log1p(cv * cv)
    return np.minimum(HEALTHY * np.exp(rng.normal(-spread / 2, spread**0.5, rows)), 1.0)


def bursty() -> Iterator[Figure]:
    """False alarms and delays if every minute has another rate, and r0 was learnt from one day.

    A minute above the threshold is pending; the third one in a row fires, as does every alarm of the fast tier. r0 is
    not learnt from such minutes, which are the worst healthy ones.
    """
    rows = 400
    cases = [("gamma", 1.0, rate) for rate in RATES]
    cases += [("gamma", cv, rate) for cv in (0.5, 1.5, 2.0) for rate in (50, 5000)]
    cases += [("log-normal", cv, rate) for cv in (0.5, 1.0) for rate in (50, 5000)]
    for kind, cv, rate in cases:
        rng = np.random.default_rng(SEED)
        healthy, detector = HealthyRate(rows, HealthyRateConfig()), FastTier(rows, FastTierConfig())
        above = np.zeros(rows, dtype=np.int64)
        for minute in range(DAY // 60):
            bad, requests = traffic(rng, 60 * rate, minutes(rng, kind, cv, rows), rows)
            above = np.where(bad > THRESHOLD * requests, above + 1, 0)
            healthy.update(60 * minute, bad, requests, above > 0, above > 2)
        count = Episodes(rows)
        start, seconds = DAY, DAYS * DAY // rows
        share = np.zeros(rows)
        in_minute = np.zeros((2, rows), dtype=np.int64)
        for second in range(start, start + seconds):
            if second % 60 == 0:
                share = minutes(rng, kind, cv, rows)
                above = np.where(in_minute[0] > THRESHOLD * in_minute[1], above + 1, 0)
                in_minute[:] = 0
            bad, requests = traffic(rng, rate, share, rows)
            in_minute += bad, requests
            alarm = detector.update(second, bad, requests, healthy.rate(THRESHOLD))
            count.add(alarm)
            pending = in_minute[0] > THRESHOLD * in_minute[1]
            healthy.update(second, bad, requests, pending, alarm | (pending & (above > 1)))
        r0 = healthy.rate(THRESHOLD)
        name = f"{rate}/s, {kind} CV {cv:g}"
        promised = cv <= 1 and kind == "gamma"
        yield Figure(
            "bursty", f"{name}: false alarms", "a month", count.seen * 30 / DAYS, 1.0, 1.0 if promised else None,
            f"{count.seen} in {DAYS} days, median r0 {np.median(r0):.1%}",
        )  # fmt: skip
        delay = np.full(rows, np.nan)
        second = start + seconds
        while np.isnan(delay).any():
            bad, requests = traffic(rng, rate, 0.2, rows)
            alarm = detector.update(second, bad, requests, healthy.rate(THRESHOLD))
            healthy.update(second, bad, requests, alarm, alarm)
            second += 1
            delay[alarm & np.isnan(delay)] = second - start - seconds
        bound = detector.bound / divergence(0.2, float(np.median(r0))) / rate
        yield Figure(
            "bursty", f"{name}, 20% fail: mean delay", "s", float(delay.mean()), bound,
            12.0 if promised and rate == 50 else None, f"95 %: {np.quantile(delay, 0.95):.0f} s",
        )  # fmt: skip


def canary() -> Iterator[Figure]:
    """Delays and false proofs of canary against control, at 50 requests/s in total, 10 % of them to the canary."""
    rate, share, config = 50, 0.1, CanaryProofConfig()
    for p in (0.025, 0.05, 0.2, 0.5):
        rng, runs = np.random.default_rng(SEED), 2000
        detector, delay, second = CanaryProof(runs, config), np.full(runs, np.nan), 0
        while np.isnan(delay).any():
            bad, _ = traffic(rng, rate * share, p, runs)
            others, _ = traffic(rng, rate * (1 - share), HEALTHY, runs)
            second += 1
            delay[detector.update(second, bad, others, share) & np.isnan(delay)] = second
        mean = share * p + (1 - share) * HEALTHY
        bound = detector.bound / (rate * mean * divergence(share * p / mean, share))
        yield Figure(
            "canary", f"{rate}/s, {share:.0%} canary, {p:.1%} against {HEALTHY:.1%} fail: mean delay", "s",
            float(delay.mean()), bound, 1.3 * bound + TICK if p in (0.05, 0.2) else None,
            f"95 %: {np.quantile(delay, 0.95):.0f} s",
        )  # fmt: skip
    runs = 4000
    for measured in (False, True):
        for outage in (HEALTHY, 0.05):
            rng = np.random.default_rng(SEED)
            detector, proven = CanaryProof(runs, config), np.zeros(runs, dtype=np.bool_)
            last = np.zeros((60, 2, runs), dtype=np.int64)
            total = np.zeros((2, runs), dtype=np.int64)
            for second in range(3600):
                p = HEALTHY if second < 600 else outage
                bad, requests = traffic(rng, rate * share, p, runs)
                others, their = traffic(rng, rate * (1 - share), p, runs)
                total += np.array([requests, their]) - last[second % 60]
                last[second % 60] = requests, their
                known = total[0] / np.maximum(total.sum(axis=0), 1) if measured else share
                proven = detector.update(second, bad, others, known)
            what = "share of the last minute" if measured else "share as set"
            both = f"{HEALTHY:.1%}, then {outage:.0%}" if outage != HEALTHY else f"{HEALTHY:.1%}"
            yield Figure(
                "canary", f"both fail {both}, {what}: false proofs in 1 h", "of runs", float(proven.mean()),
                config.alpha, config.alpha, f"{int(proven.sum())} of {runs}",
            )  # fmt: skip
    for together in (2, 3):
        rng = np.random.default_rng(SEED)
        detector = CanaryProof(runs, config)
        for second in range(3600):
            bad, others = (together * rng.poisson(rate * s * HEALTHY / together, runs) for s in (share, 1 - share))
            proven = detector.update(second, bad, others, share)
        yield Figure(
            "canary", f"both fail {HEALTHY:.1%}, {together} requests at a time: false proofs in 1 h", "of runs",
            float(proven.mean()), config.alpha, None, "a client that tries again; not promised",
        )  # fmt: skip


def ratio() -> Iterator[Figure]:
    """False alarms and delays of the sample ratio, at 50 requests/s with a configured share of 10 %."""
    rate, config = 50, SampleRatioConfig()
    set_ = np.array([0.1, 0.9])
    for real, runs, limit in ((0.1, 4000, None), (0.11, 4000, None), (0.03, 400, None), (0.2, 400, None)):
        rng = np.random.default_rng(SEED)
        detector, delay = SampleRatio(runs, 2, config), np.full(runs, np.nan)
        within = abs(real - 0.1) <= config.tolerance + 1e-9
        for second in range(1, 3601):
            seen = np.stack([rng.poisson(rate * real, runs), rng.poisson(rate * (1 - real), runs)])
            mismatch = detector.update(second, seen, np.repeat(set_[:, np.newaxis], runs, axis=1))
            delay[mismatch & np.isnan(delay)] = second
            if not within and not np.isnan(delay).any():
                break
        if within:
            found = float((~np.isnan(delay)).mean())
            yield Figure("ratio", f"{real:.0%} arrive: false alarms in 1 h", "of runs", found, config.alpha, 5e-4)
        else:
            most = 0.1 + (config.tolerance if real > 0.1 else -config.tolerance)
            bound = detector.bound / divergence(real, most) / rate
            yield Figure("ratio", f"{real:.0%} arrive: mean delay", "s", float(delay.mean()), bound, limit)


def absence() -> Iterator[Figure]:
    """False alarms of a canary of 10 %, and the delay until its silence is reported."""
    rows, seconds, share = 2000, DAYS * DAY // 2000, 0.1
    for rate in (5, 50):
        rng = np.random.default_rng(SEED)
        detector, count = Absence(rows, AbsenceConfig()), Episodes(rows)
        for second in range(seconds):
            canary, control = rng.poisson(rate * share, rows), rng.poisson(rate * (1 - share), rows)
            count.add(detector.update(second, canary, control, share))
        yield Figure(
            "absence", f"{rate}/s, {share:.0%} canary: false alarms", "a month", count.seen * 30 / DAYS, 1.0, 1.0,
            f"{count.seen} in {DAYS} days",
        )  # fmt: skip
        delay, second = np.full(rows, np.nan), seconds
        while np.isnan(delay).any():
            absent = detector.update(
                second, np.zeros(rows, dtype=np.int64), rng.poisson(rate * (1 - share), rows), share
            )
            second += 1
            delay[absent & np.isnan(delay)] = second - seconds
        yield Figure("absence", f"{rate}/s, {share:.0%} canary silent: mean delay", "s", float(delay.mean()))


def drift() -> Iterator[Figure]:
    """How many changes the drift watch reports in a day of a service that does not change, and its delay."""
    rows, rate, baseline = 200, 50, np.full((24, 200), HEALTHY)
    for method in ("page_hinkley", "adwin"):
        for cv in (0.0, 1.0):
            rng = np.random.default_rng(SEED)
            watch, reports, share = DriftWatch(baseline, DriftConfig(method=method)), 0, np.full(rows, HEALTHY)
            for second in range(10 * DAY // rows):
                if cv and second % 60 == 0:
                    share = minutes(rng, "gamma", cv, rows)
                reports += len(watch.update(second, *traffic(rng, rate, share, rows)))
            kind = f"gamma CV {cv:g}" if cv else "steady"
            yield Figure("drift", f"{method}, {rate}/s, {kind}: reports without a change", "a day", reports / 10)
        for p in (0.01, 0.02, 0.05):
            rng = np.random.default_rng(SEED)
            watch, delay = DriftWatch(baseline, DriftConfig(method=method)), np.full(rows, np.nan)
            for second in range(900 + 600):
                for found in watch.update(second, *traffic(rng, rate, HEALTHY if second < 900 else p, rows)):
                    if second >= 900 and np.isnan(delay[found.row]):
                        delay[found.row] = second - 900 + 1
            seen = f"{np.isfinite(delay).mean():.0%} in 600 s"
            yield Figure(
                "drift", f"{method}, {rate}/s, {p:.0%} fail: mean delay", "s", float(np.nanmean(delay)), note=seen
            )


def cost() -> Iterator[Figure]:
    """The time of one second of every detector on 10,000 rows, the best of 20."""
    rows, rng = COST_ROWS, np.random.default_rng(SEED)
    bad, requests = traffic(rng, 50, 0.03, rows)
    none = np.zeros(rows, dtype=np.bool_)
    set_ = np.repeat(np.array([[0.1], [0.9]]), rows, axis=1)
    seen = np.stack([bad, requests])
    tier, healthy = FastTier(rows, FastTierConfig()), HealthyRate(rows, HealthyRateConfig())
    proof, shares = CanaryProof(rows, CanaryProofConfig()), SampleRatio(rows, 2, SampleRatioConfig())
    silence = Absence(rows, AbsenceConfig())
    watch = DriftWatch(np.full((24, rows), 0.03), DriftConfig())
    steps: dict[str, Callable[[int], object]] = {
        "fast tier": lambda second: tier.update(second, bad, requests, healthy.rate(THRESHOLD)),
        # A minute ends in each of these updates; in operation that is one update in sixty.
        "healthy rate, a minute ends": lambda second: healthy.update(60 * (last + second), bad, requests, none, none),
        "canary proof": lambda second: proof.update(second, bad, requests, 0.1),
        "sample ratio": lambda second: shares.update(second, seen, set_),
        "absence": lambda second: silence.update(second, bad, requests, 0.1),
        "drift": lambda second: watch.update(second, bad, requests),
    }
    last = DAY // 60
    for minute in range(last + 1):
        healthy.update(60 * minute, bad, requests, none, none)
    total = 0.0
    for name, step in steps.items():
        best = min(_seconds(step, second) for second in range(1, 21))
        total += best
        yield Figure("cost", f"{rows:,} rows: {name}", "ms", 1000 * best)
    yield Figure("cost", f"{rows:,} rows: all", "ms", 1000 * total, None, 100.0)


def _seconds(step: Callable[[int], object], second: int) -> float:
    start = time.perf_counter()
    step(second)
    return time.perf_counter() - start


class Episodes:
    """Counts alarms; an alarm that lasts several seconds counts once."""

    def __init__(self, rows: int) -> None:
        self.seen = 0
        self._before = np.zeros(rows, dtype=np.bool_)

    def add(self, alarm: Bool) -> None:
        self.seen += int(np.count_nonzero(alarm & ~self._before))
        self._before = alarm


PARTS: dict[str, Callable[[], Iterator[Figure]]] = {
    part.__name__: part for part in (fast, steady, low, bursty, canary, ratio, absence, drift, cost)
}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench-detect", description="Delays and false alarms of the detectors.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all without one")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    kept = True
    if not options.json:
        sys.stdout.write(f"{'':<78}{'figure':>10}{'bound':>10}{'limit':>10}\n")
    for part in options.parts or PARTS:
        for figure in PARTS[part]():
            kept &= figure.kept
            sys.stdout.write((json.dumps(asdict(figure)) if options.json else _line(figure)) + "\n")
            sys.stdout.flush()
    return 0 if kept else 1


def _line(figure: Figure) -> str:
    numbers = "".join(
        f"{'' if n is None else format(n, '.4g'):>10}" for n in (figure.value, figure.bound, figure.limit)
    )
    return f"{figure.case:<70}{figure.unit:>8}{numbers}{'' if figure.kept else '  MISSED'}  {figure.note}".rstrip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
