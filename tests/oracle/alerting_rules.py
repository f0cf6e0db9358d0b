"""Held rules evaluated twice: by `flipback replay --evaluations`, and by Prometheus' promtool on the same series.

A series is a service: requests and errors of each second, with silent seconds, stale markers and values on the edge.
The states of flipback at every evaluation become the ALERTS series that promtool must find.

In Prometheus 2.42, the version of Debian, a range is closed on both sides; in 3.0 it is open on the left. A range of w
- 1 ms at whole seconds holds the same samples in both.
"""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.config.load import load
from agent.offline.replay import Evaluated, replay

START = 1_700_000_000
"""Event time of second 0. promtool's time begins at 0."""


@dataclass(frozen=True)
class Rule:
    """A rule; half of them need more than one sample. `limit` is in per cent."""

    limit: float
    over: int
    hold: int
    keep: int
    min_samples: int

    @property
    def when(self) -> str:
        return f"error_rate > {self.limit}% over {self.over}s" + (f" for {self.hold}s" if self.hold else "")

    def expr(self, service: str) -> str:
        window = f"[{1000 * self.over - 1}ms]"
        errors = f'sum_over_time(errors{{service="{service}"}}{window})'
        requests = f'sum_over_time(requests{{service="{service}"}}{window})'
        return f"({errors} / {requests} > {self.limit / 100!r}) and ({requests} >= {self.min_samples})"


@dataclass(frozen=True)
class Series:
    """`seconds[s]` is (requests, errors), None for silence; `stale` are the silent seconds with a stale marker."""

    service: str
    seconds: list[tuple[int, int] | None]
    stale: frozenset[int]
    rules: list[Rule]


def series(seed: int, count: int, length: int, rules: int) -> list[Series]:
    """Return random series with quiet, busy, healthy and bad phases, so that rules hold, nearly hold and recover."""
    chance = random.Random(seed)
    made = []
    for number in range(count):
        seconds: list[tuple[int, int] | None] = []
        stale = set()
        limit = chance.choice([2.0, 5.0, 20.0])
        while len(seconds) < length:
            phase, lasts = chance.choice(["good", "bad", "edge", "silent", "mixed"]), chance.randint(1, 25)
            if phase == "silent" and chance.random() < 0.5:
                stale.add(len(seconds))
            for _ in range(lasts):
                requests = chance.choice([1, 2, 10, 29, 30, 100, 199, 200, 1000])
                exact = round(requests * limit / 100)
                errors = {
                    "good": 0,
                    "bad": min(requests, exact + chance.randint(1, 5)),
                    "edge": min(requests, max(0, exact + chance.choice([-1, 0, 0, 0, 1]))),
                    "mixed": chance.randint(0, min(requests, 2 * exact + 1)),
                    "silent": 0,
                }[phase]
                silent = phase == "silent" or chance.random() < 0.05
                seconds.append(None if silent else (requests, errors))
        made.append(
            Series(
                service=f"s{number}",
                seconds=seconds[:length],
                stale=frozenset(s for s in stale if s < length),
                rules=[
                    Rule(
                        limit=limit,
                        over=chance.choice([1, 2, 5, 10, 30]),
                        hold=chance.choice([0, 1, 5, 10, 20]),
                        keep=chance.choice([0, 0, 1, 4, 15]),
                        min_samples=chance.choice([1, 1, 30, 200]),
                    )
                    for _ in range(rules)
                ],
            )
        )
    return made


