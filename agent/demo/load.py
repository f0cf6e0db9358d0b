"""Sends requests to the shop over HTTP at a steady rate, as its users would.

It detects the flip as a user sees it: a user whom the new path served before gets an answer of the old one.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence

import aiohttp

from agent.demo.scene import NEW, OLD

USERS = 499
"""An odd number, so that each user reaches all instances in turn."""

_MOST_IN_FLIGHT = 100
_TIMEOUT_S = 5.0


class Load:
    """Sends `rate` requests/s to `urls` in turn.

    `on_switch(user, at)` is called once, when a user of the new path first gets an answer of the old one; `at` is the
    Unix time of that answer.
    """

    def __init__(self, urls: Sequence[str], rate: float, on_switch: Callable[[str, float], None]) -> None:
        self.sent = 0
        self.failed = 0
        """How many requests got a status of 500 or above, or no answer."""
        self._urls = urls
        self._rate = rate
        self._on_switch = on_switch
        self._on_new: set[str] = set()
        self._switched = False
        self._in_flight: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Send until cancelled. A slow answer delays no other request; above 100 in flight, requests are skipped."""
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
            began = time.monotonic()
            try:
                for number in itertools.count():
                    await asyncio.sleep(max(0.0, began + number / self._rate - time.monotonic()))
                    if len(self._in_flight) >= _MOST_IN_FLIGHT:
                        continue
                    url = self._urls[number % len(self._urls)]
                    task = asyncio.create_task(self._request(session, url, f"user-{number % USERS}"))
                    self._in_flight.add(task)
                    task.add_done_callback(self._in_flight.discard)
            finally:
                for task in self._in_flight:
                    task.cancel()
                await asyncio.gather(*self._in_flight, return_exceptions=True)

    async def _request(self, session: aiohttp.ClientSession, url: str, user: str) -> None:
        self.sent += 1
        try:
            async with session.get(f"{url}/recommendations", params={"user": user}) as answer:
                await answer.read()
        except (aiohttp.ClientError, TimeoutError):
            self.failed += 1
            return
        self.failed += answer.status >= 500
        self._note(user, answer.headers["x-path"])

    def _note(self, user: str, path: str) -> None:
        if path == NEW:
            self._on_new.add(user)
        elif path == OLD and user in self._on_new and not self._switched:
            self._switched = True
            self._on_switch(user, time.time())
