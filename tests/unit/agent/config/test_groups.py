"""A flag is found by its name, with the flags that are made safe together with it."""

from __future__ import annotations

import pytest

from agent.config.flags import Flag, Trigger, When
from agent.config.groups import NotManaged, SeveralEnvironments, group_of

TRIGGER = Trigger(name="errors", when=When("error_rate > 2% for 2m"))


def flag(name: str, environment: str = "production", *together: str) -> Flag:
    return Flag(
        flag=name,
        service="shop",
        environment=environment,
        backend="files",
        safe="off",
        together=list(together),
        triggers=[TRIGGER],
    )


FLAGS = [flag("cart", "production", "pay"), flag("pay"), flag("pay", "staging")]


def names(found: list[Flag]) -> list[tuple[str, str]]:
    return [(one.environment, one.flag) for one in found]


def test_the_named_flag_comes_before_its_companions() -> None:
    assert names(group_of(FLAGS, "cart")) == [("production", "cart"), ("production", "pay")]


def test_a_flag_of_several_environments_needs_the_name_of_one() -> None:
    with pytest.raises(SeveralEnvironments, match="'pay' is managed in production, staging; name one"):
        group_of(FLAGS, "pay")
    assert names(group_of(FLAGS, "pay", "staging")) == [("staging", "pay")]


@pytest.mark.parametrize(("name", "environment"), [("absent", None), ("cart", "staging")])
def test_a_flag_that_is_not_managed_is_refused_with_those_that_are(name: str, environment: str | None) -> None:
    with pytest.raises(NotManaged, match="managed are production/cart, production/pay, staging/pay"):
        group_of(FLAGS, name, environment)
