"""A limit that is probably a mistake is accepted with a note in `config check`; a plausible limit gets no note."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.flags import When
from agent.config.load import load
from agent.config.slips import slip
from tests.support.recordings import config_file
from tests.unit.agent.cli.test_keys_and_restore import run as cli
from tests.unit.agent.decisions.test_commander import spec
from tests.unit.agent.offline.test_rehearsal import flags


def note(tmp_path: Path, when: str, *, rate: float | None = None) -> str | None:
    config = load(config_file(tmp_path, flags("shop", trigger=f'{{name: t, when: "{when}", min_samples: 30}}')))
    return slip(config.flags[0].triggers[0].when, config.trigger_specs()[0], rate)


@pytest.mark.parametrize(
    ("when", "meant"),
    [
        ("availability < 0.99%", "did you mean 99%?"),
        ("availability@on < .995% for 1m", "did you mean 99.5%?"),
        ("error_rate > 0.02%", "did you mean 2%?"),
        ("timeout_rate >0.05%  for 2m", "did you mean 5%?"),
        ("cache_hit_rate < 0.4% for 5m", "did you mean 40%?"),
    ],
)
def test_a_fraction_with_a_percent_sign_is_asked_about(tmp_path: Path, when: str, meant: str) -> None:
    found = note(tmp_path, when)
    assert found is not None
    assert meant in found


@pytest.mark.parametrize(
    "when",
    [
        "availability < 99%",
        "availability < 0.99",
        "availability < 99.99%",
        "error_rate > 2%",
        "error_rate > 0.1%",
        "error_rate > 0.5% for 2m",
        "error_rate > 0.02",
        "error_rate > 0.0002",
        "cache_hit_rate < 5%",
        "error_rate@on > 3x control",
        "error_rate@on > control",
        "latency_p95 > 45s",
        "throughput < 0.5/s",
        "absence@on",
        "measure.score < 0.8",
    ],
)
def test_a_limit_that_may_be_meant_is_not_doubted(tmp_path: Path, when: str) -> None:
    assert note(tmp_path, when) is None


def test_a_tiny_limit_is_not_doubted_where_there_are_the_samples_for_it(tmp_path: Path) -> None:
    text = flags("shop", trigger='{name: t, when: "error_rate > 0.05% over 1m", fast: false}')
    config = load(config_file(tmp_path, text))
    (judged,) = config.trigger_specs()
    enough = judged.min_samples / judged.windows[-1]
    when = config.flags[0].triggers[0].when
    assert slip(when, judged, enough * 1.01) is None
    assert slip(when, judged, enough * 0.5) is not None
    assert slip(when, judged, None) is not None


@given(st.floats(1e-6, 100))
def test_what_is_asked_about_can_be_kept_by_writing_the_fraction(percent: float) -> None:
    written = f"{percent:.8f}".rstrip("0")
    assert slip(When(f"error_rate > {written}%"), spec(), None) is None or float(written) < 0.1
    assert slip(When(f"error_rate > {float(written) / 100:.10f}"), spec(), None) is None


def test_config_check_prints_the_note_and_accepts_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = flags("shop", trigger='{name: t, when: "availability < 0.99%", min_samples: 30, fast: false}')
    path = str(config_file(tmp_path, text))
    assert cli("config", "check", "--no-files", path) == 0
    assert "note: 0.99% is 0.0099: did you mean 99%? To keep it, write 0.0099" in capsys.readouterr().out
    assert cli("config", "check", "--no-files", "--json", path) == 0
    (trigger,) = json.loads(capsys.readouterr().out)["triggers"]
    assert "did you mean 99%?" in trigger["note"]
