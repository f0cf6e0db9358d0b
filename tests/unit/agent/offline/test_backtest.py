"""`flipback backtest` counts detections, delays and false alarms as worked out by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from agent.config.load import load
from agent.errors import ConfigError
from agent.offline.backtest import Backtest, backtest, read_labels
from agent.offline.backtest_plot import page, picture
from tests.unit.agent.cli.test_keys_and_restore import run

T = 1_700_000_000
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
      - {name: errors, when: error_rate > 20% over 5s for 5s, min_samples: 30, fast: false}
      - {name: quality, when: measure.quality < 0.5 over 5s, action: alert}
"""


def recorded(directory: Path, bad: list[tuple[int, int]], until: int = 300) -> Path:
    """Record 20 requests a second, of which half fail in the `bad` spans."""
    (directory / "flipback.yaml").write_text(CONFIG)
    path = directory / "recording.jsonl"
    with path.open("w") as file:
        for second in range(until):
            fails = any(begin <= second < end for begin, end in bad)
            for status in (200, 500 if fails else 200):
                file.write(json.dumps({"ts": T + second + 0.5, "service": "shop", "status": status, "n": 10}) + "\n")
    return path


def judged(directory: Path, bad: list[tuple[int, int]], labels: list[dict[str, Any]], until: int = 300) -> Backtest:
    recording = recorded(directory, bad, until)
    path = directory / "labels.json"
    path.write_text(json.dumps([{**label, "at": T + label["at"]} for label in labels]))
    config = load(directory / "flipback.yaml")
    return backtest(config, [recording], "json", read_labels(path), within=60)


def test_a_fault_is_seen_with_its_delay_and_one_without_an_effect_is_not(tmp_path: Path) -> None:
    found = judged(tmp_path, [(100, 150)], [{"at": 100, "name": "real"}, {"at": 200, "name": "harmless"}])
    errors = found.triggers[0]
    # Two of 5 seconds with 50 % are 20 %, which is not above the limit; three are. Then 5 s of hold.
    assert [one.delay for one in errors.detections] == [8, None]
    assert errors.detected == 1
    assert errors.false_alarms == []


def test_a_firing_that_no_label_explains_is_a_false_alarm(tmp_path: Path) -> None:
    found = judged(tmp_path, [(100, 150), (400, 450)], [{"at": 100}], until=1000)
    errors = found.triggers[0]
    assert errors.false_alarms == [T + 408]
    # 1,000 s without the unknown beginning and without the fault's 60 s.
    assert errors.healthy_hours == pytest.approx((1000 - 60) / 3600, abs=5 / 3600)
    assert errors.false_alarms_per_hour == pytest.approx(1 / errors.healthy_hours)


def test_a_trigger_that_was_firing_already_says_nothing_of_the_fault(tmp_path: Path) -> None:
    found = judged(tmp_path, [(100, 300)], [{"at": 200}])
    (one,) = found.triggers[0].detections
    assert (one.delay, one.already) == (None, True)


def test_one_firing_explains_one_fault(tmp_path: Path) -> None:
    found = judged(tmp_path, [(100, 150)], [{"at": 95}, {"at": 100}])
    assert [one.delay for one in found.triggers[0].detections] == [13, None]


def test_what_a_trigger_could_not_judge_is_not_healthy_time(tmp_path: Path) -> None:
    found = judged(tmp_path, [], [])
    quality = found.triggers[1]
    assert quality.healthy_hours == 0
    assert quality.false_alarms_per_hour is None
    assert quality.unknown_hours == pytest.approx((found.end - found.begin) / 3600)


def test_a_fault_of_another_service_is_none_of_this_trigger(tmp_path: Path) -> None:
    found = judged(tmp_path, [(100, 150)], [{"at": 100, "service": "search"}])
    assert found.triggers[0].detections == []
    assert len(found.triggers[0].false_alarms) == 1


@pytest.mark.parametrize(
    "labels",
    ["{}", "[{}]", "[{at: soon}]", "[{at: true}]", "[{at: 5, until: 1}]", "[{at: 5, color: red}]", "[", "[{at: .nan}]"],
)
def test_labels_that_are_none_are_refused_with_the_place(labels: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.yaml"
    path.write_text(labels)
    with pytest.raises(ConfigError, match=r"labels\.yaml"):
        read_labels(path)


def test_times_may_be_written_for_people(tmp_path: Path) -> None:
    path = tmp_path / "labels.yaml"
    path.write_text("- {at: 2023-11-14T22:13:20Z}\n- {at: '2023-11-14T23:13:20+01:00', until: 1700000060}\n")
    assert [(fault.at, fault.until) for fault in read_labels(path)] == [(T, T), (T, T + 60)]


def test_the_picture_shows_every_trigger_fault_and_false_alarm(tmp_path: Path) -> None:
    found = judged(tmp_path, [(100, 150), (200, 250)], [{"at": 100}])
    html = page(found)
    assert html.count('class="begin"') == len(found.triggers)
    assert html.count('class="false"') == 1
    assert html.count('class="firing"') == 2
    # The page loads nothing; the one address is the name of the format.
    assert re.findall('https?:[^"]*', html) == ["http://www.w3.org/2000/svg"]


def test_the_picture_stands_alone_as_an_image(tmp_path: Path) -> None:
    found = judged(tmp_path, [(100, 150)], [{"at": 100}])
    image = ElementTree.fromstring(picture(found))  # noqa: S314 - made here
    assert image.tag == "{http://www.w3.org/2000/svg}svg"
    assert sum(part.get("class") == "firing" for part in image.iter()) == 1


def test_the_command_prints_a_row_a_trigger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording = recorded(tmp_path, [(100, 150)])
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps([{"at": T + 100}]))
    plot = tmp_path / "out.html"
    arguments = ["-c", str(tmp_path / "flipback.yaml"), "--labels", str(labels), "--plot", str(plot), str(recording)]
    assert run("backtest", *arguments) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[1].split()[:6] == ["new-checkout/errors", "1", "of", "1", "8", "s"]
    assert plot.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    "time", ["2026-03-29T02:30:00", "2026-03-29 02:30:00", "'2026-03-29T02:30:00'", "2026-03-29 02:30"]
)
@pytest.mark.parametrize("name", ["at", "until"])
def test_a_time_of_a_fault_without_a_zone_is_refused(tmp_path: Path, name: str, time: str) -> None:
    path = tmp_path / "labels.yaml"
    row = f"at: 2026-03-29T00:00:00Z, until: {time}" if name == "until" else f"at: {time}"
    path.write_text(f"- {{{row}}}\n")
    with pytest.raises(ConfigError, match=r"fault 1: 2026-03-29T02:30:00 has no zone; write .*Z for UTC"):
        read_labels(path)
