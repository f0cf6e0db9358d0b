"""The baseline file: which values it may have, and the error for each that it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config.baseline import NO_BASELINE, read_baseline
from agent.errors import ConfigError

HEAD = '{"apiVersion": "flipback/v1", "baseline": '


def write(directory: Path, text: str) -> Path:
    path = directory / "baseline.json"
    path.write_text(text)
    return path


def test_a_stored_value_is_found_by_place_and_metric(tmp_path: Path) -> None:
    values = '{"production/shop": {"latency_p99": 812.5, "measure.score": -1, "error_rate": 0.002, "throughput": 40}}}'
    baseline = read_baseline(write(tmp_path, HEAD + values))
    assert baseline.value("production", "shop", "latency_p99") == 812.5
    assert baseline.value("production", "shop", "measure.score") == -1.0
    assert baseline.value("production", "shop", "latency_p50") is None
    assert baseline.value("staging", "shop", "latency_p99") is None
    assert NO_BASELINE.value("production", "shop", "latency_p99") is None


def test_a_metric_is_found_however_its_percentile_is_written(tmp_path: Path) -> None:
    baseline = read_baseline(write(tmp_path, HEAD + '{"production/shop": {"latency_p99.0": 812}}}'))
    assert baseline.value("production", "shop", "latency_p99") == 812.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not as expected: Input data was truncated"),
        ("[]", "Expected `object`, got `array`"),
        ('{"apiVersion": "flipback/v2", "baseline": {}}', "Invalid enum value 'flipback/v2' - at `$.apiVersion`"),
        (HEAD + '{"production/shop": {"error_rate": "2%"}}}', "Expected `float`, got `str`"),
        (HEAD + '{"shop": {}}}', "'shop': expected environment/service, such as production/recommendations"),
        (HEAD + '{"/shop": {}}}', "'/shop': expected environment/service"),
        (
            HEAD + '{"a/b": {"eror_rate": 0.1}}}',
            "'a/b', 'eror_rate': 'eror_rate' is not a metric; did you mean error_rate",
        ),
        (HEAD + '{"a/b": {"error_rate@on": 0.1}}}', "a baseline is of a whole service; leave out the variant"),
        (HEAD + '{"a/b": {"error_rate": 2}}}', "'a/b', 'error_rate': expected a ratio between 0 and 1, found 2.0"),
        (HEAD + '{"a/b": {"latency_mean": -2}}}', "expected a number that is not negative, found -2.0"),
        (HEAD + '{"a/b": {"error_rate > 2% #": 0.1}}}', "expected"),
    ],
)
def test_a_file_that_is_not_as_expected_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_baseline(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_all_wrong_values_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, HEAD + '{"a/b": {"error_rate": 2, "wibble": 1}, "c": {}}}')
    with pytest.raises(ConfigError, match=r"'error_rate'.*; .*'wibble'.*; 'c'"):
        read_baseline(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_baseline(tmp_path / "none.json")
