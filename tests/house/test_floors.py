"""A package imports packages on lower floors, or itself. The tests read the source.

A package that is not listed fails a test: a new package needs a floor.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

from tests.house.test_imports import ROOT, imported, sources, tree

FLOORS = {
    "detectors": [
        ["errors", "arrays"],
        ["cells", "histogram", "state"],
        ["cell_operations", "conditions", "sequential"],
        ["windows"],
        ["missing"],
        ["triggers"],
    ],
    "streams": [
        ["errors", "settings", "slices", "memory", "clock", "condition", "unreadable", "telemetry", "grouped_sums"],
        ["kafka", "decoders", "partials"],
        ["ingest", "monitor", "executor"],
        ["replay", "bench"],
    ],
    "agent": [
        ["errors", "logs"],
        ["storage", "commands", "heartbeats"],
        ["backends", "events"],
        ["config", "state", "ledger", "fakes"],
        ["executor", "armed", "after_flip", "views"],
        ["decisions", "telemetry", "web", "rollouts"],
        ["deployment", "offline", "demo"],
        ["control", "preflight", "runtime", "bench"],
        ["cli"],
    ],
}
"""By top package, from the lowest floor up. Packages on one floor do not import each other."""

ONLY_IN = {
    "faust": ["streams/kafka/", "streams/bench/"],
    "mode": ["streams/kafka/"],
    "aiokafka": ["streams/kafka/", "streams/bench/", "streams/telemetry/emitter.py"],
    "click": ["agent/cli/"],
    "rich": ["agent/cli/", "agent/demo/"],
    "aiohttp": ["agent/backends/", "agent/web/", "agent/fakes/", "agent/demo/"],
}
"""The places that may import a library. The bench measures the unchanged Faust and aiokafka."""

PURE = ["agent/decisions", "agent/after_flip/rules.py", "agent/rollouts"]
"""Packages that read no file: their input is their arguments."""


def rooms(top: str) -> dict[str, int]:
    return {f"{top}.{name}": number for number, floor in enumerate(FLOORS[top]) for name in floor}


def room(module: str) -> str:
    return ".".join(module.split(".")[:2])


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("top", sorted(FLOORS))
def test_every_package_stands_on_a_floor(top: str) -> None:
    assert {room(module(path)) for path in sources(top)} - {top} == set(rooms(top))


@pytest.mark.parametrize("top", sorted(FLOORS))
def test_a_package_imports_lower_floors_only(top: str) -> None:
    floors = rooms(top)
    up = []
    for path in sources(top):
        own = room(module(path))
        for line, name in imported(path):
            other = room(name)
            if other not in floors or other == own or own == top:
                continue
            if floors[other] >= floors[own]:
                up.append(f"{path.relative_to(ROOT)}:{line} ({floors[own]}) imports {name} ({floors[other]})")
    assert not up


def test_no_files_import_each_other_in_a_circle() -> None:
    paths = {module(path): path for top in FLOORS for path in sources(top)}
    arrows = {name: targets(path, set(paths)) - {name} for name, path in paths.items()}
    # The first round removes files that lead to no circle, the second those that no circle leads to.
    left = inside(arrows)
    back: dict[str, set[str]] = {name: set() for name in left}
    for name, to in left.items():
        for other in to:
            back[other].add(name)
    assert not inside(back)


def inside(arrows: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return the arrows of the files from which a path leads into a circle."""
    left = {name: set(to) for name, to in arrows.items()}
    while free := {name for name, to in left.items() if not to}:
        left = {name: to - free for name, to in left.items() if name not in free}
    return left


def targets(path: Path, known: set[str]) -> set[str]:
    """Return the modules that a file imports: `from a import b` is a.b if that is a module."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & known
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & known or {node.module}
    return found


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_a_library_is_imported_in_its_own_place_only(library: str) -> None:
    assert not [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for top in FLOORS
        for path in sources(top)
        for line, name in imported(path)
        if name.partition(".")[0] == library and not str(path.relative_to(ROOT)).startswith(tuple(ONLY_IN[library]))
    ]


def test_what_decides_reads_no_file() -> None:
    calls = defaultdict(list)
    for place in PURE:
        root = ROOT / place
        for path in [root] if root.is_file() else sorted(root.rglob("*.py")):
            for node in ast.walk(tree(path)):
                if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in READS:
                    calls[str(path.relative_to(ROOT))].append(ast.unparse(node.func))
    assert not calls


READS = {"open", "read_text", "read_bytes", "write_text", "write_bytes"}


def test_no_private_name_of_another_package_is_imported() -> None:
    assert not [
        f"{path.relative_to(ROOT)}:{node.lineno} imports {node.module}.{alias.name}"
        for top in FLOORS
        for path in sources(top)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in FLOORS
        for alias in node.names
        if alias.name.startswith("_")
    ]


def test_a_package_says_what_it_is_for() -> None:
    assert not [
        str(path.relative_to(ROOT))
        for top in FLOORS
        for path in sources(top)
        if path.name == "__init__.py" and not ast.get_docstring(tree(path))
    ]


def test_no_file_has_more_than_300_lines() -> None:
    assert not [
        str(path.relative_to(ROOT))
        for top in FLOORS
        for path in sources(top)
        if len(path.read_text().splitlines()) > 300
    ]
