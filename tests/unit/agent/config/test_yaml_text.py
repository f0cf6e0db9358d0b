"""The size of a YAML text bounds the time to read it: aliases and nesting are counted before anything is built."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agent.config.load import check
from agent.config.yaml_text import MOST_ALIASED, excess, read_yaml
from agent.errors import ConfigError
from agent.offline.backtest import read_labels
from agent.offline.trigger_tests import run


def merges(levels: int) -> str:
    """Mappings, each of which merges the previous one twice."""
    return "a0: &a0 {k: v}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, levels + 1))


def lists(levels: int) -> str:
    """Lists, each of which has the previous one nine times."""
    return "a0: &a0 lol\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, levels + 1))


def one_list(levels: int) -> str:
    """Lists, each of which has the previous one twice, in a list instead of a mapping."""
    return "- &a0 [v, v]\n" + "".join(f"- &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, levels + 1))


BOMBS = [merges(60), lists(30), one_list(60), "- &a [" + "v, " * 1000 + "v]\n" + "- *a\n" * 101]
READERS: dict[str, Callable[[Path], Any]] = {
    "configuration": lambda path: check(path)[1],
    "labels": read_labels,
    "trigger tests": lambda path: list(run(path)),
}


@pytest.mark.parametrize("text", BOMBS)
@pytest.mark.parametrize("reader", READERS)
def test_aliases_that_stand_for_too_much_are_refused_with_their_line(tmp_path: Path, reader: str, text: str) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(text)
    begun = time.process_time()
    if reader == "configuration":
        (problem,) = READERS[reader](path)
        assert "aliases stand for more than 100,000 values" in problem.message
        assert problem.line is not None
    else:
        with pytest.raises(ConfigError, match=r"file\.yaml:\d+: its aliases stand for more than 100,000 values"):
            READERS[reader](path)
    # Even the smallest of them, once built, takes all memory: any bound shows that it was not built.
    assert time.process_time() - begun < 5


@pytest.mark.parametrize("reader", ["labels", "trigger tests"])
def test_nesting_that_would_end_the_process_is_refused(tmp_path: Path, reader: str) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("[" * 100_000)
    with pytest.raises(ConfigError, match="nested more than 100 levels deep"):
        READERS[reader](path)


def test_what_many_flags_have_in_common_may_be_an_alias() -> None:
    common = "{" + ", ".join(f"k{n}: v" for n in range(14)) + "}"
    text = f"common: &common {common}\nflags:\n" + "".join(f"  - {{<<: *common, flag: f{n}}}\n" for n in range(1000))
    assert excess(text) is None


def test_an_alias_that_leads_into_what_contains_it_is_no_endless_loop(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("- &a [*a]\n- &b {<<: *b, k: v}\n")
    assert excess(path.read_text()) is None
    assert read_yaml(path)[1]["k"] == "v"


@pytest.mark.parametrize(
    ("content", "words"), [(b"\xff", "file.yaml: 'utf-8'"), (b"a: [", "file.yaml: "), (None, "No such file")]
)
def test_a_file_that_is_no_yaml_is_refused_with_the_reason(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "file.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        read_yaml(path)


values = st.recursive(
    st.integers() | st.text("abc", max_size=5) | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=4),
    max_leaves=20,
)


@given(values)
def test_what_holds_no_more_than_it_says_is_never_refused(value: Any) -> None:
    assert excess(yaml.safe_dump(value)) is None
    assert excess(yaml.safe_dump([value] * 3)) is None


@given(st.integers(0, 8), st.integers(1, 12))
def test_the_count_is_what_the_aliases_come_to(levels: int, width: int) -> None:
    text = "- &a0 [v]\n" + "".join(f"- &a{n} [{', '.join([f'*a{n - 1}'] * width)}]\n" for n in range(1, levels + 1))
    size, aliased = 2, 0
    for _ in range(levels):
        aliased += width * size
        size = 1 + width * size
    assert (excess(text) is not None) == (aliased > MOST_ALIASED)
