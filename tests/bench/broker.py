"""`make bench`: runs the bench on the given broker, else on an Apache Kafka that is started as for the tests.

    python -m tests.bench.broker [PART]... [--kafka HOST:PORT] [--json]

To measure flips it also starts an Unleash server with flags. Without Node.js and PostgreSQL it prints that Unleash is
left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from agent.bench.flip import names
from tests.support.kafka import KafkaNode, KafkaUnavailable
from tests.support.places.unleash import Person
from tests.support.unleash.server import UnleashUnavailable, serving


def main(arguments: list[str]) -> int:
    bench = [sys.executable, "-c", "from agent.cli import main; main()", "bench", *arguments]
    parts = [argument for argument in arguments if not argument.startswith("-")]
    # The broker's data can be hundreds of MB; TMPDIR decides on which disk.
    with tempfile.TemporaryDirectory(prefix="flipback-bench-systems-") as directory, contextlib.ExitStack() as stack:
        environment = dict(os.environ)
        try:
            if "FLIPBACK_KAFKA" not in environment and not any(word.startswith("--kafka") for word in arguments):
                environment["FLIPBACK_KAFKA"] = stack.enter_context(_kafka(Path(directory) / "kafka"))
            if not parts or "flip" in parts:
                environment |= stack.enter_context(_unleash(Path(directory)))
            return subprocess.run(bench, env=environment, check=False).returncode
        except KafkaUnavailable as error:
            sys.stderr.write(f"The bench needs Apache Kafka: {error}; or name a broker: --kafka host:port\n")
            return 2
        except KeyboardInterrupt:
            return 130


@contextlib.contextmanager
def _kafka(directory: Path) -> Iterator[str]:
    node = KafkaNode(directory)
    node.start()
    try:
        yield node.bootstrap
    finally:
        node.kill()


@contextlib.contextmanager
def _unleash(directory: Path) -> Iterator[dict[str, str]]:
    """Start an Unleash server with the bench's flags; yields the environment variable that gives it to the bench."""
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(serving(directory))
        except UnleashUnavailable as error:
            sys.stderr.write(f"Unleash is left out: {error}\n")
            yield {}
            return
        token = directory / "unleash.token"
        token.touch(0o600)
        token.write_text(server.admin_token)

        async def make() -> None:
            person = Person(server)
            for flag in names().values():
                await person.make(flag)
            await person.close()

        asyncio.run(make())
        yield {"FLIPBACK_BENCH_UNLEASH": json.dumps({"url": server.url, "token_file": str(token)})}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
