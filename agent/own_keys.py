"""The keys that a process makes for itself, where it is monitor and executor in one and was given none."""

from __future__ import annotations

import logging
from collections.abc import Collection

from agent.config import Config
from agent.keys import generate
from agent.logs import log_event

_logger = logging.getLogger(__name__)


def makes_keys(config: Config, roles: Collection[str]) -> bool:
    """Would a process of these roles make its keys? Parted roles need keys that both were given."""
    keys = config.keys
    alone = {"monitor", "executor"} <= set(roles) and keys.signing_key is None and keys.public_keys is None
    return alone and not config.signing_key.exists()


def make_keys(config: Config) -> None:
    private, _ = generate(config.state_dir)
    log_event(_logger, "keys.generated", path=str(private))
