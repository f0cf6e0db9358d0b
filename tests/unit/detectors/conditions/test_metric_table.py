"""The table of metrics: names that are repeated elsewhere agree with it, and other product files name no metric."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from detectors.conditions.metric_table import METRIC_TABLE, DriftMetric, Metric, MetricRow, metrics_of

ROOT = Path(__file__).parents[4]


def test_every_metric_has_a_row() -> None:
    assert list(METRIC_TABLE) == list(get_args(Metric))


def test_the_metrics_whose_drift_is_watched_are_those_of_the_table() -> None:
    assert list(get_args(DriftMetric)) == [name for name, row in METRIC_TABLE.items() if row.drifts]


@pytest.mark.parametrize("row", METRIC_TABLE.values(), ids=METRIC_TABLE)
def test_a_row_agrees_with_itself(row: MetricRow) -> None:
    assert row.worse is not None or not row.fast
    assert row.unit == "ratio" or not row.drifts
    assert row.unit != "ratio" or (row.ratio is not None and row.worse is not None)
    if row.ratio is not None and row.unit == "ratio":
        assert row.good_is_high == (row.ratio.good or row.ratio.inverse)
    assert (row.unreadable is None) == (row.must == "")


def test_a_field_names_the_metrics_that_need_it() -> None:
    assert metrics_of("cache") == ["cache_hit_rate"]
    assert metrics_of("outcome") == ["error_rate", "timeout_rate", "availability"]
    assert metrics_of("latency_ms") == ["latency_mean", "latency_quantile"]


def test_a_metric_is_named_by_its_row_alone() -> None:
    files = [path for top in ("agent", "streams", "detectors") for path in (ROOT / top).rglob("*.py")]
    named = [path.relative_to(ROOT).as_posix() for path in files if "cache_hit_rate" in path.read_text()]
    assert named == ["detectors/conditions/metric_table.py"]


def test_the_table_is_read_without_numpy() -> None:
    code = "import sys, agent.config.starter; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
