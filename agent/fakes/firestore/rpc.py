"""The gRPC service of the fake of Firestore: google.firestore.v1.Firestore as far as flags and their readers need it.

What it does not know it refuses with UNIMPLEMENTED. Faults befall BatchGetDocuments ("read") and Commit ("write"); a
commit that could change nothing is a dry run, and refused only where a real one would be refused as not allowed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NoReturn

import grpc
import msgspec
from google.cloud.firestore_v1 import types
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.empty_pb2 import Empty
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from agent.fakes.faults import FakeFault, FakeFaults
from agent.fakes.firestore.listen import listen
from agent.fakes.firestore.query import collection_path, selection
from agent.fakes.firestore.store import Committed, Documents, Refused, Store, named, relative

SERVICE = "google.firestore.v1.Firestore"

ReadAnswer = types.BatchGetDocumentsResponse.pb()
QueryAnswer = types.RunQueryResponse.pb()

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.ABORTED,
    412: grpc.StatusCode.FAILED_PRECONDITION,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""What google.rpc.Code says each HTTP status stands for."""


class Service:
    """`committed` is called with the paths of the documents that a client's commit has changed."""

    def __init__(self, store: Store, faults: FakeFaults, committed: Callable[[set[str]], None]) -> None:
        self._store = store
        self._faults = faults
        self._committed = committed

    def handler(self) -> grpc.GenericRpcHandler:
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        both = grpc.stream_stream_rpc_method_handler
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "BatchGetDocuments": _method(stream, self._batch_get, types.BatchGetDocumentsRequest),
                "Commit": _method(unary, self._commit, types.CommitRequest),
                "BeginTransaction": _method(unary, self._begin, types.BeginTransactionRequest),
                "Rollback": _method(unary, self._rollback, types.RollbackRequest),
                "RunQuery": _method(stream, self._run_query, types.RunQueryRequest),
                "ListDocuments": _method(unary, self._list, types.ListDocumentsRequest),
                "Listen": _method(both, partial(listen, self._store), types.ListenRequest),
            },
        )

    def _batch_get(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        fault = self._faults.take("read")
        documents: Documents = self._store.documents
        if fault is not None and fault.kind == "lie":
            if self._store.before is None:
                # There is nothing yet that could be kept back; the lie is told once there is.
                if fault.times:
                    self._faults.add(msgspec.structs.replace(fault, times=1))
            else:
                documents = self._store.before
        elif fault is not None:
            _befall(fault, context, lambda: None)
            documents = self._store.documents
        yield from self._documents(request, documents)

    def _documents(self, request: Any, documents: Documents) -> Iterator[Any]:
        transaction = self._transaction(request)
        if request.HasField("new_transaction"):
            yield ReadAnswer(transaction=transaction)
        read_time = self._store.now()
        for name in request.documents:
            path = relative(name)
            document = documents.get(path)
            if transaction:
                self._store.note(transaction, path, document)
            if document is None:
                yield ReadAnswer(missing=name, read_time=read_time)
                continue
            mask = request.mask.field_paths if request.HasField("mask") else None
            yield ReadAnswer(found=named(document, request.database, mask), read_time=read_time)

    def _commit(self, request: Any, context: grpc.ServicerContext) -> Any:
        def carry_out(really: bool = True) -> Committed:
            done = self._store.commit(request.writes, request.transaction, really=really)
            if really and done.changed:
                self._committed(done.changed)
            return done

        fault = self._write_fault(request)
        if fault is not None and fault.kind != "lie":
            _befall(fault, context, carry_out)
        done = carry_out(really=fault is None or fault.kind != "lie")
        return types.CommitResponse.pb()(write_results=done.results, commit_time=done.time)

    def _write_fault(self, request: Any) -> FakeFault | None:
        if any(map(_may_change, request.writes)):
            return self._faults.take("write")
        ahead = next((fault for fault in self._faults.waiting() if fault.on == "write"), None)
        refused = ahead is not None and ahead.kind == "status" and ahead.status in (401, 403)
        return self._faults.take("write") if refused else None

    def _begin(self, request: Any, context: grpc.ServicerContext) -> Any:
        return types.BeginTransactionResponse.pb()(transaction=self._store.begin(request.options))

    def _rollback(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._store.rollback(request.transaction)
        return Empty()

    def _run_query(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        wanted = selection(request.parent, request.structured_query)
        transaction = self._transaction(request)
        if request.HasField("new_transaction"):
            yield QueryAnswer(transaction=transaction)
        read_time, database = self._store.now(), request.parent.partition("/documents")[0]
        for path, document in wanted.of(self._store.documents).items():
            if transaction:
                self._store.note(transaction, path, document)
            yield QueryAnswer(document=named(document, database), read_time=read_time)
        yield QueryAnswer(read_time=read_time, done=True)

    def _list(self, request: Any, context: grpc.ServicerContext) -> Any:
        collection = collection_path(request.parent, request.collection_id)
        database = request.parent.partition("/documents")[0]
        mask = request.mask.field_paths if request.HasField("mask") else None
        held = self._store.documents
        paths = sorted(path for path in held if path.rpartition("/")[0] == collection and path > request.page_token)
        page = paths[: request.page_size or None]
        return types.ListDocumentsResponse.pb()(
            documents=[named(held[path], database, mask) for path in page],
            next_page_token=page[-1] if len(page) < len(paths) else "",
        )

    def _transaction(self, request: Any) -> bytes:
        if request.HasField("read_time"):
            raise Refused(grpc.StatusCode.UNIMPLEMENTED, "this fake does not read what was in the past")
        if request.HasField("new_transaction"):
            return self._store.begin(request.new_transaction)
        return bytes(request.transaction)


def _method(kind: Any, function: Callable[[Any, Any], Any], request: Any) -> grpc.RpcMethodHandler[Any, Any]:
    """A method whose refusals are statuses. Answers are messages of protobuf, which know how to be written."""

    def call(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return function(request, context)
        except Refused as refusal:
            context.abort(refusal.code, refusal.message)

    def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        try:
            yield from function(request, context)
        except Refused as refusal:
            context.abort(refusal.code, refusal.message)

    behaviour = call if kind is grpc.unary_unary_rpc_method_handler else stream
    return kind(behaviour, request.pb().FromString, lambda answer: answer.SerializeToString())  # type: ignore[no-any-return]


def _befall(fault: FakeFault, context: grpc.ServicerContext, carry_out: Callable[[], object]) -> None:
    """Let a fault happen; comes back only where the request is to be carried out and answered after it."""
    if fault.kind in ("commit-then-fail", "commit-then-hang", "drop"):
        carry_out()
    if fault.kind in ("hang", "commit-then-hang", "delay"):
        if not _ended(context, fault.seconds if fault.kind == "delay" else None):
            return
        context.abort(grpc.StatusCode.CANCELLED, "the client has gone")
    if fault.kind == "drop":
        context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
    _fail(fault, context)


def _fail(fault: FakeFault, context: grpc.ServicerContext) -> NoReturn:
    code = _CODES.get(fault.status, grpc.StatusCode.UNKNOWN)
    status = Status(code=code.value[0], message=f"a fault was ordered: {fault.status}")
    if fault.retry_after is not None:
        delay = Duration()
        delay.FromMilliseconds(round(fault.retry_after * 1000))
        detail = AnyMessage()
        detail.Pack(RetryInfo(retry_delay=delay))
        status.details.append(detail)
    context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError("abort raises")


def _ended(context: grpc.ServicerContext, seconds: float | None) -> bool:
    """Wait until the call has ended: the client has gone, or this server stops."""
    ended = threading.Event()
    return not context.add_callback(ended.set) or ended.wait(seconds)


def _may_change(write: Any) -> bool:
    empty = write.HasField("update_mask") and not write.update_mask.field_paths and not write.update_transforms
    return not (empty and write.WhichOneof("operation") == "update")
