"""Calls to Firestore from the event loop: blocking work in threads, with an authorization and a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from agent.backends.firestore.connection import Metadata
from agent.backends.google import GoogleToken
from agent.errors import Auth, Timeout

_THREADS = 8
"""Calls at one time. Each ends by its own deadline, so no thread is occupied for longer."""

T = TypeVar("T")


class AuthorizedCalls:
    """Runs blocking calls to the server that errors call `name`. `token` is None for an emulator."""

    def __init__(self, name: str, token: GoogleToken | None) -> None:
        self._name = name
        self._token = token
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="firestore")

    async def run(self, work: Callable[[Metadata], T], deadline: float) -> T:
        """Run `work` with the authorization of a call. `deadline` is in seconds of `time.monotonic()`.

        Raises Timeout if it does not end in time, and Auth if the server accepts neither the token nor a renewed one.
        """
        left = deadline - time.monotonic()
        if left <= 0:
            raise Timeout(f"{self._name}: the time was up before anything was sent")
        try:
            async with asyncio.timeout(left):
                try:
                    return await self._call(work, await self.authorization())
                except Auth:
                    if self._token is None:
                        raise
                # The token may have been revoked before its expiry: try once more with another one.
                return await self._call(work, await self.authorization(renew=True))
        except TimeoutError:
            raise Timeout(f"{self._name}: no answer in time") from None

    async def authorization(self, renew: bool = False) -> Metadata:
        """Return the authorization of a call. A token that expires soon is renewed in the background."""
        if self._token is None:
            return ()
        headers = await self._token.headers(time.monotonic(), renew)
        return tuple((name.lower(), content) for name, content in headers.items())

    async def close(self) -> None:
        if self._token is not None:
            await self._token.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _call(self, work: Callable[[Metadata], T], metadata: Metadata) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, metadata)
