"""`make mutants`: makes thousands of small changes in the safety core, and counts those that the unit tests detect.

mutmut, through `tests.mutation`, makes the mutants and runs the tests that reach each (`[tool.mutmut]` of
pyproject.toml names the modules). This module counts them by module. A survivor is not counted if it only changes the
text of a message, or if `mutants-equivalent.toml` names it with the reason why it behaves like the original. The exit
status is 1 below LEAST.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

LEAST = 0.95
"""Share of the mutants that the tests must detect."""

EQUIVALENT = Path(__file__).with_name("mutants-equivalent.toml")
_STRING = re.compile(r"""[rbf]*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""")
_SEEN = frozenset({"killed", "timeout", "suspicious", "segfault", "caught by type check"})


class Mutant(NamedTuple):
    """`function` is `module.function` or `module.Class.function`; `removed` and `added` are the lines of the change."""

    function: str
    status: str
    removed: str
    added: str

    @property
    def module(self) -> str:
        return ".".join(self.function.split(".")[:2])

    @property
    def change(self) -> str:
        return f"{self.removed} -> {self.added}"


def only_words(mutant: Mutant) -> bool:
    """Whether the mutant changes nothing but text between quotes."""
    return _STRING.sub('""', mutant.removed) == _STRING.sub('""', mutant.added)


def equivalents() -> set[tuple[str, str]]:
    """The function and change of each mutant that is known to behave like the original."""
    entries = tomllib.loads(EQUIVALENT.read_text())["equivalent"]
    return {(entry["function"], entry["change"]) for entry in entries}


def table(found: Iterable[Mutant], known: set[tuple[str, str]]) -> tuple[list[str], list[Mutant], float]:
    """Return the lines to print, the mutants that no test detects, and the share of those that one does."""
    counts: dict[str, Counter[str]] = {}
    unseen: list[Mutant] = []
    for mutant in found:
        kind = "seen"
        if mutant.status not in _SEEN:
            kind = "words" if only_words(mutant) else "unseen"
            kind = "equivalent" if (mutant.function, mutant.change) in known else kind
        counts.setdefault(mutant.module, Counter())[kind] += 1
        if kind == "unseen":
            unseen.append(mutant)
    lines = [f"{'module':28} {'seen':>6} {'unseen':>7} {'equivalent':>11} {'words':>6} {'score':>7}"]
    for module, own in sorted(counts.items()):
        lines.append(_line(module, own))
    whole = sum(counts.values(), Counter())
    lines.append(_line("all", whole))
    return lines, unseen, _score(whole)


def _score(own: Counter[str]) -> float:
    counted = own["seen"] + own["unseen"]
    return own["seen"] / counted if counted else 0.0


def _line(module: str, own: Counter[str]) -> str:
    numbers = f"{own['seen']:6} {own['unseen']:7} {own['equivalent']:11} {own['words']:6}"
    return f"{module:28} {numbers} {_score(own):7.1%}"


def _results() -> Iterable[Mutant]:
    # Imported here: it is installed only in the environment of `make mutants`.
    from mutmut.__main__ import get_diff_for_mutant, status_by_exit_code, walk_mutatable_files
    from mutmut.configuration import Config
    from mutmut.mutation.data import SourceFileMutationData

    Config.ensure_loaded()
    for path in walk_mutatable_files():
        found = SourceFileMutationData(path=path)
        found.load()
        for name, code in found.exit_code_by_key.items():
            function, status = _readable(name), str(status_by_exit_code[code])
            if status == "not checked":
                continue
            lines = [] if status in _SEEN else get_diff_for_mutant(name).splitlines()
            changed = [line for line in lines if not line.startswith(("---", "+++", "@@"))]
            removed, added = (" ".join(line[1:].strip() for line in changed if line.startswith(sign)) for sign in "-+")
            yield Mutant(function, status, removed, added)


def _readable(name: str) -> str:
    """The mutated function: `agent.ledger.ledger.Ledger.open` for `agent.ledger.ledger.xǁLedgerǁopen__mutmut_3`."""
    module, _, rest = name.rpartition("__mutmut_")[0].rpartition(".")
    parts = rest.split("ǁ") if "ǁ" in rest else [rest.removeprefix("x_")]
    return ".".join([module, *(part for part in parts if part != "x")])


def main(names: list[str]) -> int:
    """Run the mutants, or those of `names` (patterns of mutmut); print the table and the undetected mutants."""
    subprocess.run([sys.executable, "-m", "tests.mutation", "run", *names], check=True)
    lines, unseen, score = table(_results(), equivalents())
    for mutant in unseen:
        sys.stdout.write(f"unseen: {mutant.function}\n  - {mutant.removed}\n  + {mutant.added}\n")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.write(f"score {score:.1%}, at least {LEAST:.0%}\n")
    return 0 if score >= LEAST else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
