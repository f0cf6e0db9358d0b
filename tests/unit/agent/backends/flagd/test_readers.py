"""Why readers refuse a whole flagd file, compared with a real reader: openfeature-provider-flagd."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from openfeature.contrib.provider.flagd.resolvers.process.flags import FlagStore

from agent.backends.flagd.text import FlagdDocument

odd = st.sampled_from([None, "", 0, 1, True, [], ["a"], {}, {"a": None}, {"": 1}, {"a": [1]}, {"a": "b"}, "a", "gone"])
sound = st.fixed_dictionaries(
    {"state": st.sampled_from(["ENABLED", "DISABLED"]), "variants": st.just({"a": 1, "b": []})}
)
flags = st.builds(
    lambda whole, parts: {**whole, **parts},
    sound,
    st.dictionaries(
        st.sampled_from(["state", "variants", "defaultVariant", "targeting", "metadata", "source", "x", "key"]),
        odd,
        max_size=2,
    ),
)
files = st.fixed_dictionaries(
    {"flags": st.dictionaries(st.text(max_size=3), flags | odd, max_size=3)},
    optional={"metadata": odd, "$evaluators": odd, "$schema": odd},
)


def refuses(file: dict[str, Any]) -> bool:
    try:
        FlagStore().update(copy.deepcopy(file))
    except Exception:
        return True
    return False


@example({"flags": {"b": {}}})
@example({"flags": {"b": {"state": "enabled", "variants": {"a": 1}}}})
@example({"flags": {"b": {"state": "ENABLED", "variants": {"a": 1}, "description": "x"}}})
@given(files)
def test_a_file_that_a_reader_refuses_is_known_to_be_refused(file: dict[str, Any]) -> None:
    document = FlagdDocument(json.dumps(file).encode())
    if refuses(file):
        assert document.refused() or document.doubts()


@given(st.dictionaries(st.text(max_size=3), sound, max_size=3))
def test_nothing_is_said_against_a_sound_file(flags: dict[str, Any]) -> None:
    document = FlagdDocument(json.dumps({"flags": flags}).encode())
    assert not refuses({"flags": flags})
    assert document.refused() == document.doubts() == []


def test_a_default_that_names_no_variant_is_refused_by_flagd_though_not_by_this_reader() -> None:
    file = {"flags": {"b": {"state": "ENABLED", "variants": {"a": 1}, "defaultVariant": "gone"}}}
    assert not refuses(file)
    (why,) = FlagdDocument(json.dumps(file).encode()).refused()
    assert "'gone' is none of its variants ('a')" in why
