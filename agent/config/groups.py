"""The group of a managed flag: the flags that a rollback makes safe together."""

from __future__ import annotations

from collections.abc import Sequence

from agent.config.flags import Flag
from agent.errors import FlipbackError


class NotManaged(FlipbackError):
    """The configuration has no such flag."""


class SeveralEnvironments(FlipbackError):
    """The flag is managed in several environments, and none was named."""


def group_of(flags: Sequence[Flag], name: str, environment: str | None = None) -> list[Flag]:
    """Return the flag with this name, then its companions.

    `environment` may be None if the flag is managed in one only. Raises NotManaged or SeveralEnvironments.
    """
    managed = {(flag.environment, flag.flag): flag for flag in flags}
    found = [flag for (where, key), flag in managed.items() if key == name and environment in (None, where)]
    if not found:
        known = ", ".join(sorted(f"{where}/{key}" for where, key in managed))
        raise NotManaged(f"{name!r} is not managed; managed are {known}")
    if len(found) > 1:
        places = ", ".join(flag.environment for flag in found)
        raise SeveralEnvironments(f"{name!r} is managed in {places}; name one")
    return [found[0], *(managed[found[0].environment, companion] for companion in found[0].together)]
