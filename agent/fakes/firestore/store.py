"""The documents of the fake Firestore, in memory: preconditions, atomic commits, transactions, rising update times.

It behaves as https://cloud.google.com/firestore/docs/reference/rpc/google.firestore.v1 describes. A document is
identified by its path below `/documents/`, so that one fake serves every project that a client names.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import grpc
from google.cloud.firestore_v1 import types
from google.cloud.firestore_v1.field_path import FieldPath
from google.protobuf.timestamp_pb2 import Timestamp

from agent.fakes.firestore.transforms import transformed

Document = types.Document.pb()
WriteResult = types.WriteResult.pb()
Documents = Mapping[str, Any]

_MOST_BYTES = 1_048_576
"""The largest document: https://firebase.google.com/docs/firestore/quotas."""


class Refused(Exception):
    """A request that is answered with this gRPC status; nothing was done."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Committed(NamedTuple):
    """The results of a commit's writes, its time, and the paths of the documents that it changed."""

    results: list[Any]
    time: Any
    changed: set[str]


@dataclass(slots=True)
class _Transaction:
    """A transaction. `reads` has the update time of each document that it has read, None for a missing one."""

    read_only: bool
    reads: dict[str, Any] = field(default_factory=dict)


class Store:
    """All documents. Safe to use from several threads. A stored message is never changed, only replaced.

    `before` has the documents before the last commit that changed anything; None without such a commit since `forget`.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._last_us = 0
        self._number = 0
        self._transactions: dict[bytes, _Transaction] = {}
        self._followers: list[Callable[[set[str]], None]] = []
        self.documents: Documents = {}
        self.before: Documents | None = None

    def now(self) -> Any:
        """Return the time in whole microseconds, later than at every call before."""
        with self._lock:
            self._last_us = max(time.time_ns() // 1000, self._last_us + 1)
            return Timestamp(seconds=self._last_us // 10**6, nanos=self._last_us % 10**6 * 1000)

    def begin(self, options: Any) -> bytes:
        """Begin a transaction; return its id."""
        with self._lock:
            self._number += 1
            name = self._number.to_bytes(8, "big")
            self._transactions[name] = _Transaction(options.HasField("read_only"))
            return name

    def rollback(self, transaction: bytes) -> None:
        with self._lock:
            self._transactions.pop(transaction, None)

    def note(self, transaction: bytes, path: str, document: Any) -> None:
        """Record that a transaction has read a document, which is None if it is missing."""
        with self._lock:
            update_time = None if document is None else document.update_time
            self._transaction(transaction).reads.setdefault(path, update_time)

    def commit(self, writes: Sequence[Any], transaction: bytes = b"", *, really: bool = True) -> Committed:
        """Make all of the writes or none. Not `really`: everything is checked and answered, but nothing is stored."""
        with self._lock:
            if transaction:
                self._check_reads(self._transaction(transaction))
                del self._transactions[transaction]
            now, pending, results = self.now(), dict[str, Any](), []
            for write in writes:
                path = _path(write)
                current = pending[path] if path in pending else self.documents.get(path)
                _check_precondition(write.current_document, current, path)
                pending[path], result = _written(write, path, current, now)
                results.append(result)
            changed = {path for path, document in pending.items() if document is not self.documents.get(path)}
            if really and changed:
                self.before, after = self.documents, {**self.documents, **pending}
                self.documents = {path: document for path, document in after.items() if document is not None}
                for follower in self._followers:
                    follower(changed)
            return Committed(results, now, changed)

    def follow(self, follower: Callable[[set[str]], None]) -> None:
        """Call `follower`, which must not block, with the paths of each commit."""
        with self._lock:
            self._followers.append(follower)

    def unfollow(self, follower: Callable[[set[str]], None]) -> None:
        with self._lock:
            self._followers.remove(follower)

    def forget(self) -> None:
        """Forget the documents before the last commit."""
        self.before = None

    def _transaction(self, name: bytes) -> _Transaction:
        found = self._transactions.get(name)
        if found is None:
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "The referenced transaction has expired or is not valid.")
        return found

    def _check_reads(self, transaction: _Transaction) -> None:
        """Raise Refused if a document that the transaction has read was changed since."""
        for path, update_time in transaction.reads.items():
            current = self.documents.get(path)
            if not transaction.read_only and (None if current is None else current.update_time) != update_time:
                raise Refused(grpc.StatusCode.ABORTED, f"Too much contention on these documents: {path}")


def relative(name: str) -> str:
    """Return the path of a document below `projects/P/databases/D/documents/`. Raises Refused if it is no document."""
    _, _, path = name.partition("/documents/")
    parts = path.split("/")
    if len(parts) % 2 or not all(parts) or any(part.startswith("__") and part.endswith("__") for part in parts):
        raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"{name!r} is not the name of a document")
    return path


def named(document: Any, database: str, mask: Iterable[str] | None = None) -> Any:
    """Return a copy with the full name in a database, and, if `mask` is given, only its fields."""
    copy = Document(name=f"{database}/documents/{document.name}")
    if mask is None:
        copy.MergeFrom(Document(fields=document.fields))
    for path in mask or ():
        parts = FieldPath.from_api_repr(path).parts
        _set(copy.fields, parts, _get(document.fields, parts))
    copy.create_time.CopyFrom(document.create_time)
    copy.update_time.CopyFrom(document.update_time)
    return copy


def _path(write: Any) -> str:
    match write.WhichOneof("operation"):
        case "update":
            return relative(write.update.name)
        case "delete":
            return relative(write.delete)
        case "transform":
            return relative(write.transform.document)
    raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "a write must have an operation")


def _check_precondition(wanted: Any, current: Any, path: str) -> None:
    match wanted.WhichOneof("condition_type"):
        case "exists" if wanted.exists and current is None:
            raise Refused(grpc.StatusCode.NOT_FOUND, f"No document to update: {path}")
        case "exists" if not wanted.exists and current is not None:
            raise Refused(grpc.StatusCode.ALREADY_EXISTS, f"Document already exists: {path}")
        case "update_time" if current is None or current.update_time != wanted.update_time:
            raise Refused(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"the stored version of {path} does not match the required base version",
            )


def _written(write: Any, path: str, current: Any, now: Any) -> tuple[Any, Any]:
    """Return a document after a write, and the write's result. A write without a change keeps the update time."""
    if write.WhichOneof("operation") == "delete":
        return None, WriteResult()
    document = Document(name=path, create_time=now if current is None else current.create_time, update_time=now)
    partial = write.HasField("update_mask") or write.WhichOneof("operation") == "transform"
    if partial and current is not None:
        document.MergeFrom(Document(fields=current.fields))
    for field_path in write.update_mask.field_paths:
        parts = FieldPath.from_api_repr(field_path).parts
        _set(document.fields, parts, _get(write.update.fields, parts))
    if not partial:
        document.MergeFrom(Document(fields=write.update.fields))
    result = WriteResult()
    for transform in (*write.update_transforms, *write.transform.field_transforms):
        parts = FieldPath.from_api_repr(transform.field_path).parts
        new, answer = transformed(transform, _get(document.fields, parts), now)
        _set(document.fields, parts, new)
        result.transform_results.append(answer)
    _check_fields(document)
    if current is not None and current.fields == document.fields:
        document = current
    result.update_time.CopyFrom(document.update_time)
    return document, result


