"""One connection to Firestore: a read, a commit or a stream, each a single request with a deadline. No retries.

The calls are those of the API, https://cloud.google.com/firestore/docs/reference/rpc/google.firestore.v1. The client
library is not used because it retries by itself: its `get(timeout=2)` on a frozen server still waited after 25 s, its
transactions have no deadline, and its listener reopens its stream again and again without a pause.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any
from urllib.parse import quote

import grpc
from google.cloud.firestore_v1 import types
from google.rpc.error_details_pb2 import RetryInfo
from grpc_status import rpc_status

from agent.backends import settings as config
from agent.errors import (
    Auth,
    BackendError,
    Conflict,
    Invalid,
    NotFound,
    Permission,
    Throttled,
    Timeout,
    Transient,
)

HOST = "firestore.googleapis.com:443"
SCOPES = ("https://www.googleapis.com/auth/datastore",)
ROLE = "roles/datastore.user"

Metadata = tuple[tuple[str, str | bytes], ...]

_Read, _ReadAnswer = types.BatchGetDocumentsRequest.pb(), types.BatchGetDocumentsResponse.pb()
_Commit, _CommitAnswer = types.CommitRequest.pb(), types.CommitResponse.pb()
_Listen, _ListenAnswer = types.ListenRequest.pb(), types.ListenResponse.pb()

_OPTIONS = [
    # By default gRPC waits up to two minutes after an outage before it connects again, and fails every call until then:
    # 5.5 s after an outage of 20 s, 0.9 s with these settings.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A connection that a router dropped is detected within seconds of a call, and within half a minute without one.
    # Google's servers treat more than one ping every 30 s as abuse.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    # By default a minute, which adds to the above: without it a frozen server was detected after 90 s.
    ("grpc.http2.ping_timeout_ms", 3_000),
    # No retries by gRPC.
    ("grpc.enable_retries", 0),
    # Backends share no connection: closing one must not delay another.
    ("grpc.use_local_subchannel_pool", 1),
]
_MOST_SHOWN = 300
"""Characters of a server's message that are quoted in an error."""


class FirestoreConnection:
    """Blocking calls, safe to use from several threads. Documents are protobuf messages, identified by full name."""

    def __init__(self, settings: config.Firestore) -> None:
        self.name = f"Firestore project {settings.project}"
        self._database = f"projects/{settings.project}/databases/{settings.database}"
        # Google routes a request for a database other than the default one by the second.
        self._metadata: Metadata = (
            ("google-cloud-resource-prefix", self._database),
            ("x-goog-request-params", f"database={quote(self._database, safe='')}"),
        )
        if settings.emulator is None:
            self._channel = grpc.secure_channel(HOST, grpc.ssl_channel_credentials(), _OPTIONS)
        else:
            # Without the proxy of the environment: loopback is not behind it.
            self._channel = grpc.insecure_channel(settings.emulator, [*_OPTIONS, ("grpc.enable_http_proxy", 0)])
        self._read = self._channel.unary_stream(*_method("BatchGetDocuments", _Read, _ReadAnswer))
        self._commit = self._channel.unary_unary(*_method("Commit", _Commit, _CommitAnswer))
        self._listen = self._channel.stream_stream(*_method("Listen", _Listen, _ListenAnswer))

    def path(self, collection: str, document: str) -> str:
        """Return the full name of a document. Raises Invalid if no document can have this id."""
        reserved = document in (".", "..") or (document.startswith("__") and document.endswith("__"))
        if not document or "/" in document or reserved or len(document.encode()) > 1500:
            raise Invalid(f"{document!r} cannot be the id of a document in Firestore (no /, not . or .., not __x__)")
        return f"{self._database}/documents/{collection}/{document}"

    def read(self, names: Sequence[str], *, deadline: float, metadata: Metadata) -> dict[str, Any]:
        """Return those of the documents that exist, all as of one time."""
        request = _Read(database=self._database, documents=names)
        with self._errors("read"):
            answers = self._read(request, timeout=_left(deadline, "read"), metadata=self._metadata + metadata)
            return {answer.found.name: answer.found for answer in answers if answer.HasField("found")}

    def commit(self, writes: Sequence[Any], *, deadline: float, metadata: Metadata) -> list[Any]:
        """Make all of the writes or none; return the update time of each document.

        Raises Conflict if a precondition does not hold, or if Firestore gave up because of contention.
        """
        request = _Commit(database=self._database, writes=writes)
        with self._errors("commit"):
            answer = self._commit(request, timeout=_left(deadline, "commit"), metadata=self._metadata + metadata)
        return [result.update_time for result in answer.write_results]

    def listen(
        self, names: Sequence[str], *, seconds: float, metadata: Metadata, opened: Callable[[Any], None]
    ) -> Iterator[Any]:
        """Yield Firestore's answers about the documents, until the stream ends or `seconds` have passed.

        The first answers describe each document as it is now. `opened` is called with the gRPC call, whose `cancel`
        ends the stream from another thread.
        """
        target = {"documents": {"documents": names}, "target_id": 1}
        requests: SimpleQueue[Any] = SimpleQueue()
        requests.put(_Listen(database=self._database, add_target=target))
        with self._errors("listen"):
            # The end of the requests would end the stream, so the iterator waits for one more until the stream ends.
            call = self._listen(iter(requests.get, None), timeout=seconds, metadata=self._metadata + metadata)
            try:
                opened(call)
                yield from call
            finally:
                call.cancel()
                requests.put(None)

    def close(self) -> None:
        self._channel.close()

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise _error_of(f"{self.name}, {what}", error) from None
        except ValueError:
            raise Transient(f"{self.name}, {what}: the connection was closed") from None


