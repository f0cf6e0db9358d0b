"""A drift is published with its direction. It is no verdict: nothing fires because of it and nothing is commanded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.after_flip.events import drift_event
from agent.config.load import load
from agent.errors import ConfigError
from agent.events.cloudevents import DRIFT_BETTER, DRIFT_WORSE
from agent.offline.replay import Change, Commanded, Drifted, replay, text
from streams.monitor.drift import Drift
from streams.monitor.drift_watch import DriftTarget
from tests.unit.agent.cli.test_keys_and_restore import CONFIG

T = 1_700_000_000


def drifts(directory: Path, bad: dict[int, int], metric: str = "error_rate") -> list[Drifted]:
    """The drifts in 10 minutes of 200 requests/s; `bad` has the bad ones of each second, from its key on."""
    path = directory / "flipback.yaml"
    path.write_text(CONFIG + f"drift: [{{service: shop, metric: {metric}}}]\n")
    recording = directory / "recording.jsonl"
    with recording.open("w") as file:
        for second in range(600):
            number = next(count for begin, count in sorted(bad.items(), reverse=True) if second >= begin)
            for status, n in ((200, 200 - number), (500, number)):
                if n:
                    file.write(json.dumps({"ts": T + second + 0.5, "service": "shop", "status": status, "n": n}) + "\n")
    _, lines = replay(load(path), [recording], "json")
    found = list(lines)
    assert not [line for line in found if isinstance(line, Commanded)]
    assert not [line for line in found if isinstance(line, Change) and line.to == "firing"]
    return [line for line in found if isinstance(line, Drifted)]


def test_a_rate_that_stays_at_its_habit_does_not_drift(tmp_path: Path) -> None:
    assert drifts(tmp_path, {0: 1}) == []


def test_a_small_rise_that_no_limit_names_is_told_as_worse(tmp_path: Path) -> None:
    # One of 200 requests is 0.5 %; from second 300 on three fail, 1.5 %, less than the limit of 2 %.
    first = drifts(tmp_path, {0: 1, 300: 3})[0]
    assert (first.service, first.metric, first.worse) == ("production/shop", "error_rate", True)
    assert 300 < first.time - T < 420
    assert "drifts, worse" in text(first)


def test_an_improvement_is_told_as_one(tmp_path: Path) -> None:
    first = drifts(tmp_path, {0: 3, 300: 0})[0]
    assert 300 < first.time - T < 420
    assert not first.worse
    assert "drifts, better" in text(first)


def test_the_event_says_which_way_and_nothing_follows() -> None:
    target = DriftTarget("production", "shop", "error_rate", "adwin", (0.005,))
    worse = drift_event(target, Drift(T, 0, True, 2.5, 0.1))
    better = drift_event(target, Drift(T, 0, False, -2.5, 0.1))
    assert (worse.type, better.type) == (DRIFT_WORSE, DRIFT_BETTER)
    assert worse.subject == "production/shop"
    assert worse.data == {"metric": "error_rate", "method": "adwin", "residual": 2.5, "before": 0.1}


@pytest.mark.parametrize(
    "wrong",
    ["{service: shop, metric: latency_p95}", "{service: shop}", "{service: shop, metric: error_rate, method: kswin}"],
)
def test_what_cannot_be_watched_is_refused(wrong: str, tmp_path: Path) -> None:
    path = tmp_path / "flipback.yaml"
    path.write_text(CONFIG + f"drift: [{wrong}]\n")
    with pytest.raises(ConfigError, match="drift"):
        load(path)
