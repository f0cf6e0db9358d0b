"""Following flags in Firestore: one stream for all of them, made anew whenever it ends, fails or has grown old.

A stream that says nothing looks like one that has died. The connection's own keepalive finds a dead server in half a
minute; for what that does not see a stream is renewed after five. What was missed meanwhile is told then, by the update
times of the documents. Whoever must know sooner reads: see `look_every`.
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
"""Also well within the life of a token, which Google checks at the start only."""
_LEAST_PAUSE_S = 0.1
_MOST_PAUSE_S = 5.0
_STEADY_S = 5.0
"""A stream that has lasted for so long was a good one, and the next is opened after the least pause."""
_REMOVED = 2
"""google.firestore.v1.TargetChange.TargetChangeType.REMOVE: the server listens no longer, see `cause`."""


async def follow(
    connection: FirestoreConnection,
    authorization: Callable[[bool], Awaitable[Metadata]],
    names: Mapping[str, Sequence[FlagRef]],
    changed: Callable[[FlagRef], None],
) -> None:
    """Tell of changes of the documents `names` until cancelled; every flag is told of at first, too."""
    seen: dict[str, str | None] = {}
    failures, lost = 0, False

    def heard() -> None:
        nonlocal lost
        if lost:
            log_event(log, "listener.back", url=connection.name, attempts=failures)
        lost = False

    def tell(name: str, update_time: str | None) -> None:
        if name in seen and seen[name] == update_time:
            return
        seen[name] = update_time
        for ref in names.get(name, ()):
            try:
                changed(ref)
            except Exception:
                # Theirs, not ours: it must not end what others rely on.
                log_event(log, "listener.failed", level=logging.ERROR, flag=ref.flag)

    thread = ThreadPoolExecutor(1, thread_name_prefix="firestore-listen")
    renew = False
    try:
        while True:
            begun = time.monotonic()
            error: Exception = Transient("the server ended the stream")
            try:
                metadata = await authorization(renew)
                await _Stream(connection, list(names), heard, tell).run(thread, metadata)
            except Exception as caught:
                # Whatever it was: a listener that has died unseen is worse than one that tries in vain.
                error = caught
            if isinstance(error, Timeout) and not lost:
                continue
            renew = isinstance(error, Auth)
            failures = 1 if time.monotonic() - begun >= _STEADY_S else failures + 1
            if not lost:
                lost = True
                log_event(log, "listener.lost", level=logging.WARNING, url=connection.name, error=str(error))
            # At random, so that replicas do not come back all at once.
            pause = min(_LEAST_PAUSE_S * 2 ** min(failures - 1, 10), _MOST_PAUSE_S)
            await asyncio.sleep(uniform(0.5, 1) * pause)  # noqa: S311
    finally:
        # Not waited for: its stream has been cancelled.
        thread.shutdown(wait=False)


class _Stream:
    """One stream, read in a thread. In the event loop `heard` is called at its first answer, `tell` at each change."""

    def __init__(
        self,
        connection: FirestoreConnection,
        names: Sequence[str],
        heard: Callable[[], None],
        tell: Callable[[str, str | None], None],
    ) -> None:
        self._connection = connection
        self._names = names
        self._heard = heard
        self._tell = tell
        self._call: Any = None
        self._stopped = False

    async def run(self, thread: ThreadPoolExecutor, metadata: Metadata) -> None:
        """Until the stream ends. Raises what ended it: Timeout where it has grown old."""
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
                loop.call_soon_threadsafe(self._tell, name, update_time)

    def _opened(self, call: Any) -> None:
        self._call = call
        if self._stopped:
            call.cancel()


def _news(answer: Any) -> list[tuple[str, str | None]]:
    """Documents and their update times, None for one that is not there. Raises Transient where the target is gone."""
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
            raise Transient(f"the server listens no longer: {cause or 'it does not say why'}")
    return []
