"""What subjects get from a flag's environment in Unleash: one variant, or the share of a gradual rollout.

Unleash evaluates activation strategies: a flag is on for a subject if its environment is enabled and any strategy is
true for the subject. https://docs.getunleash.io/reference/activation-strategies
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from agent.backends.contract import FlagState
from agent.errors import Invalid, Unsupported

ON, OFF = "on", "off"
ROLLOUT = "flexibleRollout"

Strategy = dict[str, Any]


class FeatureDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a feature that determines its evaluation in one environment; strategies in Unleash's own format."""

    enabled: bool
    strategies: list[Strategy]
    dependencies: list[dict[str, Any]] = []

    @property
    def version(self) -> str:
        """Return a hash of the definition; Unleash has no version of its own."""
        return hashlib.sha256(_encoder.encode(self)).hexdigest()[:16]

    @property
    def active(self) -> list[Strategy]:
        """Return the strategies that are evaluated."""
        return [strategy for strategy in self.strategies if not strategy.get("disabled")]

    @property
    def rollout(self) -> Strategy | None:
        """Return the only active strategy, if it is a gradual rollout that treats all subjects alike."""
        if len(self.active) == 1 and self.active[0].get("name") == ROLLOUT and _is_plain(self.active[0]):
            return self.active[0]
        return None

    @property
    def share(self) -> float | None:
        """Return the percentage of subjects that get `on` if the environment is enabled.

        None if more than a percentage decides. The strategy `default` is the same as a gradual rollout at 100.
        """
        if self.dependencies or len(self.active) != 1 or not _is_plain(self.active[0]):
            return None
        (strategy,) = self.active
        if strategy.get("name") == "default":
            return 100.0
        if strategy.get("name") != ROLLOUT:
            return None
        try:
            share = float(parameters(strategy).get("rollout", ""))
        except (TypeError, ValueError, OverflowError):
            return None
        return share if 0 <= share <= 100 else None

    def state(self) -> FlagState:
        """Return what subjects get.

        A rollout at 100 is the variant `on`, not a percentage: Unleash gives every new flag such a rollout.
        """
        share = self.share if self.enabled else None
        variant = None if self.enabled else OFF
        if share == 100:
            variant, share = ON, None
        return FlagState(variant=variant, percent=share, version=self.version, raw=_encoder.encode(self).decode())

    def with_enabled(self, enabled: bool) -> FeatureDefinition:
        return msgspec.structs.replace(self, enabled=enabled)

    def switched_to(self, target: str) -> FeatureDefinition:
        """Return the definition that gives `target` to everyone, changing only the environment's switch.

        Raises Unsupported if `on` would need other strategies: flipback does not replace those that somebody made.
        """
        if target == ON and self.share != 100:
            raise Unsupported(
                "enabled, the flag would not be on for everyone: its strategies are not one `default`, or one gradual "
                "rollout at 100 % without constraints, segments and variants; change them in Unleash"
            )
        return self.with_enabled(target == ON)


def by_id(strategies: Iterable[Strategy]) -> dict[str, Strategy]:
    """Return strategies by their ids. Raises Invalid if one has none: it could not be changed or restored."""
    found = {}
    for strategy in strategies:
        name = strategy.get("id")
        if not isinstance(name, str) or not name:
            raise Invalid("Unleash gives a strategy without an id, which could not be put back")
        found[name] = strategy
    return found


def parameters(strategy: Strategy) -> dict[str, Any]:
    """Return the parameters of a strategy, empty if they are no object."""
    found = strategy.get("parameters")
    return found if isinstance(found, dict) else {}


def decode(raw: str) -> FeatureDefinition:
    """Return the definition in a snapshot."""
    return _decoder.decode(raw)


def _is_plain(strategy: Strategy) -> bool:
    return not (strategy.get("constraints") or strategy.get("segments") or strategy.get("variants"))


_encoder = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder(FeatureDefinition)
