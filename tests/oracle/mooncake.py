"""A cache of token blocks under the requests of a real conversation service, shrunk in the middle of the run.

`python -m tests.oracle.mooncake` prints the recording: the counters of a least-recently-used cache every 5 s.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from agent.offline.backtest import LabelledFault

DATA = Path(__file__).parent.parent / "data"
SOURCE = DATA / "mooncake-conversation.jsonl.gz"
T0 = 1_700_000_000
"""Unix time of second 0 of the source."""
INTERVAL = 5
SERVICE = "kv-cache"

BLOCKS = 50_000
"""Places of the cache: with more, the hits of the source hardly rise."""
SHRUNK = 1000
SHRUNK_FROM, SHRUNK_UNTIL = 1800, 2400
"""The cache has only SHRUNK places between these seconds after T0."""


class Lru:
    """A cache that evicts the least recently used block."""

    def __init__(self) -> None:
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def look_up(self, block: int, places: int) -> bool:
        """Return whether the block was cached; cache it, and keep at most `places` blocks."""
        hit = block in self._blocks
        self._blocks[block] = None
        self._blocks.move_to_end(block)
        while len(self._blocks) > places:
            self._blocks.popitem(last=False)
        return hit


def requests() -> Iterator[tuple[float, list[int]]]:
    """Yield the second since T0 and the blocks of each request."""
    with gzip.open(SOURCE) as file:
        for line in file:
            row = json.loads(line)
            yield row["timestamp"] / 1000, row["hash_ids"]


def records() -> Iterator[bytes]:
    """Yield a snapshot every INTERVAL seconds."""
    cache, counters = Lru(), {"requests": 0, "cache_hits": 0, "cache_lookups": 0}
    due = 0
    for at, blocks in requests():
        while at >= due:
            yield json.dumps({"ts": T0 + due, "service": SERVICE, "instance": "cache-0", "counters": counters}).encode()
            due += INTERVAL
        places = SHRUNK if SHRUNK_FROM <= at < SHRUNK_UNTIL else BLOCKS
        counters["requests"] += 1
        counters["cache_lookups"] += len(blocks)
        counters["cache_hits"] += sum(cache.look_up(block, places) for block in blocks)


def hit_rate(begin: float, end: float) -> float:
    """Return the hit rate of the lookups between two times in seconds after T0."""
    spans = [json.loads(record) for record in records()]
    counters = [row["counters"] for row in spans if begin <= row["ts"] - T0 <= end]
    hits, lookups = (counters[-1][name] - counters[0][name] for name in ("cache_hits", "cache_lookups"))
    return float(hits / lookups)


def faults() -> list[LabelledFault]:
    return [LabelledFault(at=T0 + SHRUNK_FROM, until=T0 + SHRUNK_UNTIL, name=f"cache shrunk to {SHRUNK:,} blocks")]


if __name__ == "__main__":
    sys.stdout.writelines(record.decode() + "\n" for record in records())