def states(made: list[Series], directory: Path) -> dict[tuple[str, int, int], str]:
    """Return the states of flipback by (service, rule, evaluation in seconds since START)."""
    recording = directory / "recording.jsonl"
    length = max(len(one.seconds) for one in made)
    with recording.open("w") as file:
        for second in range(length):
            # This service has a sample in every second, so that every second is evaluated.
            file.write(json.dumps({"ts": START + second + 0.5, "service": "clock"}) + "\n")
            for one in made:
                if (found := one.seconds[second]) is not None:
                    requests, errors = found
                    for status, n in ((200, requests - errors), (500, errors)):
                        if n:
                            sample = {"ts": START + second + 0.5, "service": one.service, "status": status, "n": n}
                            file.write(json.dumps(sample) + "\n")
    config = {
        "apiVersion": "flipback/v1",
        "kafka": {"brokers": ["127.0.0.1:9092"]},
        "telemetry": [{"topic": "requests", "format": "json"}],
        "backends": {"files": {"kind": "flagd-file", "path": "flags.json"}},
        "unknown_grace": "0s",
        "flags": [
            {
                "flag": one.service,
                "service": one.service,
                "backend": "files",
                "safe": "off",
                "triggers": [
                    {
                        "name": f"r{number}",
                        "when": rule.when,
                        "min_samples": rule.min_samples,
                        "fast": False,
                        "keep_for": f"{rule.keep}s",
                    }
                    for number, rule in enumerate(one.rules)
                ],
            }
            for one in made
        ],
    }
    path = directory / "flipback.yaml"
    path.write_text(json.dumps(config))
    _, lines = replay(load(path), [recording], "json", evaluations=True)
    return {
        (line.flag, int(line.trigger[1:]), line.time - START): line.state
        for line in lines
        if isinstance(line, Evaluated)
    }


def rules_file(made: list[Series]) -> str:
    """Return the rules of Prometheus as JSON, which is YAML."""
    rules = []
    for one in made:
        for number, rule in enumerate(one.rules):
            alert: dict[str, object] = {"alert": f"{one.service}_r{number}", "expr": rule.expr(one.service)}
            if rule.hold:
                alert["for"] = f"{rule.hold}s"
            if rule.keep:
                alert["keep_firing_for"] = f"{rule.keep}s"
            rules.append(alert)
    return json.dumps({"groups": [{"name": "held", "interval": "1s", "rules": rules}]})


def tests_file(made: list[Series], expected: dict[tuple[str, int, int], str]) -> str:
    """Return promtool's test: the series, and what ALERTS must hold at every evaluation."""
    inputs = []
    for one in made:
        for name, column in (("requests", 0), ("errors", 1)):
            # The sums of second s are complete at its end, s + 1; at 0 there are none yet.
            values = ["_"]
            for second, found in enumerate(one.seconds):
                values.append("stale" if second in one.stale else "_" if found is None else str(found[column]))
            inputs.append({"series": f'{name}{{service="{one.service}"}}', "values": " ".join(values)})
    checks = list(_checks(made, expected))
    return json.dumps(
        {
            "rule_files": ["rules.json"],
            "evaluation_interval": "1s",
            "tests": [{"interval": "1s", "input_series": inputs, "promql_expr_test": checks}],
        }
    )


def _checks(made: list[Series], expected: dict[tuple[str, int, int], str]) -> Iterator[dict[str, object]]:
    """Return a check per evaluation and rule. If flipback is unknown, Prometheus has no alert except one that is
    kept."""
    for one in made:
        for number, rule in enumerate(one.rules):
            for at in range(1, len(one.seconds) + 1):
                state = expected[one.service, number, at]
                alerts = f'ALERTS{{alertname="{one.service}_r{number}"}}'
                if state == "unknown":
                    if rule.keep:
                        alerts = f'ALERTS{{alertname="{one.service}_r{number}",alertstate="pending"}}'
                    yield {"expr": alerts, "eval_time": f"{at}s", "exp_samples": []}
                    continue
                labels = f'ALERTS{{alertname="{one.service}_r{number}", alertstate="{state}", service="{one.service}"}}'
                samples = [] if state == "ok" else [{"labels": labels, "value": 1}]
                yield {"expr": alerts, "eval_time": f"{at}s", "exp_samples": samples}


def disagreement(promtool: Path, made: list[Series], directory: Path) -> tuple[int, str]:
    """Return how many states were compared, and the start of what promtool reports against them, empty if it agrees."""
    expected = states(made, directory)
    (directory / "rules.json").write_text(rules_file(made))
    (directory / "test.json").write_text(tests_file(made, expected))
    done = subprocess.run(
        [str(promtool), "test", "rules", "test.json"],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    said = done.stdout + done.stderr
    compared = sum(len(one.seconds) * len(one.rules) for one in made)
    if done.returncode == 0 and "SUCCESS" in said:
        return compared, ""
    return compared, said[:4000] or f"status {done.returncode}"