def _method(name: str, request: Any, answer: Any) -> tuple[str, Callable[[Any], bytes], Callable[[bytes], Any]]:
    return f"/google.firestore.v1.Firestore/{name}", request.SerializeToString, answer.FromString


def _left(deadline: float, what: str) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise Timeout(f"Firestore: the time was up before the {what} was sent")
    return left


def _error_of(what: str, error: Any) -> BackendError:
    """Return the error for a gRPC status: https://cloud.google.com/firestore/docs/understand-error-codes."""
    code = error.code()
    message = f"{what}: {code.name}: {' '.join((error.details() or '').split())[:_MOST_SHOWN] or 'no message'}"
    match code:
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return Timeout(f"{what}: no answer in time")
        case grpc.StatusCode.ABORTED | grpc.StatusCode.FAILED_PRECONDITION | grpc.StatusCode.ALREADY_EXISTS:
            return Conflict(message)
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return Throttled(message, _retry_after(error))
        case grpc.StatusCode.UNAUTHENTICATED:
            return Auth(f"{message}; the credentials are not accepted")
        case grpc.StatusCode.PERMISSION_DENIED:
            return Permission(f"{message}; the account needs {ROLE} on this database")
        case grpc.StatusCode.NOT_FOUND:
            return NotFound(message)
        case grpc.StatusCode.INVALID_ARGUMENT | grpc.StatusCode.OUT_OF_RANGE | grpc.StatusCode.UNIMPLEMENTED:
            return Invalid(message)
    # UNAVAILABLE, INTERNAL, UNKNOWN, CANCELLED, DATA_LOSS: a write may have landed.
    return Transient(message)


def _retry_after(error: Any) -> float | None:
    """Return the seconds of the RetryInfo (google.rpc) of an error, None without one."""
    info = RetryInfo()
    # The details are bytes of the server's, and protobuf raises errors of its own if it cannot read them.
    with suppress(Exception):
        status = rpc_status.from_call(error)
        for detail in status.details if status is not None else ():
            if detail.Unpack(info):
                return max(0.0, float(info.retry_delay.ToTimedelta().total_seconds()))
    return None
