"""Cloud Firestore: a document for each flag. Firestore compares and sets, and records each write in the same commit.

A write names the update time of the document that it read, and creates the record of its operation in the same commit.
Both happen or neither does, so the record shows whether an operation landed. The record, `OPERATIONS/OPERATION`, holds
`flag`, `environment`, `previous` and `new` (definitions as JSON text), `at` (time of the commit) and `by`.
`agent.backends.firestore.document` says how a definition is stored.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from agent.backends import settings as config
from agent.backends.address import emulator_address
from agent.backends.contract import (
    BackendHealth,
    Capabilities,
    Cas,
    FlagRef,
    FlagState,
    Granularity,
    Outcome,
    ReadBack,
    Snapshot,
    Verdict,
    WriteResult,
)
from agent.backends.firestore.calls import AuthorizedCalls
from agent.backends.firestore.connection import SCOPES, FirestoreConnection, Metadata
from agent.backends.firestore.document import (
    Definition,
    Document,
    all_to,
    changes,
    definition,
    percent_to,
    record,
    state,
    update,
    version,
)
from agent.backends.firestore.listen import follow
from agent.backends.google import GoogleToken, refuse_emulators
from agent.errors import Auth, BackendError, ConfigError, Conflict, Invalid, NotFound, Permission, nothing_sent

_PAUSES_S = (0.0, 0.01, 0.03)
"""Seconds before each attempt to write; another attempt follows if somebody else wrote the document in between."""
_TRY_WRITING_EVERY_S = 600.0
"""Seconds until the dry run is repeated after a success. Health checks come every ten seconds."""

_EARLIER_S = 0.05
"""Seconds before the deadline at which a write gives up, so that its error still reaches the caller."""


class _Copy(NamedTuple):
    """A flag's document as it was read. `done`: the operation that was asked for has a record."""

    name: str
    definition: Definition
    update_time: Any
    done: bool

    @property
    def identity(self) -> str:
        return f"{self.update_time.seconds}.{self.update_time.nanos:09}"


