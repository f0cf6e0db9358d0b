"""Runs the parts of the bench."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from agent.bench.measures import Measure


def run(parts: Sequence[str], kafka: str | None) -> Iterator[Measure]:
    """Measure the parts one after the other; `kafka` is the broker, which `monitor` does not need."""
    broker = kafka or ""
    for part in parts:
        # Import a part only when it runs, so that its memory does not affect the others.
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
