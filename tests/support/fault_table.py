"""The table of faults in docs/backends.md, made from the names of the tests: `python -m tests.support.fault_table`."""

from __future__ import annotations

import sys

from tests.contract.test_backend_faults import AMBIGUOUS, APPLIED, CASES, FAULTY, Case

_WORDS = {
    APPLIED: "flag safe, written once",
    AMBIGUOUS: "told as ambiguous",
}


def table() -> str:
    """A row a fault, with what comes of it and the backends it is tested on."""
    rows = [
        "| what goes wrong, and what follows | outcome of the flip | tested on |",
        "|---|---|---|",
        *(f"| {case.name} | {_outcome(case)} | {', '.join(FAULTY)} |" for case in CASES),
    ]
    return "\n".join(rows) + "\n"


def _outcome(case: Case) -> str:
    told = "told; nothing was written"
    words = " or ".join(_WORDS.get(outcome, told) for outcome in case.outcomes)
    return f"{words}; {_WORDS[AMBIGUOUS]} where nobody compares and sets" if case.blind else words


if __name__ == "__main__":
    sys.stdout.write(table())
