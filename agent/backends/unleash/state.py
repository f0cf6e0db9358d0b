"""What a flag's environment in Unleash means: which variant everyone gets, and which share a gradual rollout gives.

Unleash evaluates activation strategies: a flag is on for a subject where its environment is enabled and any strategy
says so. https://docs.getunleash.io/reference/activation-strategies
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
    """The part of a feature that one environment's evaluation rests on; strategies in Unleash's own words."""

    enabled: bool
    strategies: list[Strategy]
    dependencies: list[dict[str, Any]] = []

    @property
    def version(self) -> str:
        """A fingerprint, the same for the same definition; Unleash has no version of its own."""
        return hashlib.sha256(_encoder.encode(self)).hexdigest()[:16]

    @property
    def active(self) -> list[Strategy]:
        """The strategies that are evaluated."""
        return [strategy for strategy in self.strategies if not strategy.get("disabled")]

    @property
    def rollout(self) -> Strategy | None:
        """The one strategy that decides, where it is a gradual rollout to everyone alike."""
        if len(self.active) == 1 and self.active[0].get("name") == ROLLOUT and _is_plain(self.active[0]):
            return self.active[0]
        return None

    @property
    def share(self) -> float | None:
        """The percentage that strategies give `on`, were the environment enabled; None where subjects differ by more.

        The strategy `default` and a gradual rollout at 100 are the same.
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
        """A rollout at 100 is everyone's `on` and no percentage: it is what Unleash itself gives a flag at first."""
        share = self.share if self.enabled else None
        variant = None if self.enabled else OFF
        if share == 100:
            variant, share = ON, None
        return FlagState(variant=variant, percent=share, version=self.version, raw=_encoder.encode(self).decode())

    def with_enabled(self, enabled: bool) -> FeatureDefinition:
        return msgspec.structs.replace(self, enabled=enabled)

    def given(self, target: str) -> FeatureDefinition:
        """The definition that gives `target` to everyone by the environment's switch alone.

        Raises Unsupported where `on` would take other strategies: they are somebody's work, which is not replaced.
        """
        if target == ON and self.share != 100:
            raise Unsupported(
                "enabled, the flag would not be on for everyone: its strategies are not one `default`, or one gradual "
                "rollout at 100 % without constraints, segments and variants; change them in Unleash"
            )
        return self.with_enabled(target == ON)


def by_id(strategies: Iterable[Strategy]) -> dict[str, Strategy]:
    """Strategies by their ids. Raises Invalid where one has none, so that it could not be changed or put back."""
    found = {}
    for strategy in strategies:
        name = strategy.get("id")
        if not isinstance(name, str) or not name:
            raise Invalid("Unleash gives a strategy without an id, which could not be put back")
        found[name] = strategy
    return found


def parameters(strategy: Strategy) -> dict[str, Any]:
    """The parameters of a strategy, empty where they are of another kind."""
    found = strategy.get("parameters")
    return found if isinstance(found, dict) else {}


def decode(raw: str) -> FeatureDefinition:
    """The definition in a snapshot."""
    return _decoder.decode(raw)


def _is_plain(strategy: Strategy) -> bool:
    return not (strategy.get("constraints") or strategy.get("segments") or strategy.get("variants"))


_encoder = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder(FeatureDefinition)
