from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.backends.flag_definition import problem
from agent.backends.flagd_text import Document, all_to, percent_to, state, version
from agent.errors import Invalid, NotFound, Unsupported

FILE = """{
\t"$schema" : "https://flagd.dev/schema/v0/flags.json",
  "flags": {
    "other": {"state":"ENABLED", "variants": {"big": 1E400 , "one": 1.00}, "defaultVariant":"one"},
    "caf\\u00e9 ☕ new": {
        "variants"      : { "on": true,   "off": false },
        "state"         : "DISABLED",
        "defaultVariant": "on",
        "targeting"     : {"if": [{"==": [{"var": "email"}, "\\ud83d\\ude00}{\\""]}, "on", null]},
        "metadata"      : {"team": "käse", "n": 1e2}
    }
  } ,
  "$evaluators": {}, "metadata": {"version": "7"}
}
\r\n"""
FLAG = "café ☕ new"


def killed(content: bytes, flag: str, target: str) -> bytes:
    document = Document(content)
    return document.replaced(flag, all_to(document.definition(flag), target)).content


def test_a_kill_changes_three_values_and_no_other_byte() -> None:
    expected = (
        FILE.replace('"DISABLED"', '"ENABLED"')
        .replace(': "on",\n', ': "off",\n')
        .replace('{"if": [{"==": [{"var": "email"}, "\\ud83d\\ude00}{\\""]}, "on", null]}', "{}")
    )
    assert killed(FILE.encode(), FLAG, "off") == expected.encode()


def test_members_that_are_right_already_keep_their_spelling() -> None:
    definition = (
        '{"variants":{"on":true,"off":false},"state":"ENABL\\u0045D","defaultVariant":"o\\u0066f","targeting":{ }}'
    )
    assert all_to(definition, "off") == definition


def test_absent_members_are_added_in_the_layout_of_the_others() -> None:
    definition = '{\n  "variants" : {"off": false},\n  "state" : "ENABLED"\n}'
    assert all_to(definition, "off") == (
        '{\n  "variants" : {"off": false},\n  "state" : "ENABLED",\n  "defaultVariant" : "off"\n}'
    )
    assert all_to('{"variants":{"off":false},"state":"ENABLED"}', "off") == (
        '{"variants":{"off":false},"state":"ENABLED","defaultVariant":"off"}'
    )


