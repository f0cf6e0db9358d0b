"""Which variant a Remote Config parameter gives, and how it is changed to be safe or to give a percentage."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent.backends.remote_config.parameter import ParameterDefinition, all_to, doubt, parameter_name, percent_to, state
from agent.errors import Invalid, Unsupported

TENTH = {"name": "tenth", "expression": "percent('salt') <= 10", "tagColor": "BLUE"}
IOS = {"name": "ios", "expression": "device.os == 'ios'"}


def definition(value: dict[str, Any], *conditions: dict[str, Any]) -> ParameterDefinition:
    return ParameterDefinition(_text(value), tuple(map(_text, conditions)))


def boolean(default: str, **conditional: str) -> dict[str, Any]:
    values = {name: {"value": value} for name, value in conditional.items()}
    return {"defaultValue": {"value": default}, "conditionalValues": values, "valueType": "BOOLEAN"}


def share(found: ParameterDefinition, percent: float, *known: dict[str, Any]) -> ParameterDefinition:
    held = {condition["name"]: _text(condition) for condition in known}
    return percent_to(found, "p", held.get, "on", "off", percent)


@pytest.mark.parametrize(
    ("flag", "name"),
    [("new-checkout", "new_checkout"), ("a.b c/ä", "a_b_c__"), ("2fa", "_fa"), ("_x9", "_x9")],
)
def test_a_flags_parameter_has_its_key_with_what_no_name_may_have_replaced(flag: str, name: str) -> None:
    assert parameter_name(flag) == name


@pytest.mark.parametrize(
    ("parameter", "variant"),
    [
        (boolean("true"), "on"),
        (boolean("FALSE"), "off"),
        (boolean("false", ios="false"), "off"),
        (boolean("false", ios="true"), None),
        ({"defaultValue": {"value": "blue"}}, "blue"),
        ({"defaultValue": {"value": "true"}, "valueType": "STRING"}, "true"),
        ({"defaultValue": {"value": "3"}, "valueType": "NUMBER"}, "3"),
        ({"defaultValue": {"useInAppDefault": True}, "valueType": "BOOLEAN"}, None),
        ({"conditionalValues": {"ios": {"value": "true"}}, "valueType": "BOOLEAN"}, None),
        ({"defaultValue": {"personalizationValue": {"personalizationId": "x"}}}, None),
        ({"defaultValue": {"value": "true", "more": 1}, "valueType": "BOOLEAN"}, None),
    ],
)
def test_the_variant_is_what_every_value_says(parameter: dict[str, Any], variant: str | None) -> None:
    assert state(definition(parameter, IOS)).variant == variant


def test_a_flip_makes_every_value_safe_because_conditional_values_win() -> None:
    old = definition(boolean("true", tenth="true", ios="false"), TENTH, IOS)
    new = json.loads(all_to(old, "off").parameter)
    assert new == boolean("false", tenth="false", ios="false")
    assert state(all_to(old, "off")).variant == "off"


def test_a_flip_gives_a_default_to_a_parameter_that_has_none_and_replaces_the_apps_own() -> None:
    old = definition({"conditionalValues": {"ios": {"useInAppDefault": True}}, "valueType": "BOOLEAN"}, IOS)
    new = all_to(old, "off")
    assert json.loads(new.parameter)["defaultValue"] == {"value": "false"}
    assert state(new).variant == "off"


def test_a_parameter_that_is_safe_already_is_not_respelled() -> None:
    old = ParameterDefinition('{"valueType":"BOOLEAN","note":1.10,"defaultValue":{"value":"FALSE"}}')
    assert all_to(old, "off") == old
    assert all_to(old, "on").parameter == '{"valueType":"BOOLEAN","note":1.10,"defaultValue":{"value":"true"}}'


@pytest.mark.parametrize(
    ("kind", "target"),
    [("BOOLEAN", "beta"), ("BOOLEAN", ""), ("BOOLEAN", "True"), ("NUMBER", "1,5"), ("NUMBER", "NaN"), ("JSON", "{")],
)
def test_a_target_that_is_no_value_of_the_type_is_invalid(kind: str, target: str) -> None:
    with pytest.raises(Invalid, match=kind):
        all_to(definition({"defaultValue": {"value": "1"}, "valueType": kind}), target)


@pytest.mark.parametrize(
    ("kind", "target"),
    [("BOOLEAN", "off"), ("BOOLEAN", "false"), ("NUMBER", "-1.5e3"), ("JSON", '{"a":[1]}'), ("STRING", "anything")],
)
def test_a_target_of_the_type_is_taken(kind: str, target: str) -> None:
    new = all_to(definition({"defaultValue": {"value": "true"}, "valueType": kind}), target)
    assert state(new).variant == ("off" if kind == "BOOLEAN" else target)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"personalizationValue": {"personalizationId": "p"}}, "personalizationValue"),
        ({"rolloutValue": {"rolloutId": "rollout_1", "value": "true", "percent": 5}}, "rolloutValue"),
        ({"experimentValue": {"experimentId": "e", "variantValue": []}}, "experimentValue"),
        ({"ofTomorrow": {}}, "ofTomorrow"),
        ({"value": "true", "besides": 1}, "besides"),
        ({"value": 1}, "value"),
        ("true", "str"),
    ],
)
@pytest.mark.parametrize("under", ["default", "condition"])
def test_what_the_console_runs_is_not_ended(value: Any, named: str, under: str) -> None:
    parameter = boolean("true", ios="true")
    if under == "default":
        parameter["defaultValue"] = value
    else:
        parameter["conditionalValues"]["ios"] = value
    found = definition(parameter, IOS)
    with pytest.raises(Unsupported, match="default value" if under == "default" else "condition 'ios'"):
        all_to(found, "off")
    if named != "value":
        with pytest.raises(Unsupported, match=named):
            all_to(found, "off")


def test_a_type_that_is_not_known_is_not_touched() -> None:
    with pytest.raises(Unsupported, match="COLOUR"):
        all_to(definition({"defaultValue": {"value": "x"}, "valueType": "COLOUR"}), "x")


def test_a_share_gives_a_parameter_without_conditions_one_of_its_own() -> None:
    new = share(definition({"defaultValue": {"value": "true"}, "valueType": "BOOLEAN"}), 10)
    assert json.loads(new.parameter) == boolean("false", flipback_p="true")
    assert [json.loads(text) for text in new.conditions] == [{"name": "flipback_p", "expression": "percent('p') <= 10"}]
    assert (state(new).variant, state(new).percent) == (None, 10)


@pytest.mark.parametrize(
    ("expression", "after"),
    [
        ("percent('salt') <= 10", "percent('salt') <= 25.5"),
        ('percent("a.b-c_1") <= 10.25', 'percent("a.b-c_1") <= 25.5'),
        ("percent <= 10", "percent <= 25.5"),
        ("percent('salt') between 0 and 10", "percent('salt') between 0 and 25.5"),
    ],
)
def test_a_share_changes_the_number_and_never_the_seed(expression: str, after: str) -> None:
    condition = {"name": "tenth", "expression": expression, "tagColor": "BLUE"}
    new = share(definition(boolean("false", tenth="true"), condition), 25.5, condition)
    assert json.loads(new.conditions[0]) == {**condition, "expression": after}
    assert json.loads(new.parameter) == boolean("false", tenth="true")
    assert state(new).percent == 25.5


def test_a_share_is_taken_up_again_after_a_flip() -> None:
    old = definition(boolean("false", tenth="true"), TENTH)
    flipped = all_to(old, "off")
    assert (state(flipped).variant, state(flipped).percent) == ("off", None)
    again = share(flipped, 10, TENTH)
    assert json.loads(again.parameter) == json.loads(old.parameter)
    assert again.version == old.version


@pytest.mark.parametrize("percent", [0, 1e-6, 33.333333, 100])
def test_a_share_is_kept_to_a_millionth_of_a_percent(percent: float) -> None:
    assert state(share(definition(boolean("true")), percent)).percent == percent


@pytest.mark.parametrize("percent", [-1, 100.5, float("nan")])
def test_a_share_that_is_none_is_invalid(percent: float) -> None:
    with pytest.raises(Invalid):
        share(definition(boolean("true")), percent)


@pytest.mark.parametrize(
    "expression",
    ["device.os == 'ios'", "percent('s') > 10", "percent('s') between 5 and 10", "percent('s') <= 10 && app.id == 'x'"],
)
def test_a_condition_that_a_share_would_not_respect_is_refused(expression: str) -> None:
    condition = {"name": "c", "expression": expression}
    with pytest.raises(Unsupported, match="'c'"):
        share(definition(boolean("false", c="true"), condition), 20, condition)


def test_several_conditions_are_refused_by_name() -> None:
    with pytest.raises(Unsupported, match="'tenth', 'ios'"):
        share(definition(boolean("false", tenth="true", ios="true"), TENTH, IOS), 20, TENTH, IOS)


def test_names_of_our_own_are_as_short_as_they_must_be() -> None:
    new = percent_to(definition(boolean("true")), "p" * 256, lambda _: None, "on", "off", 5)
    condition = json.loads(new.conditions[0])
    assert len(condition["name"]) <= 100
    assert condition["name"] in json.loads(new.parameter)["conditionalValues"]
    assert len(condition["expression"].split("'")[1]) <= 32


def test_the_version_is_of_the_content_and_not_of_its_spelling() -> None:
    one = ParameterDefinition('{"defaultValue":{"value":"é"},"valueType":"STRING","n":1.50}')
    other = ParameterDefinition('{"n":1.5,"valueType":"STRING","defaultValue":{"value":"\\u00e9"}}')
    assert one.version == other.version
    assert one.version != ParameterDefinition('{"n":1.5,"valueType":"STRING","defaultValue":{"value":"e"}}').version
    assert ParameterDefinition.of(one.raw) == one


def test_the_version_covers_the_conditions_that_the_parameter_names() -> None:
    value = boolean("false", tenth="true")
    wider = {**TENTH, "expression": "percent('salt') <= 20"}
    assert definition(value, TENTH).version != definition(value, wider).version


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


@pytest.mark.parametrize(
    ("values", "target", "doubted"),
    [
        (["true"], "false", False),
        (["True"], "False", False),
        (["on"], "off", False),
        (["1"], "0", False),
        (["true", "false"], "off", True),
        (["true"], "flase", True),
        (["true"], "False", True),
        (["blue", "red"], "red", False),
        (["blue", "red"], "green", True),
    ],
)
def test_a_text_that_a_string_parameter_has_nowhere_is_a_doubt(values: list[str], target: str, doubted: bool) -> None:
    conditional = {f"c{number}": {"value": text} for number, text in enumerate(values[1:])}
    parameter = {"defaultValue": {"value": values[0]}, "conditionalValues": conditional, "valueType": "STRING"}
    found = doubt(ParameterDefinition(json.dumps(parameter)), target)
    assert (found is not None) == doubted
    if found is not None:
        assert repr(target) in found
        assert repr(values[0]) in found
    assert doubt(ParameterDefinition(json.dumps({**parameter, "valueType": "JSON"})), target) is None
