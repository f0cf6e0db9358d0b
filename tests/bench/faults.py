"""Measures how long a flip takes when a flag system misbehaves: `python -m tests.bench.faults [KIND]...`.

The executor runs the faults of tests/contract/test_backend_faults.py with its whole budget of 5 s.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from tests.contract.test_backend_faults import CASES, FAULTY, Case, Desk, order
from tests.support.places import place

BUDGET_S = 5.0


async def measured(kind: str, case: Case) -> tuple[str, float]:
    """Return the outcome of a flip and the seconds until it was published."""
    with tempfile.TemporaryDirectory(prefix="flipback-bench-") as directory:
        async with place(kind, Path(directory)) as at:
            desk = Desk(at, Path(directory) / "ledger", BUDGET_S)
            raw = await desk.command()
            order(desk, *case.faults)
            start = time.perf_counter()
            result = await desk.execute(raw)
            took = time.perf_counter() - start
            desk.executor.close()
            return result.outcome, took


def main(kinds: list[str]) -> int:
    worst = 0.0
    for kind in kinds or [kind for kind in FAULTY if not kind.startswith("unleash")]:
        for case in CASES:
            outcome, took = asyncio.run(measured(kind, case))
            worst = max(worst, took)
            sys.stdout.write(f"{kind:22} {took:6.2f} s  {outcome:10} {case.name}\n")
    sys.stdout.write(f"longest {worst:.2f} s of {BUDGET_S:.0f} s\n")
    return 0 if worst <= BUDGET_S else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
