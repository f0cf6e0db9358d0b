"""`make bench`: the bench on the broker that is named, else on an Apache Kafka started for it, as the tests have it.

python -m tests.bench_broker [PART]... [--kafka HOST:PORT] [--json]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.kafka import KafkaNode, KafkaUnavailable


def main(arguments: list[str]) -> int:
    bench = [sys.executable, "-c", "from agent.cli import main; main()", "bench", *arguments]
    named = os.environ.get("FLIPBACK_KAFKA") or any(argument.startswith("--kafka") for argument in arguments)
    # The broker's data can be hundreds of MB: on disk, where TMPDIR says.
    with tempfile.TemporaryDirectory(prefix="flipback-bench-kafka-") as directory:
        node = KafkaNode(Path(directory))
        environment = dict(os.environ)
        if not named:
            try:
                node.start()
            except KafkaUnavailable as error:
                sys.stderr.write(f"The bench needs Apache Kafka: {error}; or name a broker: --kafka host:port\n")
                return 2
            environment["FLIPBACK_KAFKA"] = node.bootstrap
        try:
            return subprocess.run(bench, env=environment, check=False).returncode
        except KeyboardInterrupt:
            return 130
        finally:
            node.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