blank = st.text(" \t\n\r", max_size=3)
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def spelled(draw: st.DrawFn, value: Any) -> str:
    """Some JSON spelling of a value: any white space, escapes or not."""
    if isinstance(value, Raw):
        return value
    if isinstance(value, dict):
        members = [
            f"{draw(blank)}{json.dumps(key, ensure_ascii=draw(st.booleans()))}{draw(blank)}:{draw(blank)}"
            f"{draw(spelled(content))}{draw(blank)}"
            for key, content in value.items()
        ]
        return "{" + (",".join(members) or draw(blank)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(draw(blank) + draw(spelled(item)) for item in value) + "]"
    return json.dumps(value, ensure_ascii=draw(st.booleans()))


class Raw(str):
    """A text that stands for itself."""

    __slots__ = ()


STATE, DEFAULT, TARGETING = "\x01", "\x02", "\x03"


@st.composite
def files(draw: st.DrawFn) -> tuple[str, str, str]:
    """The name of a flag and a file's text before and after: equal but for the values of the flag's three members."""
    name = draw(st.text(max_size=6))
    members = {
        "state": Raw(STATE),
        "defaultVariant": Raw(DEFAULT),
        "targeting": Raw(TARGETING),
        "variants": {"on": True, "off": False},
        **draw(st.dictionaries(st.text(max_size=5).filter(lambda key: key not in TAKEN), values, max_size=3)),
    }
    definition = dict(draw(st.permutations(list(members.items()))))
    others = draw(st.dictionaries(st.text(max_size=6).filter(lambda key: key != name), values, max_size=3))
    flags = dict(draw(st.permutations([*others.items(), (name, definition)])))
    rest = draw(st.dictionaries(st.text(max_size=6).filter(lambda key: key != "flags"), values, max_size=3))
    top = dict(draw(st.permutations([*rest.items(), ("flags", flags)])))
    text = draw(blank) + draw(spelled(top)) + draw(blank)
    targeting = draw(st.dictionaries(st.text(max_size=4), values, min_size=1, max_size=2))
    before = {
        STATE: draw(st.sampled_from(["ENABLED", "DISABLED"])),
        DEFAULT: draw(st.sampled_from(["on", "off"])),
        TARGETING: targeting,
    }
    after = {STATE: "ENABLED", DEFAULT: "off", TARGETING: {}}
    for mark, value in before.items():
        spelling = draw(spelled(value))
        kept = after[mark] == value
        before[mark], after[mark] = spelling, spelling if kept else json.dumps(after[mark])
    return name, fill(text, before), fill(text, after)


TAKEN = {"state", "defaultVariant", "targeting", "variants"}


def fill(text: str, spellings: dict[str, Any]) -> str:
    return "".join(spellings.get(character, character) for character in text)


@given(files())
def test_in_any_file_a_kill_changes_the_three_values_and_no_other_byte(case: tuple[str, str, str]) -> None:
    name, before, after = case
    assert killed(before.encode(), name, "off") == after.encode()


@given(files())
def test_putting_the_definition_back_restores_every_byte(case: tuple[str, str, str]) -> None:
    name, before, _ = case
    definition = Document(before.encode()).definition(name)
    flipped = Document(killed(before.encode(), name, "off"))
    assert flipped.replaced(name, definition).content == before.encode()


@given(files(), st.binary(max_size=3), st.integers(0))
def test_no_damage_crashes_the_edit_or_yields_a_broken_file(
    case: tuple[str, str, str], damage: bytes, position: int
) -> None:
    name, before, _ = case
    content = before.encode()
    at = position % len(content)
    try:
        after = killed(content[:at] + damage + content[at + 1 :], name, "off")
    except (Invalid, NotFound):
        return
    assert state(Document(after).definition(name)).variant == "off"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"flags": {"a": {"state": "ENABLED", "state": "DISABLED"}}}', "twice"),
        (b'{"flags": {"a": {}, "a": {}}}', "twice"),
        (b'{"flags": {}, "flags": {}}', "twice"),
        (b'{"flags": {}, "metadata": {"x": 1, "\\u0078": 2}}', "twice"),
        (b'{"flags": {"a": {"x": NaN}}}', "NaN"),
        (b'{"flags": {}} // note', "as JSON"),
        (b"\xef\xbb\xbf{}", "as JSON"),
        (b"\xff", "utf-8"),
        (b"", "as JSON"),
        (b"[]", "flags"),
        (b'{"flags": []}', "flags"),
        (b"{}", "flags"),
        (b'{"flags": ' + b"[" * 200_000, "deeply"),
    ],
)
def test_a_file_that_readers_may_understand_differently_is_refused(content: bytes, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        Document(content)


VARIANTS = '"variants": {"on": true, "off": false}'


@pytest.mark.parametrize(
    ("definition", "target"),
    [
        (f'{{"state": "ENABLED", {VARIANTS}}}', "absent"),
        ('{"state": "ENABLED", "variants": {"on": true, "off": "no"}}', "off"),
        ('{"state": "ENABLED", "variants": {"on": 1, "off": false}}', "off"),
        ('{"state": "ENABLED", "variants": {"on": [1], "off": [2]}}', "off"),
        ('{"state": "ENABLED", "variants": {}}', "off"),
        ('{"state": "ENABLED"}', "off"),
        ("{}", "off"),
        ("5", "off"),
    ],
)
def test_a_kill_that_would_leave_an_invalid_flag_is_refused(definition: str, target: str) -> None:
    with pytest.raises(Invalid):
        killed(f'{{"flags": {{"f": {definition}}}}}'.encode(), "f", target)


@pytest.mark.parametrize(
    "definition",
    [
        '{"state": "ENABLED", "variants": {"a": 1, "b": 2.5}, "defaultVariant": "a"}',
        '{"state": "DISABLED", "variants": {"a": {}, "b": {"x": 1}}}',
        '{"state": "ENABLED", "variants": {"a": "x"}, "defaultVariant": null, "targeting": {"if": []}}',
    ],
)
def test_what_the_schema_allows_is_no_problem(definition: str) -> None:
    assert problem(json.loads(definition)) is None


@pytest.mark.parametrize(
    "definition",
    [
        '{"state": "on", "variants": {"a": 1}}',
        '{"state": "ENABLED", "variants": {"a": 1}, "defaultVariant": ["a"]}',
        '{"state": "ENABLED", "variants": {"a": 1}, "targeting": null}',
    ],
)
def test_what_the_schema_forbids_is_a_problem(definition: str) -> None:
    assert problem(json.loads(definition)) is not None


def test_a_problem_of_another_flag_is_told_and_does_not_stop_a_kill() -> None:
    content = f'{{"flags": {{"f": {{"state": "ENABLED", {VARIANTS}}}, "bad": {{"state": "on"}}}}}}'.encode()
    assert b'"defaultVariant": "off"' in killed(content, "f", "off")
    assert "'bad'" in Document(content).doubts("f")
    assert Document(content).doubts("bad") == ""


@pytest.mark.parametrize(
    ("definition", "variant", "percent"),
    [
        (f'{{"state": "ENABLED", {VARIANTS}, "defaultVariant": "on"}}', "on", None),
        (f'{{"state": "ENABLED", {VARIANTS}, "defaultVariant": "on", "targeting": {{}}}}', "on", None),
        (f'{{"state": "DISABLED", {VARIANTS}, "defaultVariant": "on"}}', None, None),
        (f'{{"state": "ENABLED", {VARIANTS}, "defaultVariant": null}}', None, None),
        (f'{{"state": "ENABLED", {VARIANTS}}}', None, None),
        (f'{{"state": "ENABLED", {VARIANTS}, "defaultVariant": "off", "targeting": {{"if": []}}}}', None, None),
    ],
)
def test_a_variant_is_stated_only_where_every_subject_gets_it(
    definition: str, variant: str | None, percent: float | None
) -> None:
    assert (state(definition).variant, state(definition).percent) == (variant, percent)


@pytest.mark.parametrize("percent", [0, 0.01, 12.5, 99.99, 100])
def test_a_percentage_is_read_back_as_it_was_set(percent: float) -> None:
    definition = percent_to(f'{{"state": "ENABLED", {VARIANTS}, "defaultVariant": "on"}}', "on", "off", percent)
    assert problem(json.loads(definition)) is None
    assert state(definition).percent == percent
    assert state(percent_to(definition, "on", "off", 50)).percent == 50
    assert state(all_to(definition, "off")).variant == "off"


def test_rules_of_a_persons_own_are_not_replaced_by_a_percentage() -> None:
    definition = (
        f'{{"state": "ENABLED", {VARIANTS}, "defaultVariant": "off", "targeting": {{"if": [true, "on", null]}}}}'
    )
    with pytest.raises(Unsupported):
        percent_to(definition, "on", "off", 10)


def test_a_version_names_the_definition_alone() -> None:
    one, other = Document(FILE.encode()), Document(FILE.replace('"one": 1.00', '"one": 2').encode())
    assert version(one.definition(FLAG)) == version(other.definition(FLAG))
    assert version(one.definition("other")) != version(other.definition("other"))


def test_an_unknown_flag_is_named_with_those_that_are_there() -> None:
    with pytest.raises(NotFound, match="other"):
        Document(FILE.encode()).definition("absent")
