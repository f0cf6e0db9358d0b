"""Following flags in Firestore: one stream for all of them, made anew whenever it ends, fails or has grown old.

A stream that says nothing looks like one that has died. The connection's own keepalive finds a dead server in half a
minute; for what that does not see a stream is renewed after five. What was missed meanwhile is told then, by the update
times of the documents. Whoever must know sooner reads: see `look_every`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from agent.backends.contract import FlagRef
from agent.backends.firestore_connection import Connection, Metadata
from agent.errors import Auth, BackendError, Timeout, Transient
from agent.logs import log_event

log = logging.getLogger(__name__)

RENEW_AFTER_S = 300.0
"""Also well within the life of a token, which Google checks at the start only."""
_LEAST_PAUSE_S = 0.1
_MOST_PAUSE_S = 5.0
_REMOVED = 2
"""google.firestore.v1.TargetChange.TargetChangeType.REMOVE: the server listens no longer, see `cause`."""


async def follow(
    connection: Connection,
    authorization: Callable[[bool], Awaitable[Metadata]],
    names: Mapping[str, Sequence[FlagRef]],
    changed: Callable[[FlagRef], None],
) -> None:
    """Tell of changes of the documents `names` until cancelled; every flag is told of at first, too."""
    seen: dict[str, str | None] = {}

    def tell(name: str, update_time: str | None) -> None:
        if name in seen and seen[name] == update_time:
            return
        seen[name] = update_time
        for ref in names.get(name, ()):
            try:
                changed(ref)
            except Exception:
                # Theirs, not ours: it must not end what others rely on.
                log.exception("a follower of %s failed", ref.flag)

    thread = ThreadPoolExecutor(1, thread_name_prefix="firestore-listen")
    pause, renew, failing = _LEAST_PAUSE_S, False, False
    try:
        while True:
            stream = _Stream(connection, list(names), tell)
            error: BackendError = Transient("the server ended the stream")
            try:
                await stream.run(thread, await authorization(renew))
            except BackendError as caught:
                error = caught
            if stream.told:
                pause, failing = _LEAST_PAUSE_S, False
                if isinstance(error, Timeout):
                    continue
            if not failing:
                log_event(log, "backend.listening_failed", level=logging.WARNING, error=str(error))
                failing = True
            renew = isinstance(error, Auth)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _MOST_PAUSE_S)
    finally:
        # Not waited for: its stream has been cancelled.
        thread.shutdown(wait=False)


class _Stream:
    """One stream, read in a thread; `tell` is called in the event loop. `told`: it has said something."""

    def __init__(self, connection: Connection, names: Sequence[str], tell: Callable[[str, str | None], None]) -> None:
        self._connection = connection
        self._names = names
        self._tell = tell
        self._call: Any = None
        self._stopped = False
        self.told = False

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
        for answer in answers:
            self.told = True
            for name, update_time in _news(answer):
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
