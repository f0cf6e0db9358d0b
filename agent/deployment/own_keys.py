"""The keys that a process makes for itself if it is both monitor and executor and none are configured."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from agent.commands.keys import generate
from agent.config.model import Config
from agent.deployment.outside import read_members
from agent.errors import KeyFileError
from agent.heartbeats.heartbeat import Member, alive
from agent.logs.setup import log_event
from streams.condition import shortened

_logger = logging.getLogger(__name__)


async def ensure_keys(config: Config, roles: Collection[str]) -> None:
    """Make a pair of keys if the process needs its own. Separate processes need keys that are given to both.

    Raises KeyFileError if other processes of the deployment are alive: they would refuse commands signed with it.
    """
    keys = config.keys
    alone = {"monitor", "executor"} <= set(roles) and keys.signing_key is None and keys.public_keys is None
    if not alone or config.signing_key.exists():
        return
    refuse_second_pair(config, await read_members(config) or [])
    private, _ = generate(config.state_dir)
    log_event(_logger, "keys.generated", path=str(private))


def refuse_second_pair(config: Config, members: Sequence[Member]) -> None:
    """Raises KeyFileError if a living process signs or checks commands: a second pair of keys would not fit."""
    others = [member for member in alive(members) if member.beat.signs is not None or member.beat.accepts]
    if others:
        names = shortened([member.beat.name for member in others])
        alive_there = f"{names} {'is' if len(others) == 1 else 'are'} alive under the prefix {config.kafka.prefix!r}"
        raise KeyFileError(
            f"there are no keys in {config.state_dir}, and none are made: {alive_there} with others, and would refuse "
            "what is signed with new ones. Replicas need the same keys: copy them from there, or name one pair for all "
            "under `keys` (`flipback keys generate`). Other flags need another `kafka.prefix`"
        )
