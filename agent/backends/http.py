"""HTTP requests of a flip: one request with an absolute deadline, which ends in an answer or a typed error. No retries.

The client libraries are not used because they retry by themselves: firebase-admin resends a write five times in 7 s and
sleeps through a Retry-After, even after a commit whose answer was lost.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp

from agent.errors import (
    Auth,
    BackendError,
    Conflict,
    Failed,
    Invalid,
    NotFound,
    Permission,
    Throttled,
    Timeout,
    Transient,
    Unsent,
)

Headers = Mapping[str, str]

_LONGEST_WAIT_S = 366 * 86400.0
"""The greatest Retry-After that is returned; a bound, so that no number in an answer overflows."""
_MOST_SHOWN = 300
"""Characters of a server's message that are quoted in an error."""
MOST_BYTES = 16 * 2**20
"""The largest answer, unpacked. The largest that is needed is a whole template of Remote Config: a million characters
of values, which take 6 MB if each is escaped, with 3,000 parameters and 2,000 conditions
(https://firebase.google.com/docs/remote-config/quotas-limits)."""
_MOST_OF_ERROR = 64 * 2**10
"""Bytes that are read of an answer that becomes an error."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A successful answer, or one of the `expected` statuses."""

    status: int
    headers: Headers
    body: bytes


class Http:
    """Requests to one server, which error messages call `name`. `authorize` returns the authorization headers.

    After a 401 the request is sent once more with the headers of `authorize` with `renew=True`: a token may have been
    revoked before its expiry.
    """

    def __init__(self, name: str, authorize: Callable[[float, bool], Awaitable[Headers]] | None = None) -> None:
        self._name = name
        self._authorize = authorize
        self._session: aiohttp.ClientSession | None = None

    async def request(
        self,
        method: str,
        url: str,
        *,
        deadline: float,
        body: bytes | None = None,
        headers: Headers | None = None,
        expected: frozenset[int] = frozenset(),
    ) -> HttpAnswer:
        """Send a request; return the answer if its status is below 300 or in `expected`, else raise `error_of` it.

        `deadline` is in seconds of `time.monotonic()`. Raises Timeout if there is no answer in time and Transient if
        the connection breaks: in both cases a write may have landed. Raises Unsent if no connection is established,
        and Failed if the server reports an error of its own (500, 503). An answer of more than `MOST_BYTES` is Invalid
        for a GET, and Transient for a write, which may have landed.
        """
        for renew in (False, True):
            answer = await self._once(method, url, body, dict(headers or {}), renew, deadline, expected)
            if answer.status != 401 or self._authorize is None:
                break
        if answer.status < 300 or answer.status in expected:
            return answer
        raise error_of(self._name, answer)

    def session(self) -> aiohttp.ClientSession:
        """Return the session, for what is no single request, such as a stream."""
        if self._session is None:
            # No limit on connections: a listener and several flips must never wait for each other. No cookies.
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
            self._session = aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=None)
            )
            # If a connection that was kept open breaks, aiohttp silently sends a GET, PUT or DELETE again: a write that
            # had landed would conflict with itself.
            self._session._retry_connection = False
        return self._session

    async def authorization(self, deadline: float, renew: bool = False) -> Headers:
        """Return the authorization headers."""
        return {} if self._authorize is None else await self._authorize(deadline, renew)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _once(
        self,
        method: str,
        url: str,
        content: bytes | None,
        headers: dict[str, str],
        renew: bool,
        deadline: float,
        expected: frozenset[int],
    ) -> HttpAnswer:
        """Send a request once and return its answer, whatever the status is."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise Timeout(f"{self._name}: the time was up before {method} was sent")
        try:
            async with asyncio.timeout(left):
                headers |= await self.authorization(deadline, renew)
                request = self.session().request(method, url, data=content, headers=headers, allow_redirects=False)
                async with request as response:
                    accepted = response.status < 300 or response.status in expected
                    body = await read_at_most(response, MOST_BYTES if accepted else _MOST_OF_ERROR)
                    if accepted and len(body) > MOST_BYTES:
                        kind = Invalid if method == "GET" else Transient
                        raise kind(f"{self._name}: the answer to {method} has more than {MOST_BYTES:,} bytes")
                    return HttpAnswer(response.status, _text_only(response), body)
        except TimeoutError:
            raise Timeout(f"{self._name}: no answer to {method} in time") from None
        except aiohttp.InvalidURL:
            raise Invalid(f"{self._name}: the address of the server is not valid") from None
        except aiohttp.ClientConnectorError as error:
            raise Unsent(f"{self._name}: cannot be reached ({type(error).__name__}); nothing was sent") from None
        except (aiohttp.ClientError, OSError) as error:
            # Only the class: the library's message may quote the address, which may hold a key.
            raise Transient(f"{self._name}: the connection failed at {method} ({type(error).__name__})") from None
        except BackendError:
            raise
        except Exception as error:
            # For example an answer that the library cannot parse: the request may have been executed.
            raise Transient(f"{self._name}: no answer to {method} could be read ({type(error).__name__})") from None


async def read_at_most(response: aiohttp.ClientResponse, most: int) -> bytes:
    """Read the body of an answer, and stop after more than `most` bytes: a longer result means that it was cut."""
    found = bytearray()
    async for piece in response.content.iter_any():
        found += piece
        if len(found) > most:
            response.close()
            break
    return bytes(found)


def _text_only(response: aiohttp.ClientResponse) -> Headers:
    """Return the headers that are text.

    aiohttp decodes other bytes to lone surrogates, which can neither be stored nor sent.
    """
    found = response.headers.copy()
    for name in set(found):
        if any("\ud800" <= character <= "\udfff" for content in found.getall(name) for character in name + content):
            found.popall(name)
    return found


def error_of(name: str, answer: HttpAnswer) -> BackendError:
    """Return the error for a status."""
    status = answer.status
    message = f"{name}: status {status}: {_message(answer)}"
    if status == 400 or 300 <= status < 400:
        return Invalid(message)
    if status == 401:
        return Auth(f"{message}; the credentials are not accepted")
    if status == 403:
        return Permission(f"{message}; the account lacks a right")
    if status in (404, 410):
        return NotFound(message)
    if status in (409, 412):
        return Conflict(message)
    if status == 429:
        return Throttled(message, retry_after(answer.headers))
    if status in (500, 503):
        return Failed(message)
    # A proxy or gateway (502, 504) may have passed on the request, which may still be under way.
    if status >= 500 or status == 408:
        return Transient(message)
    return Invalid(message)


def retry_after(headers: Headers) -> float | None:
    """Return the seconds of a `Retry-After` header (RFC 9110, section 10.2.3), None without a valid one."""
    value = headers.get("Retry-After", "").strip()
    # isdigit() and float() accept digits of other scripts too.
    if value.isascii() and value.isdigit():
        return min(float(value), _LONGEST_WAIT_S)
    try:
        wait = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return min(max(0.0, wait), _LONGEST_WAIT_S)


def _message(answer: HttpAnswer) -> str:
    text = " ".join(answer.body.decode(errors="replace").split())
    return text[:_MOST_SHOWN] or "no message"
