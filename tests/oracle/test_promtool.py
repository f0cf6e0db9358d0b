"""Held rules, keeping and missing data agree with Prometheus at every evaluation; a slightly wrong rule does not."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

from tests.oracle.alerting_rules import disagreement, series
from tests.support.promtool import PromtoolUnavailable
from tests.support.promtool import promtool as find

STATES = 50_000
"""The least number of states to compare."""
SEEDS = (20240501, 20240502)
SERIES, SECONDS, RULES = 33, 200, 4
SERIES_OF_A_MUTANT = 4
"""The first of the series suffice: each mutant changes states of at least two of them."""


@pytest.fixture(scope="module")
def promtool() -> Path:
    try:
        return find()
    except PromtoolUnavailable as error:
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(f"CI must not skip the comparison with Prometheus: {error}", pytrace=False)
        pytest.skip(f"NOT TESTED against Prometheus: {error}")


def test_every_state_is_that_of_prometheus(promtool: Path, tmp_path: Path) -> None:
    compared = 0
    for seed in SEEDS:
        directory = tmp_path / str(seed)
        directory.mkdir()
        count, against = disagreement(promtool, series(seed, SERIES, SECONDS, RULES), directory)
        assert not against, against
        compared += count
    assert compared >= STATES


class Mutant(NamedTuple):
    """A change in one place of the rule. The mutated `name` is patched into the module `used_by`."""

    name: str
    module: str
    used_by: str
    old: str
    new: str


TRIGGERS = ("TriggerStates", "detectors.triggers.state_machine", "detectors.triggers.evaluator")
EVALUATOR = ("Evaluator", "detectors.triggers.evaluator", "streams.monitor.shard_windows")
WINDOWS = ("WindowStore", "detectors.windows.store", "streams.monitor.shard_windows")
READINGS = ("WindowReadings", "detectors.triggers.window_readings", "detectors.triggers.evaluator")
METRICS = ("compute", "detectors.windows.metrics", "detectors.triggers.window_readings")

MUTANTS = {
    "fires one evaluation late": Mutant(*TRIGGERS, "- self.since >= self.hold", "- self.since > self.hold"),
    "fires one evaluation early": Mutant(*TRIGGERS, "self.since[begins] = t", "self.since[begins] = t - 1"),
    "a gap is survived": Mutant(*TRIGGERS, "> self.grace))", "> self.grace + 3))"),
    "a single good evaluation is forgiven": Mutant(*TRIGGERS, "over = (truth == FALSE)", "over = (truth == 7)"),
    "what fired never ends": Mutant(
        *TRIGGERS, "remembered[over & ~kept]", "remembered[over & ~kept & (remembered != State.FIRING)]"
    ),
    "what is pending is kept": Mutant(
        *TRIGGERS,
        "begins_keeping = over & (remembered == State.FIRING)",
        "begins_keeping = over & (remembered != State.OK)",
    ),
    "kept one evaluation too long": Mutant(*TRIGGERS, "_since < self.keep", "_since <= self.keep"),
    "kept one evaluation too short": Mutant(*TRIGGERS, "[begins_keeping] = t", "[begins_keeping] = t - 1"),
    "a breach while kept does not start it anew": Mutant(*TRIGGERS, "_since[true | ", "_since["),
    "silence is not counted for the keep": Mutant(
        *TRIGGERS, "begins_keeping = over &", "begins_keeping = (truth == FALSE) &"
    ),
    "equal is a breach": Mutant(*EVALUATOR, "own.value > threshold", "own.value >= threshold"),
    "one sample too many is wanted": Mutant(*READINGS, "count < self._min_samples", "count <= self._min_samples"),
    "one sample too few is enough": Mutant(*READINGS, "count < self._min_samples", "count + 1 < self._min_samples"),
    "the window is a second too long": Mutant(*WINDOWS, "end - window.seconds)\n", "end - window.seconds - 1)\n"),
    "the window is a second too short": Mutant(*WINDOWS, "end - window.seconds)\n", "end - window.seconds + 1)\n"),
    "errors are compared with the good ones": Mutant(
        *METRICS,
        "_share(whole - part if ratio.inverse else part, whole, per=ratio.per)",
        "_share(whole - part if ratio.inverse else part, whole - part, per=ratio.per)",
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS.keys())
def test_a_rule_that_is_slightly_wrong_is_caught(
    mutant: Mutant, promtool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = inspect.getsource(importlib.import_module(mutant.module))
    assert source.count(mutant.old) == 1, "the rule has changed: mend the mutant"
    module = ModuleType(mutant.module)
    monkeypatch.setitem(sys.modules, mutant.module, module)
    exec(compile(source.replace(mutant.old, mutant.new), mutant.module, "exec"), module.__dict__)  # noqa: S102  # our own source
    monkeypatch.setattr(importlib.import_module(mutant.used_by), mutant.name, module.__dict__[mutant.name])
    _, against = disagreement(promtool, series(SEEDS[0], SERIES_OF_A_MUTANT, SECONDS, RULES), tmp_path)
    assert "FAILED" in against
