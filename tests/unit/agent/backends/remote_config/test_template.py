"""An edit of a flag keeps everything else in the template byte for byte."""

from __future__ import annotations

import json
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.backends.remote_config.parameter import ParameterDefinition, all_to, percent_to, state
from agent.backends.remote_config.template import Template
from agent.errors import Invalid, NotFound, Unsupported

FLAG = {"defaultValue": {"value": "true"}, "valueType": "BOOLEAN"}


def template(value: Any, **layout: Any) -> Template:
    return Template(json.dumps(value, **layout).encode())


def replaced(found: Template, name: str, definition: ParameterDefinition) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(found.replaced({name: definition}, "said"))
    return value


def share(found: Template, name: str, percent: float) -> ParameterDefinition:
    return percent_to(found.definition(name), name, found.condition, "on", "off", percent)


def test_a_template_of_3000_parameters_keeps_every_byte_but_the_flags_and_the_description() -> None:
    unknown = (
        '"ofTomorrow" : { "numbers": [1.10, 1e3, -0.0, 12345678901234567890.123], "text": "\\u00e9\\/\\ud83d\\ude00" }'
    )
    head = '{\n  "conditions" : [ {"name":"c","expression":"true"} ],\n  "parameters": {\n'
    lines = [
        f'    "p{number}": {{"defaultValue": {{"value": "true"}}, "valueType":"BOOLEAN", {unknown}}}'
        for number in range(3000)
    ]
    tail = (
        '\n  },\n  "later": [ 1.50 ],\n  "version": {"versionNumber": "41", "description": "%s", "updateTime":"t"}\n}\n'
    )
    before = head + ",\n".join(lines) + tail % "theirs"
    found = Template(before.encode())
    after = found.replaced({"p1234": all_to(found.definition("p1234"), "off")}, "ours").decode()

    flag = lines[1234].replace("true", "false")
    assert after.replace(" ", "") == before.replace(lines[1234], flag).replace("theirs", "ours").replace(" ", "")
    # Outside the flag's own line not even white space differs.
    was, now = before.replace("theirs", "ours").splitlines(), after.splitlines()
    assert [number for number, (one, other) in enumerate(zip(was, now, strict=True)) if one != other] == [3 + 1234]
    assert unknown.replace(" ", "") in now[3 + 1234]


_leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=8)
)
_unknown = st.recursive(
    _leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=8,
)
_names = st.text(string.ascii_lowercase, min_size=1, max_size=6)
_values = st.one_of(
    st.builds(lambda text: {"value": text}, st.text(max_size=6)),
    st.just({"useInAppDefault": True}),
    st.builds(lambda kind, content: {kind: content}, st.sampled_from(["rolloutValue", "ofTomorrow"]), _unknown),
)
_parameters = st.dictionaries(
    _names.map("o_{}".format),
    st.builds(
        lambda default, more: {"defaultValue": default, **more},
        _values,
        st.dictionaries(_names.map("x_{}".format), _unknown, max_size=2),
    ),
    max_size=4,
)
_layouts = st.fixed_dictionaries({"indent": st.sampled_from([None, 1, "\t"]), "ensure_ascii": st.booleans()})


@st.composite
def _templates(draw: st.DrawFn) -> tuple[dict[str, Any], str]:
    """Draw a template with unknown content everywhere, and the position of the flag `p` in it."""
    groups: dict[str, Any] = {
        name: {"description": draw(st.text(max_size=4)), "parameters": draw(_parameters)}
        for name in draw(st.lists(_names, unique=True, max_size=2))
    }
    value: dict[str, Any] = {"parameters": draw(_parameters), "parameterGroups": groups}
    flag = {**FLAG, **draw(st.dictionaries(_names.map("y_{}".format), _unknown, max_size=2))}
    where = draw(st.sampled_from(["", *groups]))
    (groups[where]["parameters"] if where else value["parameters"])["p"] = flag
    value["conditions"] = [
        {"name": f"c{number}", "expression": "true", "more": draw(_unknown)}
        for number in range(draw(st.integers(0, 2)))
    ]
    value["version"] = {"versionNumber": "7", "description": draw(st.text(max_size=4)), "more": draw(_unknown)}
    extra = draw(st.dictionaries(_names.map("z_{}".format), _unknown, max_size=2))
    return dict(draw(st.permutations(list({**value, **extra}.items())))), where


