"""Which package may import which. The tests read the source, so that an import inside a function counts too."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

MAY_IMPORT = {
    "agent": {"agent", "streams", "detectors"},
    "streams": {"streams", "detectors"},
    "detectors": {"detectors"},
}

KAFKA = {"faust", "aiokafka", "mode"}

PURE = {
    "__future__", "abc", "bisect", "collections", "copy", "dataclasses", "decimal", "difflib", "enum", "fractions",
    "functools", "heapq", "itertools", "math", "numpy", "operator", "re", "statistics", "string", "types", "typing",
}  # fmt: skip
"""Modules that detectors may import. A list of forbidden modules would miss the next clock or socket."""

IMPURE_BUILTINS = {"open", "print", "input", "breakpoint", "exec", "eval", "__import__"}
IMPURE_NUMPY = {
    "random", "load", "save", "savez", "savez_compressed", "loadtxt", "savetxt", "genfromtxt", "fromfile", "memmap",
}  # fmt: skip


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def every_source() -> list[Path]:
    return [path for package in MAY_IMPORT for path in sources(package)]


@cache
def tree(path: Path) -> ast.Module:
    """Return the syntax tree of a file, which several rules read."""
    return ast.parse(path.read_text())


@cache
def imported(path: Path) -> list[tuple[int, str]]:
    """Return line and full name of every module that a file imports, anywhere in the file."""
    return [*_imported(path)]


def _imported(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; the rules are read from full names"
            yield node.lineno, node.module or ""


def found(paths: list[Path], forbidden: set[str] | None = None, allowed: set[str] | None = None) -> list[str]:
    """Return the imports in `paths` whose top-level module is in `forbidden`, or is not in `allowed`."""
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in paths
        for line, name in imported(path)
        if (top := name.partition(".")[0]) in (forbidden or ()) or (allowed is not None and top not in allowed)
    ]


def test_the_rules_are_applied_to_every_package() -> None:
    assert all(sources(package) for package in MAY_IMPORT)


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_imports_run_from_agent_to_streams_to_detectors(package: str) -> None:
    assert not found(sources(package), forbidden=MAY_IMPORT.keys() - MAY_IMPORT[package])


def test_nothing_that_is_installed_imports_the_tests() -> None:
    assert not found(every_source(), forbidden={"tests"})


@pytest.mark.parametrize("package", ["agent", "detectors"])
def test_kafka_is_reached_through_streams_only(package: str) -> None:
    assert not found(sources(package), forbidden=KAFKA)


def test_detectors_import_no_clock_no_input_and_no_output() -> None:
    assert not found(sources("detectors"), allowed=PURE | {"detectors"})


def test_detectors_call_no_input_no_output_and_no_chance() -> None:
    forbidden = IMPURE_BUILTINS | {f"{module}.{name}" for module in ("np", "numpy") for name in IMPURE_NUMPY}
    assert not [
        f"{path.relative_to(ROOT)}:{node.lineno} uses {ast.unparse(node)}"
        for path in sources("detectors")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node) in forbidden
    ]


def test_every_library_that_is_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    runtime = {_name(line) for line in project["dependencies"]}
    demo, drift = ({_name(line) for line in project["optional-dependencies"][extra]} for extra in ("demo", "drift"))
    distributions = metadata.packages_distributions()
    undeclared = []
    for path in every_source():
        declared = runtime | demo if path.is_relative_to(ROOT / "agent" / "demo") else runtime
        if path == ROOT / "streams" / "monitor" / "drift.py":
            declared |= drift
        for line, name in imported(path):
            top = name.partition(".")[0]
            if top in sys.stdlib_module_names or top in MAY_IMPORT:
                continue
            if not declared & {_name(distribution) for distribution in distributions.get(top, [])}:
                undeclared.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert not undeclared


def _name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None
    return re.sub(r"[-_.]+", "-", match[0]).lower()
