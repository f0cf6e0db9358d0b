"""What an executor is given: what commands may do, and how fast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.backends.contract import FlagBackend
from agent.commands.keys import PublicKey
from agent.executor.limits import FlipRate
from agent.state.allowlist import ManagedFlag


@dataclass(frozen=True, slots=True)
class Permissions:
    """What commands may do: `flags` is the allow-list, whose `backend` names one of `backends`.

    `keys` are the public keys that are accepted, by id.
    """

    flags: Sequence[ManagedFlag]
    backends: Mapping[str, FlagBackend]
    keys: Mapping[str, PublicKey]


@dataclass(frozen=True, slots=True)
class FlipPace:
    """How many flags may be flipped (`rate`), how far apart flips of one flag are, and how long a flip may take.

    `rate` and `cooldown_s` do not hold for what a person orders. A command has its outcome, known or not, within
    `budget_s`.
    """

    rate: FlipRate
    cooldown_s: float
    budget_s: float = 5.0
