from __future__ import annotations

import json
import re
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.backends.flag_definition import problem
from agent.backends.flagd.text import FlagdDocument, all_to, percent_to, state, version
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
    document = FlagdDocument(content)
    definition = all_to(document.definition(flag), target)
    document.check(flag, definition)
    return document.replaced(flag, definition).content


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


# One draw for all characters of a text: a file has dozens of these.
blank = st.sampled_from(["".join(text) for length in range(4) for text in product(" \t\n\r", repeat=length)])
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
    """Write a value as JSON, with random white space and escapes."""
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
    """A text that `spelled` writes unchanged."""

    __slots__ = ()


STATE, DEFAULT, TARGETING = "\x01", "\x02", "\x03"


@st.composite
def files(draw: st.DrawFn) -> tuple[str, str, str]:
    """Draw the name of a flag and a file's text before and after, which differ only in the flag's three members."""
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
    definition = FlagdDocument(before.encode()).definition(name)
    flipped = FlagdDocument(killed(before.encode(), name, "off"))
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
    assert state(FlagdDocument(after).definition(name)).variant == "off"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"flags": {}, "flags": {}}', "line 1"),
        (b'{"flags": {"a": {"x": NaN}}}', "NaN"),
        (b'{"flags": {}} // note', "as JSON"),
        (b'{\n  // note\n  "flags": {}}', "comments"),
        (b"\xef\xbb\xbf{}", "byte order mark of UTF-8"),
        ('{"flags": {}}'.encode("utf-16"), "byte order mark of UTF-16"),
        (b"\xff", "byte 0 is no UTF-8"),
        (b"", "empty"),
        (b" \n", "empty"),
        (b"flags:\n  a:\n    state: ENABLED\n", "YAML"),
        (b"---\n# flags\nflags: {}\n", "YAML"),
        (b"[]", "no object"),
        (b"5", "no object"),
        (b'{"flags": [{"key": "a"}]}', "array"),
        (b'{"apiVersion": "core.openfeature.dev/v1beta1", "kind": "FeatureFlag", "spec": {}}', "FeatureFlag resource"),
        (b"{}", "no object"),
        (b'{"flags": {"a": {}', "as JSON.*line 1"),
        (b'{"flags": {"a" {}}}', "as JSON.*':'"),
        (b'{"flags": {"a": {},}}', "as JSON"),
        (b'{"flags": {"a": {}} "b": 1}', "as JSON.*','"),
        (b'{"flags": ' + b"[" * 200_000, "deeply"),
        (b'{"flags": {"a": ' + b"[" * 200_000, "deeply"),
    ],
)
def test_a_file_that_is_no_flagd_file_in_json_is_refused_by_what_it_is(content: bytes, words: str) -> None:
    with pytest.raises(Invalid, match=words) as raised:
        FlagdDocument(content)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"flags": {\n"f": {"state": "ENABLED",\n"state": "DISABLED"}}}', "'f'.*'state'.*line 3"),
        ('{"flags": {\n"f": {"variants": {"on": true, "off": {"x": 1,\n "\\u0078": 2}}}}}', "'f'.*'x'.*line 3"),
        ('{"flags": {\n"f": {},\n"f": {}}}', "'f' stands twice, in lines 2 and 3"),
    ],
)
def test_what_stands_twice_in_a_flag_stops_its_own_flip(content: str, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        FlagdDocument(content.encode()).definition("f")


@pytest.mark.parametrize(
    ("beside", "words"),
    [
        (
            '"b": {"state": "ENABLED", "variants": {"on": 1},\n"metadata": {"team": "a", "team": "b"}}',
            "'b'.*'team'.*line 3",
        ),
        ('"b": [{"x": 1, "x": 2}]', "'b'.*'x'.*line 2"),
        ('"b": {},\n"b": {}', "'b' stands twice, in lines 2 and 3"),
    ],
)
def test_what_stands_twice_elsewhere_is_a_doubt_and_stops_no_flip(beside: str, words: str) -> None:
    content = f'{{"flags": {{\n{beside},\n"f": {{"state": "ENABLED", {VARIANTS}}}}}}}'
    assert (
        killed(content.encode(), "f", "off") == content.replace("false}}", 'false}, "defaultVariant": "off"}').encode()
    )
    (doubt, *_) = FlagdDocument(content.encode()).doubts()
    assert re.search(words, doubt)


def test_a_doubt_beside_the_flags_names_its_line() -> None:
    content = '{"flags": {},\n"metadata": {"team": "a",\n"team": "b"}}'
    assert FlagdDocument(content.encode()).doubts() == [
        "the name 'team' stands twice, again in line 3; readers differ on which one counts; delete one of them"
    ]


VARIANTS = '"variants": {"on": true, "off": false}'


@pytest.mark.parametrize(
    ("definition", "target"),
    [
        (f'{{"state": "ENABLED", {VARIANTS}}}', "absent"),
        ('{"state": "ENABLED", "variants": ["off"]}', "off"),
        ('{"state": "ENABLED", "variants": {}}', "off"),
        ('{"state": "ENABLED"}', "off"),
        ("{}", "off"),
        ("5", "off"),
    ],
)
def test_a_kill_to_a_variant_that_the_flag_does_not_have_is_refused(definition: str, target: str) -> None:
    with pytest.raises(Invalid):
        killed(f'{{"flags": {{"f": {definition}}}}}'.encode(), "f", target)


@pytest.mark.parametrize(
    "variants",
    ['{"on": [1], "off": []}', '{"on": true, "off": null}', '{"on": 1, "off": "no", "x": {}}', '{"off": {"0": 1}}'],
)
def test_variants_of_any_kind_can_be_given_to_all(variants: str) -> None:
    after = killed(f'{{"flags": {{"f": {{"state": "ENABLED", "variants": {variants}}}}}}}'.encode(), "f", "off")
    assert state(FlagdDocument(after).definition("f")).variant == "off"


@pytest.mark.parametrize(
    ("definition", "variant", "percent"),
    [
        (f'{{"state": "ENABLED", {VARIANTS}, "defaultVariant": "on"}}', "on", None),
        (f'{{"state": "ENABLED", {VARIANTS}, "defaultVariant": "on", "targeting": {{}}}}', "on", None),
        (f'{{"state": "ENABLED", {VARIANTS}, "defaultVariant": "on", "targeting": null}}', "on", None),
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
    one, other = FlagdDocument(FILE.encode()), FlagdDocument(FILE.replace('"one": 1.00', '"one": 2').encode())
    assert version(one.definition(FLAG)) == version(other.definition(FLAG))
    assert version(one.definition("other")) != version(other.definition("other"))


def test_an_unknown_flag_is_named_with_those_that_are_there() -> None:
    with pytest.raises(NotFound, match="other"):
        FlagdDocument(FILE.encode()).definition("absent")


def test_of_many_flags_the_nearest_are_named_and_the_others_counted() -> None:
    names = [f"flag-{number:05}" for number in range(20_000)] + ["new-checkout"]
    content = json.dumps({"flags": {name: {} for name in names}}).encode()
    with pytest.raises(NotFound, match=r"'new-checkout'.*and 20000 more") as raised:
        FlagdDocument(content).definition("new-chekout")
    assert len(str(raised.value)) < 300


def test_a_long_value_is_cut_in_a_message() -> None:
    definition = json.dumps({"variants": {"v" * 100_000: 1, **{f"v{number}": 1 for number in range(1000)}}})
    with pytest.raises(Invalid) as raised:
        killed(f'{{"flags": {{"f": {definition}}}}}'.encode(), "f", "off")
    assert len(str(raised.value)) < 500


def test_a_name_is_written_as_people_write_it() -> None:
    after = killed('{"flags": {"f": {"state": "ENABLED", "variants": {"an ✓": 1}}}}'.encode(), "f", "an ✓")
    assert '"defaultVariant": "an ✓"'.encode() in after


@pytest.mark.parametrize("absent", ['"targeting": null, ', ""])
def test_a_flag_that_is_safe_already_is_not_written_anew(absent: str) -> None:
    definition = f'{{"state": "ENABLED", {absent}{VARIANTS}, "defaultVariant": "off"}}'
    assert all_to(definition, "off") == definition
    assert all_to(definition, "on") != definition


def test_a_name_that_no_text_can_hold_is_no_variant_that_can_be_told() -> None:
    definition = '{"state": "ENABLED", "variants": {"\\ud800": 1}, "defaultVariant": "\\ud800"}'
    assert state(definition).variant is None


@given(files(), st.data())
def test_a_document_that_was_edited_is_the_one_that_its_text_says(
    case: tuple[str, str, str], data: st.DataObject
) -> None:
    name, before, _ = case
    document = FlagdDocument(before.encode())
    edited = document.replaced(name, json.dumps(data.draw(values)))
    again = FlagdDocument(edited.content)
    assert edited.values == again.values
    assert edited._spans == again._spans
    assert edited.doubts() == again.doubts()
    assert edited.refused() == again.refused()
