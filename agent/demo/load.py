"""The load: requests to the shop over HTTP at a steady rate, as its users would send them.

It notes what only a user can know: who was served by the new path before and is now served by the old one.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence

import aiohttp

from agent.demo.scene import NEW, OLD

USERS = 499
"""An odd number, so that users meet all instances in turn."""

_MOST_IN_FLIGHT = 100
_TIMEOUT_S = 5.0


class Load:
    """`rate` requests/s to `urls` in turn. `on_switch(user, at)` is called once, when a user of the new path first
    gets the old one; `at` is the answer's Unix time.
    """

    def __init__(self, urls: Sequence[str], rate: float, on_switch: Callable[[str, float], None]) -> None:
        self.sent = 0
        self.failed = 0
        """Answers of 500 and above, and requests without an answer."""
        self._urls = urls
        self._rate = rate
        self._on_switch = on_switch
        self._on_new: set[str] = set()
        self._switched = False
        self._in_flight: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Send until cancelled; a slow answer delays no other request, but too many under way drop the next."""
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
