"""The parts of the bench in their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from agent.bench.measures import Measure


def run(parts: Sequence[str], kafka: str | None) -> Iterator[Measure]:
    """Measure the parts one after the other; `kafka` is the broker, not needed by `monitor`."""
    broker = kafka or ""
    for part in parts:
        # Imported when it runs: what one part costs in memory is no matter of the next.
        if part == "ingest":
            from agent.bench.ingest import ingest

            yield from ingest(broker)
        elif part == "monitor":
            from agent.bench.evaluate import evaluate

            yield from evaluate()
        elif part == "flip":
            from agent.bench.flip import flip

            yield from flip(broker)
        elif part == "restart":
            from agent.bench.restart import restart

            yield from restart(broker)
        else:
            from agent.bench.start import start

            yield from start(broker)