def _check_fields(document: Any) -> None:
    for name, value in document.fields.items():
        if name.startswith("__") and name.endswith("__"):
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"the field name {name!r} is reserved")
        _check_value(value, name)
    if document.ByteSize() > _MOST_BYTES:
        raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"{document.name} is longer than {_MOST_BYTES} bytes")


def _check_value(value: Any, name: str, within_array: bool = False) -> None:
    match value.WhichOneof("value_type"):
        case "array_value" if within_array:
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"Property {name} contains an invalid nested entity.")
        case "array_value":
            for member in value.array_value.values:
                _check_value(member, name, within_array=True)
        case "map_value":
            for member in value.map_value.fields.values():
                _check_value(member, name)


def _get(fields: Any, parts: Sequence[str]) -> Any:
    """Return the value at a path of names, None if there is none."""
    for part in parts[:-1]:
        if part not in fields:
            return None
        fields = fields[part].map_value.fields
    return fields.get(parts[-1])


def _set(fields: Any, parts: Sequence[str], value: Any) -> None:
    """Set the value at a path of names, creating maps on the way; None removes the value."""
    for part in parts[:-1]:
        if value is None and part not in fields:
            return
        fields = fields[part].map_value.fields
    if value is None:
        fields.pop(parts[-1], None)
    else:
        fields[parts[-1]].CopyFrom(value)