@given(_templates(), _layouts)
def test_whatever_a_template_holds_survives_a_flip_and_a_share(
    made: tuple[dict[str, Any], str], layout: dict[str, Any]
) -> None:
    value, where = made
    found = template(value, **layout)
    for new in (all_to(found.definition("p"), "off"), share(found, "p", 12.5)):
        after = replaced(found, "p", new)
        place = after["parameterGroups"][where] if where else after
        assert place["parameters"]["p"] == json.loads(new.parameter)
        place["parameters"]["p"] = (value["parameterGroups"][where] if where else value)["parameters"]["p"]
        assert after["version"]["description"] == "said"
        after["version"]["description"] = value["version"]["description"]
        own = [json.loads(text) for text in new.conditions]
        assert after["conditions"] == [*value["conditions"], *own]
        after["conditions"] = value["conditions"]
        assert json.dumps(after) == json.dumps(value), "something was lost, changed or put in another order"


@given(_templates(), _layouts)
def test_a_flag_reads_the_same_in_whatever_layout(made: tuple[dict[str, Any], str], layout: dict[str, Any]) -> None:
    value, _ = made
    assert state(template(value, **layout).definition("p")).version == state(template(value).definition("p")).version


def test_a_share_edits_one_number_in_the_conditions() -> None:
    text = (
        '{"conditions":[{"name":"a","expression":"percent(\'s\') <= 5"} ,  {"name":"b","expression":"true", "x":1.0}],'
        '"parameters":{"p":{"defaultValue":{"value":"false"},"conditionalValues":{"a":{"value":"true"}},'
        '"valueType":"BOOLEAN"}},"version":{"versionNumber":"1"}}'
    )
    found = Template(text.encode())
    after = found.replaced({"p": share(found, "p", 20)}, "said").decode()
    assert after == text.replace("<= 5", "<= 20").replace('"1"}}', '"1","description":"said"}}')


@pytest.mark.parametrize("conditions", [{}, {"conditions": []}])
def test_the_first_condition_of_a_template_is_added(conditions: dict[str, Any]) -> None:
    found = template({"parameters": {"p": FLAG}, **conditions})
    after = replaced(found, "p", share(found, "p", 20))
    assert after["conditions"] == [{"name": "flipback_p", "expression": "percent('p') <= 20"}]
    assert after["version"] == {"description": "said"}


def test_a_condition_that_another_parameter_uses_is_not_changed() -> None:
    shared = {**FLAG, "conditionalValues": {"a": {"value": "false"}}}
    conditions = [{"name": "a", "expression": "percent('s') <= 5"}]
    groups = {"g": {"parameters": {"other": shared}}}
    found = template({"conditions": conditions, "parameters": {"p": shared}, "parameterGroups": groups})
    with pytest.raises(Unsupported, match="other"):
        found.replaced({"p": share(found, "p", 20)}, "said")
    assert replaced(found, "p", all_to(found.definition("p"), "off"))["conditions"] == conditions


def test_an_edit_to_another_parameter_leaves_the_flags_version() -> None:
    one = template({"parameters": {"p": FLAG, "q": FLAG}, "version": {"versionNumber": "1"}})
    other = template({"parameters": {"q": {}, "p": FLAG}, "conditions": [], "version": {"versionNumber": "2"}})
    assert one.definition("p").version == other.definition("p").version
    assert (one.number, other.number) == (1, 2)


def test_several_parameters_are_replaced_at_once() -> None:
    found = template({"parameters": {"p": FLAG, "q": FLAG}, "version": {"versionNumber": "1"}})
    both = {name: all_to(found.definition(name), "off") for name in ("p", "q")}
    after = json.loads(found.replaced(both, "said"))["parameters"]
    assert after == {name: {**FLAG, "defaultValue": {"value": "false"}} for name in ("p", "q")}


def test_a_parameter_that_is_absent_or_there_twice_is_no_flag() -> None:
    found = template({"parameters": {"p": FLAG, "q": 1}, "parameterGroups": {"g": {"parameters": {"p": FLAG}}, "h": 2}})
    with pytest.raises(NotFound, match="absent"):
        found.definition("absent")
    with pytest.raises(Invalid, match="twice"):
        found.definition("p")
    with pytest.raises(Invalid, match="no object"):
        found.definition("q")


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"\xff", b'{"parameters":[]}', b'{"parameters":{},"parameters":{}}', b'{"version":1}', b"{" * 5000],
)
def test_what_is_no_template_is_invalid(content: bytes) -> None:
    with pytest.raises(Invalid, match="template"):
        Template(content)