class FirestoreBackend:
    """A backend of one collection. It ignores the environment: each has a collection or database of its own."""

    capabilities = Capabilities(
        cas=Cas.NATIVE,
        percent=True,
        atomic_ledger=True,
        push=True,
        granularity=Granularity.FLAG,
        read_every=15.0,
    )

    def __init__(self, settings: config.Firestore) -> None:
        _check_collection("collection", settings.collection)
        _check_collection("operations", settings.operations)
        token: GoogleToken | None = None
        if settings.emulator is None:
            refuse_emulators()
            token = GoogleToken(settings.credentials, SCOPES)
        else:
            emulator_address(settings.emulator)
        self._collection = settings.collection
        self._operations = settings.operations
        self._connection = FirestoreConnection(settings)
        self._calls = AuthorizedCalls(self._connection.name, token)
        self._try_writing_at = 0.0
        self._by = f"{socket.gethostname()}:{os.getpid()}"

    async def read(self, ref: FlagRef, *, deadline: float) -> FlagState:
        return (await self.snapshot(ref, deadline=deadline)).state

    async def snapshot(self, ref: FlagRef, *, deadline: float) -> Snapshot:
        copy = await self._calls.run(partial(self._find, ref, None, deadline), deadline)
        return Snapshot(
            flag=ref.flag, environment=ref.environment, state=state(copy.definition), identity=copy.identity
        )

    async def apply(self, ref: FlagRef, target: str, *, expect: str, op_id: str, deadline: float) -> WriteResult:
        write = partial(self._write, ref, lambda old: all_to(old, target), expect, op_id, op_id, deadline)
        return await self._calls.run(write, deadline)

    async def verify(self, snapshot: Snapshot, target: str, *, op_id: str, deadline: float) -> ReadBack:
        written = version(all_to(json.loads(snapshot.state.raw), target))
        copy = await self._calls.run(partial(self._find, snapshot.ref, op_id, deadline), deadline)
        found = state(copy.definition)
        # Without a record the operation wrote nothing, though others may have written the document.
        wanted, verdict = (written, Verdict.LANDED) if copy.done else (snapshot.state.version, Verdict.UNTOUCHED)
        return ReadBack(verdict if found.version == wanted else Verdict.OTHER, found)

    async def restore(self, snapshot: Snapshot, *, expect: str, op_id: str, deadline: float) -> WriteResult:
        before: Definition = json.loads(snapshot.state.raw)
        write = partial(self._write, snapshot.ref, lambda _: before, expect, op_id, None, deadline)
        return await self._calls.run(write, deadline)

    async def set_percent(
        self, ref: FlagRef, variant: str, rest: str, percent: float, *, expect: str, op_id: str, deadline: float
    ) -> WriteResult:
        def edit(old: Definition) -> Definition:
            return percent_to(old, variant, rest, percent)

        return await self._calls.run(partial(self._write, ref, edit, expect, op_id, None, deadline), deadline)

    async def health(self, wanted: Sequence[tuple[FlagRef, str]], *, deadline: float) -> BackendHealth:
        try:
            return await self._calls.run(partial(self._health, wanted, deadline), deadline)
        except Auth as error:
            return BackendHealth((str(error),))

    async def follow(self, refs: Sequence[FlagRef], changed: Callable[[FlagRef], None]) -> None:
        names: dict[str, list[FlagRef]] = {}
        for ref in refs:
            names.setdefault(self._connection.path(self._collection, ref.flag), []).append(ref)
        await follow(self._connection, self._calls.authorization, names, changed)

    async def close(self) -> None:
        await self._calls.close()
        self._connection.close()

    def _find(self, ref: FlagRef, entry: str | None, deadline: float, metadata: Metadata) -> _Copy:
        """Read the flag's document and, as of the same time, whether the record `entry` of an operation exists."""
        name = self._connection.path(self._collection, ref.flag)
        record_name = None if entry is None else self._connection.path(self._operations, entry)
        names = [name] if record_name is None else [name, record_name]
        found = self._connection.read(names, deadline=deadline, metadata=metadata)
        return self._copy(ref, found, done=record_name in found)

    def _copy(self, ref: FlagRef, found: Mapping[str, Any], *, done: bool = False) -> _Copy:
        name = self._connection.path(self._collection, ref.flag)
        if name not in found:
            raise NotFound(f"{self._connection.name}: there is no document {self._collection}/{ref.flag}")
        return _Copy(name, definition(found[name]), found[name].update_time, done)

    def _write(
        self,
        ref: FlagRef,
        edit: Callable[[Definition], Definition],
        expect: str,
        op_id: str,
        entry: str | None,
        deadline: float,
        metadata: Metadata,
    ) -> WriteResult:
        """Write the edited definition and the record `entry`, unless that record exists.

        Without `entry`, the record's name is made of the operation and the copy that is replaced: a person may restore
        one definition several times, but replaces one copy only once.

        This gives up a little before the deadline, so that its error still reaches the caller.
        """
        refusal = ""
        deadline -= min(_EARLIER_S, max(0.0, deadline - time.monotonic()) / 10)
        for pause in _PAUSES_S:
            time.sleep(pause)
            # Nothing was written before this read: it is the first one, or follows a commit that was refused.
            with nothing_sent():
                copy = self._find(ref, entry, deadline, metadata)
            old, found = copy.definition, state(copy.definition)
            if copy.done:
                return WriteResult(Outcome.DUPLICATE, found, f"the record {self._operations}/{entry} exists")
            try:
                new = edit(old)
            except Invalid as error:
                raise Invalid(f"{self._connection.name}: {self._collection}/{ref.flag}: {error}") from error
            if new == old:
                return WriteResult(Outcome.ALREADY, found)
            names, changed = changes(old, new)
            if found.version != expect or not names:
                return WriteResult(Outcome.CONFLICT, found, f"version is {found.version}, expected {expect}")
            entry = entry or f"{op_id}.{copy.identity}"
            try:
                recorded = record(self._connection.path(self._operations, entry), ref, old, new, self._by)
                writes = [update(copy.name, copy.update_time, names, changed), recorded]
                self._connection.commit(writes, deadline=deadline, metadata=metadata)
            except Conflict as error:
                # Somebody wrote the document or did this operation, or the answer is wrong: read again.
                refusal = str(error)
                continue
            return WriteResult(Outcome.APPLIED, state(new))
        raise Conflict(f"the document stayed contended: {refusal}")

    def _health(self, wanted: Sequence[tuple[FlagRef, str]], deadline: float, metadata: Metadata) -> BackendHealth:
        problems: list[str] = []
        copies: list[_Copy] = []
        # The records must be readable too; a record with this name need not exist.
        names = {self._connection.path(self._operations, "health")}
        for ref, _ in wanted:
            with suppress(Invalid):
                names.add(self._connection.path(self._collection, ref.flag))
        try:
            found = self._connection.read(sorted(names), deadline=deadline, metadata=metadata)
        except Auth:
            raise
        except BackendError as error:
            return BackendHealth((str(error),))
        for ref, target in wanted:
            try:
                copy = self._copy(ref, found)
                all_to(copy.definition, target)
                copies.append(copy)
            except (NotFound, Invalid) as error:
                problems.append(f"flag {ref.flag}: {error}")
        if copies and time.monotonic() >= self._try_writing_at:
            problems += self._write_problems(copies[0], deadline, metadata)
        return BackendHealth(tuple(problems))

    def _write_problems(self, copy: _Copy, deadline: float, metadata: Metadata) -> list[str]:
        """Return why flags cannot be written, by a commit that must be refused: no fields, on a document of 1970.

        A conflict is the good answer: nothing was written, and the next trial is postponed.
        """
        must_fail = update(copy.name, type(copy.update_time)(seconds=1), [], Document())
        try:
            self._connection.commit([must_fail], deadline=deadline, metadata=metadata)
        except Auth:
            # The caller tries once more with a renewed token.
            raise
        except Permission as error:
            return [f"flags can be read, but not written: {error}"]
        except Conflict:
            self._try_writing_at = time.monotonic() + _TRY_WRITING_EVERY_S
            return []
        except BackendError as error:
            return [f"whether flags can be written is not known: {error}"]
        return [
            f"{self._connection.name} takes writes whose precondition does not hold, as some emulators do; "
            "a flip there could undo what a person did"
        ]


def _check_collection(setting: str, path: str) -> None:
    parts = path.split("/")
    if len(parts) % 2 == 0 or not all(parts):
        raise ConfigError(
            f"{setting} {path!r} is no path of a collection: expected NAME, or COLLECTION/DOCUMENT/NAME and so on"
        )
