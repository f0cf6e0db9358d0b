"""Print the table of faults in docs/backends.md from the tests' cases: `python -m tests.support.fault_table`."""

from __future__ import annotations

import sys

from tests.contract.test_backend_faults import AMBIGUOUS, APPLIED, CASES, FAULTY, Case

_WORDS = {
    APPLIED: "flag safe, written once",
    AMBIGUOUS: "reported as ambiguous",
}


def table() -> str:
    """Return a table with a row per fault: its outcome and the backends that it is tested on."""
    rows = [
        "| fault, and what follows | outcome of the flip | tested on |",
        "|---|---|---|",
        *(f"| {case.name} | {_outcome(case)} | {', '.join(FAULTY)} |" for case in CASES),
    ]
    return "\n".join(rows) + "\n"


def _outcome(case: Case) -> str:
    unwritten = "reported, nothing was written"
    words = "; or ".join(_WORDS.get(outcome, unwritten) for outcome in case.outcomes)
    return f"{words}; {_WORDS[AMBIGUOUS]} if the backend does not compare and set" if case.blind else words


if __name__ == "__main__":
    sys.stdout.write(table())
