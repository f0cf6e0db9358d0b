"""`flipback test`: the notation is promtool's, a wrong expectation fails, and results go to JUnit XML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import ConfigError
from agent.offline.promtool_series import parse_series, parse_values
from agent.offline.trigger_tests import run
from tests.unit.agent.cli.test_keys_and_restore import run as cli

CONFIG = """
apiVersion: flipback/v1
kafka: {brokers: [127.0.0.1:9092]}
telemetry: [{topic: requests, format: json}]
backends: {files: {kind: flagd-file, path: flags.json}}
flags:
  - flag: new-checkout
    service: shop
    backend: files
    safe: "off"
    triggers:
      - {name: errors, when: error_rate > 2% over 10s for 5s, min_samples: 30, fast: false}
      - {name: down, when: availability@on < 99% over 10s, min_samples: 30, fast: false}
      - {name: cold, when: cache_hit_rate < 40% over 10s, min_samples: 30}
      - {name: slow, when: latency_p95 > 1s over 10s, min_samples: 1}
      - {name: poor, when: measure.quality < 0.5 over 10s, min_samples: 1}
"""


def written(directory: Path, series: dict[str, str], expected: list[dict[str, Any]], **test: Any) -> Path:
    (directory / "flipback.yaml").write_text(CONFIG)
    path = directory / "tests.yaml"
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    one = {"name": "one", "input_series": inputs, "trigger_test": expected, **test}
    path.write_text(json.dumps({"config": "flipback.yaml", "tests": [one]}))
    return path


SERVICE = '{service="shop"}'


def test_the_example_of_the_documentation_second_by_second(tmp_path: Path) -> None:
    # Trigger A of docs/triggers.md: 50 requests a second, of which two fail from second 0 on.
    series = {f"requests{SERVICE}": "50x40", f"errors{SERVICE}": "0x9 2x30"}
    states = {15: "ok", 16: "pending", 20: "pending", 21: "firing"}
    expected = [{"eval_time": f"{at}s", "trigger": "errors", "exp_state": state} for at, state in states.items()]
    (result,) = run(written(tmp_path, series, expected))
    assert result.failures == ()


def test_what_is_said_otherwise_is_a_failure_with_the_numbers(tmp_path: Path) -> None:
    series = {f"requests{SERVICE}": "50x40", f"errors{SERVICE}": "25x40"}
    path = written(tmp_path, series, [{"eval_time": "20s", "trigger": "errors", "exp_state": "ok", "exp_value": 0}])
    (result,) = run(path)
    assert result.failures == (
        "new-checkout/errors at 20s: expected ok, found firing (value 0.5, 500 samples)",
        "new-checkout/errors at 20s: expected value 0, found 0.5",
    )
    out = tmp_path / "out.xml"
    assert cli("test", str(path), "--junit", str(out)) == 1
    suite = ElementTree.fromstring(out.read_bytes())[0]  # noqa: S314  # our own
    assert (suite.get("tests"), suite.get("failures")) == ("1", "1")
    assert [failure.get("message") for failure in suite.iter("failure")] == list(result.failures)


def test_every_kind_of_series_reaches_its_metric(tmp_path: Path) -> None:
    on = '{service="shop", flag="new-checkout", variant="on"}'
    series = {
        f"requests{on}": "100x20",
        f"unavailable{on}": "10x20",
        f"timeouts{on}": "5x20",
        f"errors{on}": "20x20",
        f"cache_lookups{on}": "50x20",
        f"cache_hits{on}": "10x20",
        f"latency_ms{on}": "2000x20",
        f"measure.quality{on}": "0.25x20",
    }
    values = {"errors": 0.2, "down": 0.9, "cold": 0.2, "poor": 0.25}
    expected = [
        {"eval_time": "15s", "trigger": name, "exp_state": "firing", "exp_value": value}
        for name, value in values.items()
    ]
    expected.append({"eval_time": "15s", "trigger": "slow", "exp_state": "firing"})
    (result,) = run(written(tmp_path, series, expected))
    assert result.failures == ()


def test_silence_is_unknown(tmp_path: Path) -> None:
    series = {f"requests{SERVICE}": "50x9 _x30"}
    expected = [{"eval_time": "10s", "trigger": "errors", "exp_state": "ok"}]
    expected += [{"eval_time": "25s", "trigger": "errors", "exp_state": "unknown"}]
    (result,) = run(written(tmp_path, series, expected))
    assert result.failures == ()


def test_passing_tests_end_with_status_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    series = {f"requests{SERVICE}": "50x40"}
    path = written(tmp_path, series, [{"eval_time": "20s", "trigger": "errors", "exp_state": "ok"}])
    assert cli("test", str(path)) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 passed, 0 failed"


@pytest.mark.parametrize(
    ("series", "expected", "message"),
    [
        ({"requests{}": "1"}, {}, "no service"),
        ({"wibble" + SERVICE: "1"}, {}, "known are requests"),
        ({"requests" + SERVICE: "1y3"}, {}, "expected such as"),
        ({"requests" + SERVICE: "1x20", "errors" + SERVICE: "2x20"}, {}, "more than the whole"),
        ({"errors" + SERVICE: "2x20"}, {}, "none counts the `requests`"),
        ({"requests" + SERVICE: "1.5x20"}, {}, "whole number"),
        ({"requests" + SERVICE: "1x20"}, {"exp_state": "fine"}, "expected one of ok"),
        ({"requests" + SERVICE: "1x20"}, {"trigger": "absent"}, "no trigger 'absent'"),
        ({"requests" + SERVICE: "1x20"}, {"eval_time": "soon"}, "whole seconds"),
        ({"requests" + SERVICE: "1x20"}, {"eval_time": "25h"}, "at most 24h"),
        ({"requests" + SERVICE: "50x99999999999"}, {}, "more than 1,000,000 values"),
        ({"requests" + SERVICE: "_x" + "9" * 5000}, {}, "more than 1,000,000 values"),
        ({"requests" + SERVICE: "1x600000 1x600000"}, {}, "more than 1,000,000 values"),
    ],
)
def test_a_file_that_is_no_test_ends_with_status_3_and_says_why(
    series: dict[str, str], expected: dict[str, str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = {"eval_time": "10s", "trigger": "errors", "exp_state": "ok", **expected}
    assert cli("test", str(written(tmp_path, series, [wanted]))) == 3
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "config: flipback.yaml\ntests: []\n", "[]", "config: [\n"])
def test_a_file_without_a_test_is_no_success(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tests.yaml").write_text(content)
    assert cli("test", str(tmp_path / "tests.yaml")) == 3
    assert "expected" in capsys.readouterr().err


@given(st.lists(st.one_of(st.none(), st.integers(-1000, 1000)), max_size=30))
def test_values_written_out_are_read_as_they_are(values: list[int | None]) -> None:
    text = " ".join("_" if value is None else str(value) for value in values)
    assert parse_values(text) == values


def test_repetition_counts_as_in_promtool() -> None:
    # "a+bxn" means a and n more values; "_xn" means n gaps.
    assert parse_values("0+10x3 5-2x2 1x1 _x2") == [0, 10, 20, 30, 5, 3, 1, 1, 1, None, None]


def test_labels_may_hold_quotes_and_commas() -> None:
    assert parse_series(r'requests{service="a,\"b\"", variant="on"}') == (
        "requests",
        (("service", 'a,"b"'), ("variant", "on")),
    )
    with pytest.raises(ConfigError):
        parse_series('requests{service="a", wibble="b"}')
