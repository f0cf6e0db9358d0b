"""The time that one flip may take, and calls that are repeated within it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_before_delay, wait_random_exponential

from agent.errors import Throttled, Timeout, Transient

T = TypeVar("T")

_jitter = wait_random_exponential(multiplier=0.05, max=0.5)


@dataclass(frozen=True, slots=True)
class Budget:
    """The time a flip may take: an absolute end, and the longest single call, in seconds of `time.monotonic()`."""

    end: float
    call_s: float

    @classmethod
    def of(cls, seconds: float) -> Budget:
        """Divide `seconds`: a call gets a fifth, enough for a read, a write, a read-back and a second attempt.

        The last fiftieth is for the ledger: the outcome of the flip is recorded within the budget too.
        """
        return cls(time.monotonic() + seconds * 49 / 50, seconds / 5)

    @property
    def deadline(self) -> float:
        """When a call that begins now must end."""
        return min(self.end, time.monotonic() + self.call_s)

    async def patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call, and repeat after an error that may pass while there is time; raises what the last call raised."""
        retrying = AsyncRetrying(
            stop=stop_before_delay(self.end - time.monotonic()),
            wait=_wait,
            retry=retry_if_exception_type((Transient, Timeout, Throttled)),
            sleep=asyncio.sleep,
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                return await call()
        raise AssertionError("the last attempt returns or raises")


def _wait(call: RetryCallState) -> float:
    """Seconds until the next attempt: as the backend asks, else random, so that replicas do not retry in step."""
    error = call.outcome.exception() if call.outcome is not None else None
    if isinstance(error, Throttled) and error.retry_after is not None:
        return error.retry_after
    return _jitter(call)
