"""The queries that the fake Firestore supports: whole collections in the order of names, with an offset and a limit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import grpc
from google.cloud.firestore_v1 import types

from agent.fakes.firestore.store import Refused


class Selection(NamedTuple):
    """The documents that are directly in the collection of this path."""

    collection: str
    offset: int
    limit: int | None

    def holds(self, path: str) -> bool:
        return path.rpartition("/")[0] == self.collection

    def of(self, documents: Mapping[str, Any]) -> dict[str, Any]:
        paths = sorted(filter(self.holds, documents), key=str.encode)
        end = None if self.limit is None else self.offset + self.limit
        return {path: documents[path] for path in paths[self.offset : end]}


def selection(parent: str, query: Any) -> Selection:
    """Return the selection of a StructuredQuery. Raises Refused for a query that this fake does not support."""
    by_name = all(
        order.field.field_path == "__name__" and order.direction != types.StructuredQuery.Direction.DESCENDING
        for order in query.order_by
    )
    others = [name for name in ("where", "select", "start_at", "end_at", "find_nearest") if query.HasField(name)]
    if len(query.from_) != 1 or query.from_[0].all_descendants or not by_name or others:
        raise Refused(
            grpc.StatusCode.UNIMPLEMENTED,
            "this fake answers whole collections in the order of their names, with offset and limit; "
            f"not {', '.join(others) or 'this query'}",
        )
    limit = query.limit.value if query.HasField("limit") else None
    return Selection(collection_path(parent, query.from_[0].collection_id), query.offset, limit)


def collection_path(parent: str, collection: str) -> str:
    """Return the path of a collection below `projects/P/databases/D/documents`, the parent of the top collections."""
    return f"{parent.partition('/documents')[2]}/{collection}".removeprefix("/")
