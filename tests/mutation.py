"""mutmut as `make mutants` runs it: methods of dataclasses are mutated too, and the tests are collected once.

Unchanged, mutmut skips decorated classes and functions, among them the limits of flips, and collects the tests again
for each of three thousand mutants, which takes longer than most tests run. Properties are tried on fewer examples,
always the same ones. Needs the environment of `make mutants`: this module replaces private parts of the versions that
`requirements-mutants.txt` pins.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import libcst as cst
import mutmut
import mutmut.__main__ as program
import pytest
from _pytest.config import _prepareconfig
from _pytest.main import Session
from mutmut.configuration import Config
from mutmut.mutation import file_mutation
from mutmut.utils.file_utils import change_cwd

HARMLESS = frozenset({"dataclass", "property", "contextmanager"})
"""Decorators that work on a mutated function or class."""

EXAMPLES = 25
"""Maximum number of examples of a property that are tried on a mutant."""

_TIMED_OUT = 36
"""The exit status of a child that stands for a timeout in mutmut."""

_skip = file_mutation.MutationVisitor._skip_node_and_children
_arrange = file_mutation.function_trampoline_arrangement


def _harmless(node: cst.FunctionDef | cst.ClassDef) -> bool:
    for decorator in node.decorators:
        named = decorator.decorator.func if isinstance(decorator.decorator, cst.Call) else decorator.decorator
        if not isinstance(named, cst.Name) or named.value not in HARMLESS:
            return False
    return True


def skip(self: file_mutation.MutationVisitor, node: cst.CSTNode) -> bool:
    """Whether a node is not mutated: as mutmut decides, except that nodes with harmless decorators are mutated."""
    if isinstance(node, cst.Decorator):
        return True
    if isinstance(node, cst.FunctionDef | cst.ClassDef) and node.decorators and _harmless(node):
        return False
    return bool(_skip(self, node))


def arrange(function: cst.FunctionDef, mutants: Iterable[Any], class_name: str | None) -> Any:
    """The mutated copies of a function without harmless decorators; those decorate the function that chooses a copy."""
    if not _harmless(function):
        return _arrange(function, mutants, class_name)
    declared, methods, assigned, names = _arrange(function.with_changes(decorators=[]), mutants, class_name)
    chosen = methods[0].with_changes(decorators=[*function.decorators, *methods[0].decorators])
    return declared, [chosen, *methods[1:]], assigned, names


class FewExamples:
    """A pytest plugin that tries few examples of each property."""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        # Imported here: pytest warns if this module is imported before it can rewrite its assertions.
        from hypothesis import Phase, settings

        # One failing example is enough: shrinking it takes longer than finding it.
        phases = Phase.explicit, Phase.generate

        for item in items:
            test = getattr(item, "obj", None)
            own = getattr(test, "_hypothesis_internal_use_settings", None)
            if own is not None:
                few = min(EXAMPLES, own.max_examples)
                test._hypothesis_internal_use_settings = settings(  # type: ignore[union-attr]
                    own, max_examples=few, derandomize=True, database=None, phases=phases
                )


class Collected(program.PytestRunner):  # type: ignore[misc]
    """Runs the tests of a mutant in the child that mutmut forks for it, with the tests that its parent collected."""

    def execute_pytest(self, params: list[str], **kwargs: Any) -> int:
        return int(super().execute_pytest(params, plugins=[*kwargs.pop("plugins", ()), FewExamples()], **kwargs))

    def run_tests(self, *, mutant_name: str | None, tests: Iterable[str]) -> int:
        """Run tests until one fails; returns 0 if none does."""
        if mutant_name is not None:
            return self._run(tests, self._killers(mutant_name))
        if os.environ["MUTANT_UNDER_TEST"]:
            return int(super().run_tests(mutant_name=None, tests=tests))
        # This run is without a mutant. A test that fails in a child now would seem to detect every mutant.
        self._collect()
        names = sorted(set(tests) or self._items, key=mutmut.duration_by_test.__getitem__)
        child = os.fork()
        if not child:
            failed = 1
            try:
                failed = self._run(names, self._killers(""))
            finally:
                os._exit(failed)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status:
            super().run_tests(mutant_name=None, tests=tests)
        return status

    def _collect(self) -> None:
        selection = Config.get().pytest_add_cli_args_test_selection
        # Native tracebacks, because printing source lines takes minutes: a mutated file contains all its mutants.
        arguments = ["--rootdir=.", "--tb=native", "-q", "-s", *self._pytest_add_cli_args, *selection]
        with change_cwd("mutants"), program.CatchOutput():
            self._config = _prepareconfig(arguments, [FewExamples()])
            self._config._do_configure()
            self._session = Session.from_config(self._config)
            self._config.hook.pytest_sessionstart(session=self._session)
            self._items = {item.nodeid: item for item in self._session.perform_collect()}
            self._temporary: Path = self._config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]

    def _killers(self, mutant: str) -> Path:
        """A file with the tests that detected another mutant of the same function: most detect this one too."""
        return self._temporary / f"killers {mutant.partition('__mutmut_')[0]}"

    def _run(self, tests: Iterable[str], killers: Path) -> int:
        signal.signal(signal.SIGALRM, lambda *_: os._exit(_TIMED_OUT))
        first = killers.read_text().splitlines() if killers.exists() else []
        items = [self._items[name] for name in dict.fromkeys([*reversed(first), *tests])]
        with change_cwd("mutants"), TemporaryDirectory(dir=self._temporary) as own:
            # Each child needs its own temporary directory.
            self._config._tmp_path_factory._basetemp = Path(own)  # type: ignore[attr-defined]
            for item, following in zip(items, [*items[1:], None], strict=True):
                signal.setitimer(signal.ITIMER_REAL, 20.0 + 10.0 * mutmut.duration_by_test[item.nodeid])
                # A test must fail twice, because on a busy machine it may fail by chance.
                if not self._passes(item, following) and not self._passes(item, following):
                    with killers.open("a") as file:
                        file.write(f"{item.nodeid}\n")
                    return 1
            signal.setitimer(signal.ITIMER_REAL, 0.0)
        return 0

    def _passes(self, item: pytest.Item, following: pytest.Item | None) -> bool:
        item._initrequest()  # type: ignore[attr-defined]
        before = self._session.testsfailed
        self._config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        return bool(self._session.testsfailed == before)


def main() -> None:
    """Run mutmut's command line with the arguments that were given."""
    file_mutation.MutationVisitor._skip_node_and_children = skip
    file_mutation.function_trampoline_arrangement = arrange
    program.PytestRunner = Collected
    program.cli(sys.argv[1:])


if __name__ == "__main__":
    main()
