"""Listeners of the fake Firestore: changes of named documents or of a whole collection, until the client leaves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

import grpc
from google.cloud.firestore_v1 import types

from agent.fakes.firestore.query import selection
from agent.fakes.firestore.store import Refused, Store, named, relative

ListenAnswer = types.ListenResponse.pb()

_NO_CHANGE, _ADD, _REMOVE, _CURRENT, _RESET = range(5)
"""google.firestore.v1.TargetChange.TargetChangeType."""


def listen(store: Store, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
    """Serve the method Listen: report changes of all targets that the client adds, until it leaves."""
    news: SimpleQueue[Any] = SimpleQueue()
    if not context.add_callback(lambda: news.put(None)):
        return
    threading.Thread(target=_receive, args=(requests, news), daemon=True).start()
    store.follow(news.put)
    database, targets = "", dict[int, Callable[[str], bool]]()
    try:
        while (item := news.get()) is not None:
            if isinstance(item, set):
                changes = [
                    _change(store, database, path, target)
                    for target, holds in targets.items()
                    for path in sorted(filter(holds, item))
                ]
                yield from (*changes, _steady(store)) if changes else ()
            elif item.HasField("add_target"):
                database = item.database
                yield from _add_target(store, database, item.add_target, targets)
            elif targets.pop(item.remove_target, None) is not None:
                yield _target_change(_REMOVE, target_ids=[item.remove_target])
    finally:
        store.unfollow(news.put)


def _add_target(store: Store, database: str, wanted: Any, targets: dict[int, Callable[[str], bool]]) -> Iterator[Any]:
    target = wanted.target_id or 1
    documents = store.documents
    if wanted.WhichOneof("target_type") == "documents":
        paths = [relative(name) for name in wanted.documents.documents]
        holds: Callable[[str], bool] = frozenset(paths).__contains__
    else:
        selected = selection(wanted.query.parent, wanted.query.structured_query)
        if selected.limit is not None or selected.offset:
            raise Refused(grpc.StatusCode.UNIMPLEMENTED, "this fake listens to whole collections only")
        holds, paths = selected.holds, list(selected.of(documents))
    targets[target] = holds
    yield _target_change(_ADD, target_ids=[target])
    if wanted.resume_token:
        # This fake does not know what was deleted since the token, so it resets the target and sends everything.
        yield _target_change(_RESET, target_ids=[target])
    for path in paths:
        yield _change(store, database, path, target)
    yield _target_change(_CURRENT, target_ids=[target])
    yield _steady(store)


def _change(store: Store, database: str, path: str, target: int) -> Any:
    """Return the answer for a document as it is now, which may be later than the change that is reported."""
    document = store.documents.get(path)
    if document is None:
        name = f"{database}/documents/{path}"
        deleted = {"document": name, "removed_target_ids": [target], "read_time": store.now()}
        return ListenAnswer(document_delete=deleted)
    return ListenAnswer(document_change={"document": named(document, database), "target_ids": [target]})


def _steady(store: Store) -> Any:
    return _target_change(_NO_CHANGE, resume_token=b"fake", read_time=store.now())


def _target_change(kind: int, **fields: Any) -> Any:
    return ListenAnswer(target_change={"target_change_type": kind, **fields})


def _receive(requests: Iterator[Any], news: SimpleQueue[Any]) -> None:
    try:
        for request in requests:
            news.put(request)
    except Exception:
        # gRPC raises a bare Exception if the client has left.
        news.put(None)
    news.put(None)
