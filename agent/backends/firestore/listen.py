"""Follows flags in Firestore: one stream for all of them, opened again when it ends, fails or is five minutes old.

A silent stream may be dead. The connection's keepalive detects a dead server within half a minute; a stream that died
in another way is replaced after five minutes. Changes in between are detected then, by the update times of the
documents, or earlier by the regular reads: see `read_every`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from random import uniform
from typing import Any

from agent.backends.contract import FlagRef
from agent.backends.firestore.connection import FirestoreConnection, Metadata
from agent.errors import Auth, Timeout, Transient
from agent.logs.setup import log_event

log = logging.getLogger(__name__)

RENEW_AFTER_S = 300.0
"""Seconds until a stream is replaced: well within the validity of a token, which Google checks only at the start."""
_LEAST_PAUSE_S = 0.1
_MOST_PAUSE_S = 5.0
_STEADY_S = 5.0
"""A stream that lasted for so long was a success: failures are counted anew, and the next pause is the least."""
_REMOVED = 2
"""google.firestore.v1.TargetChange.TargetChangeType.REMOVE: the server ended the listener, see `cause`."""


async def follow(
    connection: FirestoreConnection,
    authorization: Callable[[bool], Awaitable[Metadata]],
    names: Mapping[str, Sequence[FlagRef]],
    changed: Callable[[FlagRef], None],
) -> None:
    """Call `changed` for each change of the documents `names`, and once for every flag at first; until cancelled."""
    seen: dict[str, str | None] = {}
    failures, lost = 0, False

    def heard() -> None:
        nonlocal lost
        if lost:
            log_event(log, "listener.back", url=connection.name, attempts=failures)
        lost = False

    def report(name: str, update_time: str | None) -> None:
        if name in seen and seen[name] == update_time:
            return
        seen[name] = update_time
        for ref in names.get(name, ()):
            try:
                changed(ref)
            except Exception:
                # An error of the callback must not end the stream, on which other flags rely.
                log_event(log, "listener.failed", level=logging.ERROR, flag=ref.flag)

    thread = ThreadPoolExecutor(1, thread_name_prefix="firestore-listen")
    renew = False
    try:
        while True:
            begun = time.monotonic()
            error: Exception = Transient("the server ended the stream")
            try:
                metadata = await authorization(renew)
                await _Stream(connection, list(names), heard, report).run(thread, metadata)
            except Exception as caught:
                # After any error: a listener that ends unnoticed is worse than one that keeps trying.
                error = caught
            if isinstance(error, Timeout) and not lost:
                continue
            renew = isinstance(error, Auth)
            failures = 1 if time.monotonic() - begun >= _STEADY_S else failures + 1
            if not lost:
                lost = True
                log_event(log, "listener.lost", level=logging.WARNING, url=connection.name, error=str(error))
            # Random, so that replicas do not reconnect all at once.
            pause = min(_LEAST_PAUSE_S * 2 ** min(failures - 1, 10), _MOST_PAUSE_S)
            await asyncio.sleep(uniform(0.5, 1) * pause)  # noqa: S311
    finally:
        # Without waiting: the thread's stream has been cancelled.
        thread.shutdown(wait=False)


class _Stream:
    """One stream, read in a thread. Calls in the event loop: `heard` at the first answer, `report` at each change."""

    def __init__(
        self,
        connection: FirestoreConnection,
        names: Sequence[str],
        heard: Callable[[], None],
        report: Callable[[str, str | None], None],
    ) -> None:
        self._connection = connection
        self._names = names
        self._heard = heard
        self._report = report
        self._call: Any = None
        self._stopped = False

    async def run(self, thread: ThreadPoolExecutor, metadata: Metadata) -> None:
        """Read until the stream ends. Raises the error that ended it: Timeout if it is RENEW_AFTER_S old."""
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(thread, self._read, loop, metadata)
        finally:
            self._stopped = True
            if self._call is not None:
                self._call.cancel()

    def _read(self, loop: asyncio.AbstractEventLoop, metadata: Metadata) -> None:
        answers = self._connection.listen(self._names, seconds=RENEW_AFTER_S, metadata=metadata, opened=self._opened)
        for number, answer in enumerate(answers):
            news = _news(answer)
            if number == 0:
                loop.call_soon_threadsafe(self._heard)
            for name, update_time in news:
                loop.call_soon_threadsafe(self._report, name, update_time)

    def _opened(self, call: Any) -> None:
        self._call = call
        if self._stopped:
            call.cancel()


def _news(answer: Any) -> list[tuple[str, str | None]]:
    """Return documents and their update times, None for a missing one.

    Raises Transient if the server has ended the listener.
    """
    match answer.WhichOneof("response_type"):
        case "document_change":
            document = answer.document_change.document
            return [(document.name, document.update_time.ToJsonString())]
        case "document_delete":
            return [(answer.document_delete.document, None)]
        case "document_remove":
            return [(answer.document_remove.document, None)]
        case "target_change" if answer.target_change.target_change_type == _REMOVED:
            cause = answer.target_change.cause.message
            raise Transient(f"the server ended the listener: {cause or 'it does not say why'}")
    return []
