"""A replay shows what a live run would do: each command, why there is none, and which samples did not count."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.load import load
from agent.offline.backtest import backtest
from agent.offline.replay import Commanded, Hindered, Line, replay, text
from agent.offline.trigger_tests import run as run_tests
from agent.telemetry.recorded import lost, unmatched
from detectors.cells import COUNTS, LATE, NO_OUTCOME, REJECTED, REQUESTS, Scope
from tests.support.recordings import T0, config_file, write
from tests.unit.agent.cli.test_keys_and_restore import run as cli

TRIGGER = '{name: errors, when: "error_rate > 20% over 10s for 5s", min_samples: 20, fast: false}'


def flags(*services: str, extra: str = "", trigger: str = TRIGGER) -> str:
    """Return a configuration with one flag per service named; a service named twice has two flags."""
    rows = "".join(
        f'  - {{flag: f{n}, service: {service}, backend: files, safe: "off", triggers: [{trigger}]}}\n'
        for n, service in enumerate(services)
    )
    return (
        "apiVersion: flipback/v1\nkafka: {brokers: [127.0.0.1:9092]}\ntelemetry: [{topic: requests, format: json}]\n"
        f"backends: {{files: {{kind: flagd-file, path: flags.json}}}}\n{extra}flags:\n{rows}"
    )


def samples(
    seconds: int, *services: str, bad: Callable[[int, str], bool], per_second: int = 10, **more: Any
) -> Iterator[dict[str, object]]:
    """Yield requests of three instances; `bad(second, instance)` is true for those that fail."""
    for s in range(seconds):
        for k in range(per_second):
            for service in services:
                name = f"i-{k % 3}"
                status = 500 if bad(s, name) else 200
                yield {"ts": T0 + s + k / per_second, "service": service, "instance": name, "status": status, **more}


def replayed(tmp_path: Path, config: str, rows: Iterator[dict[str, object]]) -> list[Line]:
    _, lines = replay(load(config_file(tmp_path, config)), [write(tmp_path / "r.jsonl", rows)], "json")
    return list(lines)


def of(lines: list[Line], kind: type[Any]) -> list[Any]:
    return [line for line in lines if isinstance(line, kind)]


def test_a_firing_trigger_on_which_nothing_would_be_done_says_why_once(tmp_path: Path) -> None:
    lines = replayed(tmp_path, flags("shop"), samples(60, "shop", bad=lambda s, name: name == "i-0"))
    assert of(lines, Commanded) == []
    (hindered,) = of(lines, Hindered)
    assert hindered.reason.startswith("only instance 'i-0' breaches")
    assert "f0/errors  NO COMMAND  only instance" in text(hindered)


def test_a_trigger_that_fires_again_says_again_why_nothing_is_done(tmp_path: Path) -> None:
    rows = samples(120, "shop", bad=lambda s, name: name == "i-0" and not 40 <= s < 80)
    assert len(of(replayed(tmp_path, flags("shop"), rows), Hindered)) == 2


def test_in_shadow_mode_a_replay_shows_what_would_have_been_set(tmp_path: Path) -> None:
    rows = samples(60, "shop", bad=lambda s, name: True)
    (line,) = of(replayed(tmp_path, flags("shop", extra="mode: shadow\n"), rows), Commanded)
    assert line.shadow
    assert "SHADOW would set production/f0 to off" in text(line)


def test_of_two_flags_of_a_service_a_replay_commands_one_and_says_that_the_other_waits(tmp_path: Path) -> None:
    wide = "automation: {max_flips: 3, max_share: 1}\n"
    rows = list(samples(300, "shop", bad=lambda s, name: True))
    lines = replayed(tmp_path, flags("shop", "shop", extra=wide), iter(rows))
    first, second = of(lines, Commanded)
    assert (first.flag, second.flag) == ("f0", "f1")
    assert second.time - first.time == 120
    assert next((line.flag, line.time) for line in of(lines, Hindered)) == ("f1", first.time)
    limited = replayed(tmp_path, flags("shop", "shop"), iter(rows))
    assert [line.flag for line in of(limited, Commanded)] == ["f0"]
    assert any("automation.max_flips" in line.reason for line in of(limited, Hindered))


def test_an_outage_of_everything_commands_nothing_and_says_so(tmp_path: Path) -> None:
    rows = samples(60, "a", "b", "c", bad=lambda s, name: True)
    lines = replayed(tmp_path, flags("a", "b", "c"), rows)
    assert of(lines, Commanded) == []
    assert all("taken for an outage" in line.reason for line in of(lines, Hindered))
    assert of(lines, Hindered)


def test_a_replay_of_a_service_in_another_spelling_names_the_nearest_and_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_file(tmp_path, flags("recomendations"))
    path = write(tmp_path / "r.jsonl", samples(30, "recommendations", bad=lambda s, name: True))
    assert cli("replay", "-c", str(config), str(path)) == 1
    said = capsys.readouterr().err
    assert "no sample is of production/recomendations, which flag 'f0' watches" in said
    assert "did you mean production/recommendations?" in said


def test_a_replay_of_which_one_service_of_two_is_there_warns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_file(tmp_path, flags("shop", "search"))
    path = write(tmp_path / "r.jsonl", samples(30, "shop", bad=lambda s, name: False))
    assert cli("replay", "-c", str(config), str(path)) == 0
    assert "warning: no sample is of production/search" in capsys.readouterr().err


def test_a_replay_tells_of_samples_that_came_late(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_file(tmp_path, flags("shop"))
    rows = list(samples(30, "shop", bad=lambda s, name: False))
    late = [{**row, "ts": float(str(row["ts"])) - 8} for row in rows[-50:]]
    path = write(tmp_path / "r.jsonl", [*rows, *late])
    assert cli("replay", "-c", str(config), str(path)) == 0
    assert "warning: production/shop: of 350 samples 50 came late; more than 1 %" in capsys.readouterr().err


def test_a_replay_tells_of_samples_that_do_not_say_how_they_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_file(tmp_path, flags("shop"))
    rows = [
        {key: value for key, value in row.items() if key != "status"}
        for row in samples(30, "shop", bad=lambda s, n: False)
    ]
    assert cli("replay", "-c", str(config), str(write(tmp_path / "r.jsonl", rows))) == 0
    assert "of 300 samples 300 do not say how the request ended" in capsys.readouterr().err


def test_a_replay_names_triggers_that_could_never_judge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slow = "{name: slow, when: latency_p95 > 45s over 10s, min_samples: 20}"
    config = config_file(tmp_path, flags("shop", trigger=f"{TRIGGER}, {slow}"))
    path = write(tmp_path / "r.jsonl", samples(30, "shop", bad=lambda s, name: False))
    assert cli("replay", "-c", str(config), str(path)) == 0
    said = capsys.readouterr().err
    assert "warning: f0/slow was unknown from beginning to end: " in said
    assert "f0/errors was unknown" not in said


def test_a_trigger_of_a_variant_or_a_flag_that_no_sample_carries_is_named(tmp_path: Path) -> None:
    trigger = TRIGGER.replace("error_rate", "error_rate@onn")
    config = load(config_file(tmp_path, flags("shop", trigger=trigger)))
    for carried, words in (({"f0": "on"}, "has variant 'onn' of flag 'f0'"), ({}, "carries flag 'f0'")):
        path = write(tmp_path / "r.jsonl", samples(30, "shop", bad=lambda s, name: False, flags=carried))
        run, lines = replay(config, [path], "json")
        list(lines)
        (note,) = unmatched(config.trigger_specs(), run.tally.counts)
        assert words in note
        assert ("did you mean on?" in note) is bool(carried)


def test_a_backtest_notes_what_its_figures_do_not_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_file(tmp_path, flags("shop", "search"))
    path = write(tmp_path / "r.jsonl", samples(60, "shop", bad=lambda s, name: name == "i-0"))
    found = backtest(load(config), [path], "json", [], within=10)
    assert any("NO COMMAND  only instance 'i-0'" in note for note in found.notes)
    assert any("no sample is of production/search" in note for note in found.notes)
    labels = tmp_path / "labels.yaml"
    labels.write_text("[]")
    assert cli("backtest", "-c", str(config), "--labels", str(labels), "--json", str(path)) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["notes"] == found.notes
    assert "note: " in printed.err


def test_a_backtest_of_another_service_fails_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_file(tmp_path, flags("shops"))
    path = write(tmp_path / "r.jsonl", samples(30, "shop", bad=lambda s, name: True))
    labels = tmp_path / "labels.yaml"
    labels.write_text("[]")
    assert cli("backtest", "-c", str(config), "--labels", str(labels), str(path)) == 1
    assert "did you mean production/shop?" in capsys.readouterr().err


def test_a_trigger_test_notes_a_firing_without_a_command_and_a_series_of_another_service(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config_file(tmp_path, flags("shop", "search"))
    series = {
        'requests{service="shop",instance="a"}': "50x60",
        'errors{service="shop",instance="a"}': "50x60",
        'requests{service="shop",instance="b"}': "50x60",
    }
    wanted = [
        {"eval_time": "40s", "trigger": "errors", "flag": "f0", "exp_state": "firing"},
        {"eval_time": "40s", "trigger": "errors", "flag": "f1", "exp_state": "unknown"},
    ]
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    path = tmp_path / "tests.yaml"
    path.write_text(
        json.dumps({"config": "flipback.yaml", "tests": [{"input_series": inputs, "trigger_test": wanted}]})
    )
    (result,) = run_tests(path)
    assert result.failures == ()
    assert any("without a command: only instance 'a' breaches" in note for note in result.notes)
    assert any("no sample is of production/search" in note for note in result.notes)
    assert cli("test", str(path)) == 0
    assert "note: f0/errors fires at" in capsys.readouterr().out


@given(
    requests=st.integers(0, 10_000),
    late=st.integers(0, 10_000),
    rejected=st.integers(0, 10_000),
    share=st.floats(0, 1),
)
def test_every_sample_that_did_not_count_is_told_of(requests: int, late: int, rejected: int, share: float) -> None:
    row = np.zeros(len(COUNTS), dtype=np.int64)
    row[[REQUESTS, LATE, REJECTED, NO_OUTCOME]] = requests, late, rejected, int(share * requests)
    notes = list(lost({Scope("production", "shop"): row, Scope("production", "shop", "f", "on"): row}))
    assert len(notes) == int(bool(late or rejected or row[NO_OUTCOME]))
    for count in (late, rejected, int(row[NO_OUTCOME])):
        assert not count or f"{count:,} " in notes[0]
    if notes:
        unknown = (
            100 * (late + rejected) > requests + late + rejected or 100 * row[NO_OUTCOME] > requests + late + rejected
        )
        assert ("leaves verdicts unknown" in notes[0]) == unknown
