"""The gRPC service of the fake Firestore: the part of google.firestore.v1.Firestore that flags and their readers need.

It refuses everything else with UNIMPLEMENTED. Faults apply to BatchGetDocuments ("read") and Commit ("write"). A commit
that cannot change anything is a dry run: only the faults 401 and 403 apply to it.
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
"""The gRPC status for each HTTP status, as google.rpc.Code maps them."""


class Service:
    """The service. `committed` is called with the paths of the documents that a client's commit has changed."""

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
                # Nothing was committed yet, so this answer cannot lie: keep the fault for a later read.
                if fault.times:
                    self._faults.add(msgspec.structs.replace(fault, times=1))
            else:
                documents = self._store.before
        elif fault is not None:
            _apply(fault, context, lambda: None)
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
        def commit(really: bool = True) -> Committed:
            done = self._store.commit(request.writes, request.transaction, really=really)
            if really and done.changed:
                self._committed(done.changed)
            return done

        fault = self._write_fault(request)
        if fault is not None and fault.kind != "lie":
            _apply(fault, context, commit)
        done = commit(really=fault is None or fault.kind != "lie")
        return types.CommitResponse.pb()(write_results=done.results, commit_time=done.time)

    def _write_fault(self, request: Any) -> FakeFault | None:
        """Return the fault of a commit, if any. A dry run takes only a refusal, and leaves other faults to writes."""
        if any(map(_may_change, request.writes)):
            return self._faults.take("write")
        next_fault = next((fault for fault in self._faults.waiting() if fault.on == "write"), None)
        refused = next_fault is not None and next_fault.kind == "status" and next_fault.status in (401, 403)
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
            raise Refused(grpc.StatusCode.UNIMPLEMENTED, "this fake does not read earlier versions of documents")
        if request.HasField("new_transaction"):
            return self._store.begin(request.new_transaction)
        return bytes(request.transaction)


def _method(kind: Any, function: Callable[[Any, Any], Any], request: Any) -> grpc.RpcMethodHandler[Any, Any]:
    """Make the handler of a method: a Refused becomes the status of the call. Answers are protobuf messages."""

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


def _apply(fault: FakeFault, context: grpc.ServicerContext, commit: Callable[[], object]) -> None:
    """Apply a fault. Returns only after a delay, if the request is then to be executed and answered as usual."""
    if fault.kind in ("commit-then-fail", "commit-then-hang", "drop"):
        commit()
    if fault.kind in ("hang", "commit-then-hang", "delay"):
        if not _ended(context, fault.seconds if fault.kind == "delay" else None):
            return
        context.abort(grpc.StatusCode.CANCELLED, "the client has gone")
    if fault.kind == "drop":
        context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
    _fail(fault, context)


def _fail(fault: FakeFault, context: grpc.ServicerContext) -> NoReturn:
    code = _CODES.get(fault.status, grpc.StatusCode.UNKNOWN)
    status = Status(code=code.value[0], message=f"an injected fault: {fault.status}")
    if fault.retry_after is not None:
        delay = Duration()
        delay.FromMilliseconds(round(fault.retry_after * 1000))
        detail = AnyMessage()
        detail.Pack(RetryInfo(retry_delay=delay))
        status.details.append(detail)
    context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError("abort raises")


def _ended(context: grpc.ServicerContext, seconds: float | None) -> bool:
    """Wait for the end of the call: the client leaves, or this server stops. Returns False after `seconds`."""
    ended = threading.Event()
    return not context.add_callback(ended.set) or ended.wait(seconds)


def _may_change(write: Any) -> bool:
    empty = write.HasField("update_mask") and not write.update_mask.field_paths and not write.update_transforms
    return not (empty and write.WhichOneof("operation") == "update")
