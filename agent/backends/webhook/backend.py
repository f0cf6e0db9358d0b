"""Any flag system behind an HTTP endpoint: a signed POST writes a flag, a signed GET reads its state.

The protocol is docs/webhook.md. An endpoint whose answers have an ETag must honour If-Match: then it compares and sets.
Without `state_url` nothing can be read, and the endpoint's acknowledgement is the only evidence of a write.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import msgspec
from yarl import URL

from agent.backends import settings as config
from agent.backends.address import checked_state_url, checked_url
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
from agent.backends.http import Headers, Http, HttpAnswer, error_of, retry_after
from agent.backends.secret_file import read_secret
from agent.backends.webhook.state import WebhookFlag, is_as_ordered, read_flag, state_of
from agent.errors import (
    BackendError,
    Conflict,
    NotFound,
    Throttled,
    Timeout,
    Transient,
    Unsupported,
    nothing_sent,
)

_REPLAYED = "Idempotent-Replayed"
"""The header of an answer: `true` if the operation had been executed before."""
_ANY = frozenset(range(200, 600))
_AT_ONCE = 8
"""Flags that a health check reads at the same time."""


class WebhookBackend:
    """A backend of one endpoint. Raises ConfigError if an address is not secure or the secret cannot be used.

    The repr shows no secret.
    """

    def __init__(self, settings: config.Webhook) -> None:
        self._url = checked_url("webhook", settings.url)
        self._state_url = checked_state_url(settings.state_url) if settings.state_url is not None else None
        self._secret = read_secret(settings.secret_file).encode()
        self._http = Http("the webhook")
        self._compares = self._state_url is not None
        self._set: dict[FlagRef, FlagState] = {}

    @property
    def capabilities(self) -> Capabilities:
        """Return `cas` native if the last answer had an ETag (assumed at first), none if not or without `state_url`."""
        cas = Cas.NATIVE if self._compares else Cas.NONE
        return Capabilities(cas=cas, percent=True, atomic_ledger=False, push=False, granularity=Granularity.FLAG)

    async def read(self, ref: FlagRef, *, deadline: float) -> FlagState:
        """Read the flag as the contract says. Without `state_url`, return what this process set, if it did."""
        return (await self._find(ref, deadline)).state

    async def snapshot(self, ref: FlagRef, *, deadline: float) -> Snapshot:
        found = await self._find(ref, deadline)
        return Snapshot(flag=ref.flag, environment=ref.environment, state=found.state, identity=found.identity)

    async def apply(self, ref: FlagRef, target: str, *, expect: str, op_id: str, deadline: float) -> WriteResult:
        found = await self._before_write(ref, deadline)
        if found.state.variant == target and self._state_url is not None:
            return WriteResult(Outcome.ALREADY, found.state)
        found.check_variants(ref, target)
        as_set = state_of({"variant": target})
        return await self._write(ref, found, {"operation": "apply", "target": target}, as_set, expect, op_id, deadline)

    async def verify(self, snapshot: Snapshot, target: str, *, op_id: str, deadline: float) -> ReadBack:
        found = await self._find(snapshot.ref, deadline)
        if self._state_url is None:
            return ReadBack(Verdict.UNKNOWN, found.state)
        if found.state.variant == target:
            return ReadBack(Verdict.LANDED, found.state)
        return ReadBack(Verdict.UNTOUCHED if found.identity == snapshot.identity else Verdict.OTHER, found.state)

    async def restore(self, snapshot: Snapshot, *, expect: str, op_id: str, deadline: float) -> WriteResult:
        """Restore the flag as the contract says. Raises Unsupported without `state_url`: nothing can be read then."""
        found = await self._before_write(snapshot.ref, deadline)
        if self._state_url is None:
            raise Unsupported("without state_url it is not known what the flag was or is; set it by your own tools")
        if found.state.version == snapshot.state.version:
            return WriteResult(Outcome.ALREADY, found.state)
        order = {"operation": "restore", "restore": msgspec.Raw(snapshot.state.raw.encode())}
        return await self._write(snapshot.ref, found, order, snapshot.state, expect, op_id, deadline)

    async def set_percent(
        self, ref: FlagRef, variant: str, rest: str, percent: float, *, expect: str, op_id: str, deadline: float
    ) -> WriteResult:
        """Set the percentage as the contract says. Raises Unsupported if the endpoint answers 501."""
        found = await self._before_write(ref, deadline)
        if found.state.percent == percent and self._state_url is not None:
            return WriteResult(Outcome.ALREADY, found.state)
        found.check_variants(ref, variant, rest)
        order = {"operation": "set_percent", "percent": {"variant": variant, "rest": rest, "percent": percent}}
        as_set = state_of({"variant": None, "percent": percent})
        return await self._write(ref, found, order, as_set, expect, op_id, deadline)

    async def health(self, wanted: Sequence[tuple[FlagRef, str]], *, deadline: float) -> BackendHealth:
        """Check that the flags can be read and have their targets; without `state_url`, that the endpoint answers."""
        if self._state_url is None:
            try:
                answer = await self._http.request("OPTIONS", self._url, deadline=deadline, expected=_ANY)
            except Transient as error:
                return BackendHealth((str(error),))
            return BackendHealth(() if answer.status < 500 else (str(error_of("the webhook", answer)),))
        turns = asyncio.Semaphore(_AT_ONCE)
        found = await asyncio.gather(*(self._obstacle(ref, target, turns, deadline) for ref, target in wanted))
        return BackendHealth(tuple(filter(None, found)))

    async def close(self) -> None:
        await self._http.close()

    async def _obstacle(self, ref: FlagRef, target: str, turns: asyncio.Semaphore, deadline: float) -> str | None:
        """Return what would stop this flag's flip."""
        try:
            async with turns:
                (await self._find(ref, deadline)).check_variants(ref, target)
        except Timeout:
            raise
        except BackendError as error:
            return str(error) if ref.flag in str(error) else f"flag {ref.flag!r}: {error}"
        return None

    async def _find(self, ref: FlagRef, deadline: float) -> WebhookFlag:
        """Read the flag; without `state_url`, return what this process set."""
        if self._state_url is None:
            _check_time(deadline)
            return WebhookFlag(self._set.get(ref, state_of({"variant": None})))
        flag, environment = (quote(word, safe="") for word in ref)
        url = URL(self._state_url.replace("{flag}", flag).replace("{environment}", environment), encoded=True)
        headers = self._signature(f"GET {url.raw_path_qs}".encode())
        try:
            answer = await self._http.request("GET", str(url), deadline=deadline, headers=headers)
        except NotFound as error:
            raise NotFound(f"flag {ref.flag!r}, environment {ref.environment!r}: {error}") from None
        return self._found(answer)

    def _found(self, answer: HttpAnswer) -> WebhookFlag:
        flag = read_flag(answer)
        self._compares = flag.etag is not None
        return flag

    async def _before_write(self, ref: FlagRef, deadline: float) -> WebhookFlag:
        """Read the flag before a write. A read without an answer raises Unsent, because nothing was written."""
        _check_time(deadline)
        with nothing_sent():
            return await self._find(ref, deadline)

    async def _write(
        self,
        ref: FlagRef,
        found: WebhookFlag,
        order: dict[str, Any],
        as_set: FlagState,
        expect: str,
        op_id: str,
        deadline: float,
    ) -> WriteResult:
        """Post an order. `as_set` is the state of the flag after it, as far as this process knows."""
        if found.state.version != expect:
            return WriteResult(Outcome.CONFLICT, found.state, f"version is {found.state.version}, expected {expect}")
        where = {"flag": ref.flag, "environment": ref.environment, "op_id": op_id}
        known = None if self._state_url is None else msgspec.Raw(found.state.raw.encode())
        body = msgspec.json.encode({**order, **where, "expect": known})
        headers = {"Content-Type": "application/json", "Idempotency-Key": op_id, **self._signature(body)}
        if found.etag is not None:
            headers["If-Match"] = found.etag
        try:
            answer = await self._post(body, headers, deadline)
        except Conflict as error:
            return WriteResult(Outcome.CONFLICT, None, str(error))
        outcome = Outcome.DUPLICATE if answer.headers.get(_REPLAYED, "").lower() == "true" else Outcome.APPLIED
        if self._state_url is None:
            self._set[ref] = as_set
            return WriteResult(outcome, as_set)
        state = await self._after_write(ref, answer, deadline)
        if state is not None and not is_as_ordered(state, as_set):
            # The read-back decides who wrote this state, and whether ours lands later.
            return WriteResult(outcome, None, "acknowledged, but the flag is not as ordered")
        return WriteResult(outcome, state)

    async def _post(self, body: bytes, headers: Headers, deadline: float) -> HttpAnswer:
        """Post an order. A 501 is Unsupported; a 503 is Throttled without `state_url`, else Failed."""
        answer = await self._http.request(
            "POST", self._url, deadline=deadline, body=body, headers=headers, expected=frozenset({501, 503})
        )
        if answer.status == 501:
            raise Unsupported(str(error_of("the webhook", answer)))
        if answer.status == 503:
            if self._state_url is None:
                # The protocol says that an endpoint without `state_url` has done nothing if it answers 503.
                raise Throttled(str(error_of("the webhook", answer)), retry_after(answer.headers))
            raise error_of("the webhook", answer)
        return answer

    async def _after_write(self, ref: FlagRef, answer: HttpAnswer, deadline: float) -> FlagState | None:
        """Return the flag in the acknowledgement, else as a read shows it; None if neither succeeds."""
        try:
            return self._found(answer).state if answer.body.strip() else (await self._find(ref, deadline)).state
        except BackendError:
            return None

    def _signature(self, content: bytes) -> dict[str, str]:
        """Return the headers that sign `content` together with the time."""
        stamp = str(int(time.time()))
        digest = hmac.new(self._secret, stamp.encode() + b"." + content, hashlib.sha256).hexdigest()
        return {"X-Flipback-Timestamp": stamp, "X-Flipback-Signature": f"sha256={digest}"}

    def __repr__(self) -> str:
        return f"Webhook({URL(self._url).host}, {'no state' if self._state_url is None else 'with state'})"


def _check_time(deadline: float) -> None:
    if time.monotonic() >= deadline:
        raise Timeout("the webhook: the time was up before anything was sent")
