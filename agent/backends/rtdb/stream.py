"""Follows the changes of one node of a Realtime Database, by its server-sent events.

The protocol is https://firebase.google.com/docs/reference/rest/database#section-streaming. A connection that is lost,
silent or old is opened again. The first event of each has the whole node, so changes in between are reported then.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from random import uniform
from typing import NamedTuple
from urllib.parse import unquote

import aiohttp
import msgspec
from yarl import URL

from agent.backends.http import MOST_BYTES, Http, HttpAnswer, read_at_most
from agent.errors import BackendError, Invalid, Permission, Transient
from agent.logs.setup import log_event

log = logging.getLogger(__name__)

SILENCE_S = 45.0
"""Seconds of silence after which a connection is considered dead: the server sends a keep-alive every 30 s."""
CONNECT_S = 10.0
RENEW_S = 1800.0
"""Seconds until a connection is replaced, well before its access token expires after an hour."""
_STEADY_S = 30.0
"""Seconds that a connection must have lasted for failures to be counted anew."""
_WAIT_S = (0.25, 5.0)
"""The first and the longest wait before another connection."""
_MOST_REDIRECTS = 5
_MOST_BYTES = MOST_BYTES
"""The largest event. The first event has all flags; if they are larger, only the regular reads detect changes."""

_MOST_OF_REFUSAL = 64 * 2**10

Report = Callable[[frozenset[str] | None], None]
"""Is called with the keys of the children that changed; None if any may have changed."""


class ServerEvent(NamedTuple):
    name: str
    data: bytes


class EventParser:
    """Parses server-sent events from pieces (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._name = ""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> Iterator[ServerEvent]:
        """Yield the events that end in this piece. Raises Invalid if an event has more than `_MOST_BYTES`."""
        self._rest += piece
        if b"\n" in piece:
            *lines, rest = self._rest.split(b"\n")
            self._rest = rest
            for line in lines:
                event = self._line(bytes(line).removesuffix(b"\r"))
                if event is not None:
                    yield event
        if len(self._rest) + sum(map(len, self._data)) > _MOST_BYTES:
            raise Invalid(f"an event of more than {_MOST_BYTES} bytes")

    def _line(self, line: bytes) -> ServerEvent | None:
        """Take a line; return the event that it ends, which an empty line does."""
        if line:
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"event":
                self._name = value.decode(errors="replace")
            elif field == b"data":
                self._data.append(value)
            return None
        event = ServerEvent(self._name, b"\n".join(self._data)) if self._name or self._data else None
        self._name, self._data = "", []
        return event


class Stream:
    """Listens to the node at `url`; `refused` returns the error of an answer that is no stream."""

    def __init__(self, http: Http, url: str, refused: Callable[[HttpAnswer], BackendError]) -> None:
        self._http = http
        self._url = URL(url, encoded=True)
        self._refused = refused
        self._failures = 0
        self._lost = False

    async def listen(self, report: Report) -> None:
        """Call `report` for every change until cancelled; it must not raise."""
        renew = False
        while True:
            begun = time.monotonic()
            try:
                await self._read_events(renew, report)
                renew = False
                continue
            except _Revoked:
                renew, error = True, "the access token has ended"
            except Exception as failure:
                # After any error: a listener that ends unnoticed is worse than one that keeps trying.
                renew, error = False, str(failure) or type(failure).__name__
            self._failures = 1 if time.monotonic() - begun >= _STEADY_S else self._failures + 1
            if not self._lost:
                self._lost = True
                log_event(log, "listener.lost", level=logging.WARNING, url=self._shown, error=error)
            least, most = _WAIT_S
            # Random, so that replicas do not reconnect all at once.
            await asyncio.sleep(uniform(0.5, 1) * min(most, least * 2 ** min(self._failures - 1, 10)))  # noqa: S311

    @property
    def _shown(self) -> str:
        return str(self._url.with_query(None))

    async def _read_events(self, renew: bool, report: Report) -> None:
        """Read one connection until it is RENEW_S old. Raises the error that ended it earlier."""
        response = await self._connect(renew)
        try:
            parser, end = EventParser(), time.monotonic() + RENEW_S
            while time.monotonic() < end:
                try:
                    async with asyncio.timeout(SILENCE_S):
                        piece = await response.content.readany()
                except TimeoutError:
                    raise Transient(f"nothing was heard for {SILENCE_S:g} s") from None
                if not piece:
                    raise Transient("the server ended the stream")
                for event in parser.feed(piece):
                    self._take(event, report)
        finally:
            response.close()

    def _take(self, event: ServerEvent, report: Report) -> None:
        """Report the changes of an event. The first event after a loss shows that the connection is back."""
        keys = _changed(event)
        if self._lost:
            self._lost = False
            log_event(log, "listener.back", url=self._shown, attempts=self._failures)
        if keys is None or keys:
            report(keys)

    async def _connect(self, renew: bool) -> aiohttp.ClientResponse:
        """Open the stream. After a 401 it tries once more, with a renewed token."""
        async with asyncio.timeout(CONNECT_S):
            for again in (renew, True):
                headers = dict(await self._http.authorization(time.monotonic() + CONNECT_S, again))
                headers |= {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
                response = await self._follow_redirects(headers)
                if response.status == 200:
                    return response
                try:
                    body = await read_at_most(response, _MOST_OF_REFUSAL)
                    answer = HttpAnswer(response.status, response.headers.copy(), body)
                finally:
                    response.close()
                if answer.status != 401:
                    break
        raise self._refused(answer)

    async def _follow_redirects(self, headers: dict[str, str]) -> aiohttp.ClientResponse:
        """Open the stream. A 307 redirects to the server with the data; the token is not sent to another site."""
        url = self._url
        for _ in range(_MOST_REDIRECTS):
            response = await self._http.session().get(url, headers=headers, allow_redirects=False)
            if response.status not in (301, 302, 307, 308):
                return response
            location = response.headers.get("Location", "")
            response.close()
            url = url.join(URL(location, encoded=True))
            if url.scheme != self._url.scheme or _site(url) != _site(self._url):
                raise Invalid(f"the stream is redirected to {url.host}, which is no part of {_site(self._url)}")
        raise Invalid(f"the stream is redirected more than {_MOST_REDIRECTS} times")


class _Revoked(Exception):
    """The server no longer accepts the token of the connection."""


def _changed(event: ServerEvent) -> frozenset[str] | None:
    """Return the keys that an event changes, None if it may be any. Raises if the event ends the connection."""
    if event.name == "auth_revoked":
        raise _Revoked
    if event.name == "cancel":
        raise Permission("the server cancelled the stream: the rules no longer allow to read there")
    if event.name not in ("put", "patch"):
        return frozenset()
    try:
        value = msgspec.json.decode(event.data, type=_Change)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    first = value.path.strip("/").partition("/")[0]
    if first:
        # The reference does not say whether the paths of events are percent-encoded.
        return frozenset({first, unquote(first)})
    if event.name == "put" or not isinstance(value.data, dict):
        return None
    return frozenset(str(path).strip("/").partition("/")[0] for path in value.data)


class _Change(msgspec.Struct):
    path: str
    data: object = None


def _site(url: URL) -> str:
    """Return the last two labels of a host name, such as firebaseio.com; an IP address unchanged."""
    host = url.host or ""
    return host if host.replace(".", "").isdigit() or ":" in host else ".".join(host.split(".")[-2:])
