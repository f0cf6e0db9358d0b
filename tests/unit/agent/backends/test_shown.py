"""Names in messages: suggestions of what was meant, else what exists, and never too many."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.backends.shown import instead, meant, nearest, shown

FLAGS = [f"flag-{number:05}" for number in range(20_000)]


@pytest.mark.parametrize(
    ("name", "names", "words"),
    [
        ("shopp", {"shop", "search"}, "did you mean shop?"),
        # Also with a typo in the first letter.
        ("whop", {"shop", *"abcdefgh"}, "did you mean shop?"),
        ("on", {"On", "off"}, "did you mean On?"),
        ("onn", {"on", "one"}, "did you mean on or one?"),
        ("xyz", {"shop", "search"}, "there are 'search', 'shop'"),
        ("shop", set[str](), "there is none at all"),
    ],
)
def test_what_is_like_a_name_is_asked_for_else_what_there_is_is_named(name: str, names: set[str], words: str) -> None:
    assert instead(name, names) == words


def test_of_many_names_those_that_are_like_it_are_found_and_the_others_counted() -> None:
    assert instead("flag-0017", FLAGS).startswith("did you mean flag-00")
    assert nearest("new-chekout", [*FLAGS, "new-checkout"]).startswith("'new-checkout' and 20000")
    assert instead("zz", FLAGS).endswith("and 19997 more")


def test_a_setting_that_nothing_is_like_is_no_question() -> None:
    assert meant("zzz", ["flags", "kafka"]) is None


@pytest.mark.parametrize("name", ["\U000e0001" * 60, "\x00" * 40, "é" * 60, "a" * 60], ids=ascii)
def test_a_name_is_whole_only_if_it_is_short_as_it_is_written(name: str) -> None:
    whole = repr(name)
    assert shown(name) == (whole if len(whole) <= 62 else f"{whole[:48]}...{whole[-6:]}")


@given(st.text(max_size=3000), st.lists(st.text(max_size=3000), max_size=30))
def test_a_message_stays_short_whatever_the_names_are(name: str, names: list[str]) -> None:
    assert len(instead(name, names)) < 500
    assert len(meant(name, names) or "") < 100
