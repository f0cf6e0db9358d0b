"""Every step of docs/first-hour.md on a real Kafka, with the test's own topics."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "first-hour.md"
FLAG = "new-recommendations"


@contextlib.contextmanager
def started(command: list[str], directory: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=directory, stdout=file, stderr=file)
    try:
        yield process
        assert process.poll() is None, log.read_text()[-2000:]
    finally:
        process.terminate()
        process.wait(20)


class Shell:
    """Runs `flipback ...` in the directory of the page."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    async def flipback(self, *arguments: str) -> tuple[int, str]:
        """Run a command; return its exit status and output."""
        command = [sys.executable, "-c", "from agent.cli import main; main()", *arguments]
        done = await asyncio.to_thread(
            subprocess.run,
            command,
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout

    async def until(self, wanted: str, *arguments: str, within: float = 120) -> str:
        """Run a command until its output begins with `wanted`; return the output."""
        output = ""
        try:
            async with asyncio.timeout(within):
                while not output.startswith(wanted):
                    _, output = await self.flipback(*arguments)
        except TimeoutError:
            raise AssertionError(f"{' '.join(arguments)} never began with {wanted!r}:\n{output}") from None
        return output


async def test_the_first_hour_ends_with_the_flag_turned_off_and_put_back(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    text = PAGE.read_text()
    (producer,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    prefix, config = topic_prefix.rstrip("."), ("-c", "flipback.yaml")
    topic = f"{prefix}-requests"
    shop = Shell(tmp_path / "shop")
    made = await Shell(tmp_path).flipback("init", "shop", "--topic", topic, "--brokers", kafka)
    assert made == (0, _written(shop.directory))
    path = shop.directory / "flipback.yaml"
    kafka_line = f"kafka: {{brokers: [{kafka}], prefix: {prefix}, partials_partitions: 2}}\nweb: {{port: 0}}"
    path.write_text(path.read_text().replace(f"kafka: {{brokers: [{kafka}]}}", kafka_line))
    (shop.directory / "produce.py").write_text(producer.replace('"requests"', repr(topic)))
    assert (await shop.flipback("topics", "create", *config))[0] == 0
    flags = shop.directory / "flags.json"
    before = flags.read_bytes()
    run = [sys.executable, "-c", "from agent.cli import main; main()", "run", *config, "--log-text"]
    with (
        started([sys.executable, "produce.py", kafka], shop.directory, tmp_path / "produce.log"),
        started(run, shop.directory, tmp_path / "run.log"),
    ):
        await shop.until("ARMED\n", "status", *config)
        async with asyncio.timeout(120):
            while "ok       new-recommendations/worse-than-old" not in (await shop.flipback("status", *config))[1]:
                await asyncio.sleep(0.5)
        (shop.directory / "fault").write_text("0.3\n")
        async with asyncio.timeout(120):
            while json.loads(flags.read_text())["flags"][FLAG]["targeting"]:
                await asyncio.sleep(0.1)
        output = await shop.until(f"production/{FLAG} gives 'off' (safe) since", "explain", FLAG, *config)
        assert "set by flipback: trigger" in output.splitlines()[0]
        assert re.search(r"^    on: [\d,]+ requests, \d+ errors", output, re.MULTILINE)
        undo = re.search(r"undo: flipback restore (\S+) -c flipback.yaml", output)
        assert undo is not None
        (shop.directory / "fault").unlink()
        status, _ = await shop.flipback("restore", undo[1], *config, "--reason", "fixed in 4.2.1", "--yes")
        assert (status, flags.read_bytes()) == (0, before)
        await shop.until(f"production/{FLAG} gives different variants (in use) since", "explain", FLAG, *config)
        reason = ("--reason", "customers call", "--yes")
        assert (await shop.flipback("rollback", FLAG, *config, *reason))[0] == 0
        assert json.loads(flags.read_text())["flags"][FLAG]["defaultVariant"] == "off"
        status, output = await shop.flipback("doctor", *config)
        assert (status, output.splitlines()[-1]) == (0, "ARMED"), output
        assert (await shop.flipback("halt", *config, "--reason", "maintenance"))[0] == 0
        assert "maintenance" in await shop.until("NOT ARMED: automation", "status", *config)
        assert (await shop.flipback("resume", *config, "--reason", "done"))[0] == 0
        await shop.until("ARMED\n", "status", *config)
    # No process runs any more; the command does not connect to Kafka.
    flags.write_bytes(before)
    assert (await shop.flipback("rollback", FLAG, *config, *reason, "--direct"))[0] == 0
    assert json.loads(flags.read_text())["flags"][FLAG]["defaultVariant"] == "off"
    assert (await shop.flipback("status", *config))[0] == 1


def _written(directory: Path) -> str:
    """Return the output of `flipback init shop`."""
    return (
        f"written: {directory.name}/flipback.yaml\nwritten: {directory.name}/flags.json\nnext:\n"
        f"  flipback config check {directory.name}/flipback.yaml   # how each trigger will be judged\n"
        f"  flipback doctor -c {directory.name}/flipback.yaml      # would a flip work now, and does telemetry come?\n"
    )
