"""Whatever a flag system answers, a backend returns a state or raises a BackendError. Another exception would end the
executor, for the flags of all backends.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from agent.backends import settings
from agent.backends.contract import FlagBackend, FlagState, Snapshot, WriteResult
from agent.backends.firestore import connection as firestore_connection
from agent.backends.firestore.backend import FirestoreBackend
from agent.backends.firestore.document import Document, Value, value
from agent.backends.flagd import backend as flagd_file
from agent.backends.flagd.backend import FlagdFileBackend
from agent.backends.http import Http, retry_after
from agent.backends.remote_config.backend import RemoteConfigBackend
from agent.backends.rtdb.backend import RealtimeDatabaseBackend
from agent.backends.unleash.backend import UnleashBackend
from agent.backends.webhook.backend import WebhookBackend
from agent.errors import BackendError, Throttled
from streams.settings import Seconds
from tests.support.garbage import HEADERS, STATUS, bodies, damaged, junk
from tests.support.places import REF

MOST_WORDS = 2000
"""The longest message in characters, whatever the data is."""

DEFINITION = {
    "state": "ENABLED",
    "variants": {"on": True, "off": False},
    "defaultVariant": "on",
    "targeting": {"fractional": [["on", 10], ["off", 90]]},
    "metadata": {"flipback_op": "flip 1"},
}
STRATEGY = {"id": "1", "name": "flexibleRollout", "constraints": [], "parameters": {"rollout": "10"}}
FEATURE = {"environments": [{"name": "production", "enabled": True, "strategies": [STRATEGY]}], "dependencies": []}
PARAMETER = {"defaultValue": {"value": "true"}, "conditionalValues": {"c": {"value": "false"}}, "valueType": "BOOLEAN"}
TEMPLATE = {
    "parameters": {"new_checkout": PARAMETER},
    "parameterGroups": {"g": {"parameters": {"other": PARAMETER}}},
    "conditions": [{"name": "c", "expression": "percent('x') <= 10"}],
    "version": {"versionNumber": "3", "description": "flipback flip 1: x"},
}

SOUND: dict[str, list[Any]] = {
    "webhook": [{"variant": "on", "percent": 10.0, "version": 3, "variants": ["on", "off"]}],
    "rtdb": [DEFINITION, {**DEFINITION, "variants": [True, False]}],
    "remote-config": [TEMPLATE, TEMPLATE, {"versions": [{"versionNumber": "3", "description": "x"}]}],
    "admin of unleash": [
        FEATURE,
        {"events": [{"id": 7}]},
        {"permissions": [{"permission": "ADMIN"}]},
        [{"environment": "production", "changeRequestEnabled": True}],
    ],
}
"""Valid answers of each kind of system."""


def make(kind: str, directory: Path) -> FlagBackend:
    secret = directory / "secret"
    secret.write_text("user:secret")
    secret.chmod(0o600)
    match kind:
        case "webhook":
            url = "http://127.0.0.1:1"
            return WebhookBackend(
                settings.Webhook(url=url, state_url=f"{url}/{{environment}}/{{flag}}", secret_file=secret)
            )
        case "rtdb":
            return RealtimeDatabaseBackend(
                settings.RealtimeDatabase(url="https://x-default-rtdb.firebaseio.com", emulator="127.0.0.1:1")
            )
        case "remote-config":
            return RemoteConfigBackend(
                settings.RemoteConfig(project="p", emulator="127.0.0.1:1", publish_every=Seconds(0))
            )
        case _:
            return UnleashBackend(settings.Unleash(url="http://127.0.0.1:1", token_file=secret))


class Answers:
    """Replaces a session of aiohttp; each request gets the next answer of `draw`."""

    def __init__(self, draw: Callable[[], tuple[int, dict[str, str], bytes]]) -> None:
        self._draw = draw
        self.status, self.body = 0, b""
        self.headers: Mapping[str, str] = {}

    def request(self, *_: object, headers: dict[str, str], **__: object) -> AbstractAsyncContextManager[Any]:
        for name, content in headers.items():
            # Raises for text that cannot be encoded, as aiohttp does.
            f"{name}{content}".encode()
        self.status, self.headers, self.body = self._draw()
        return self

    async def __aenter__(self) -> Any:
        answer = Answers(self._draw)
        answer.status, answer.headers, answer.body = self.status, CIMultiDict(self.headers), self.body
        return answer

    async def __aexit__(self, *_: object) -> None:
        pass

    async def read(self) -> bytes:
        return self.body


async def try_everything(backend: FlagBackend, held: Snapshot | None) -> None:
    """Each operation returns a result that can be stored, or raises a BackendError with a short message."""
    got: list[Snapshot] = [] if held is None else [held]

    async def attempt(call: Awaitable[Any]) -> None:
        try:
            result = await call
        except BackendError as error:
            assert 0 < len(str(error)) < MOST_WORDS, str(error)[:MOST_WORDS]
            str(error).encode()
            return
        if isinstance(result, Snapshot):
            got.append(result)
        told = result.state if isinstance(result, WriteResult) else result
        if isinstance(told, FlagState | Snapshot):
            # A snapshot that cannot be written into the ledger would stop the flip.
            assert msgspec.json.decode(msgspec.json.encode(told), type=type(told)) == told
        for words in (*getattr(result, "problems", ()), *getattr(result, "doubts", ()), getattr(result, "detail", "")):
            assert len(words) < MOST_WORDS
            words.encode()

    end = time.monotonic() + 60
    await attempt(backend.read(REF, deadline=end))
    await attempt(backend.snapshot(REF, deadline=end))
    for snapshot in got[-1:]:
        expect = snapshot.state.version
        await attempt(backend.apply(REF, "off", expect=expect, op_id="1", deadline=end))
        await attempt(backend.verify(snapshot, "off", op_id="1", deadline=end))
        await attempt(backend.restore(snapshot, expect=expect, op_id="1", deadline=end))
        await attempt(backend.set_percent(REF, "on", "off", 5, expect=expect, op_id="1", deadline=end))
    await attempt(backend.health([(REF, "off")], deadline=end))


thorough = hypothesis_settings(
    max_examples=150,
    deadline=None,
    # Without shrinking: it takes minutes for megabytes of brackets, and such examples are easy to understand.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.mark.parametrize("kind", SOUND)
@thorough
@given(data=st.data())
def test_no_answer_over_http_raises_anything_but_a_backend_error(
    kind: str, tmp_path: Path, data: st.DataObject
) -> None:
    answers = st.tuples(STATUS, HEADERS, bodies(SOUND[kind]))
    sound = st.tuples(st.just(200), st.just({"ETag": '"1"'}), st.sampled_from(SOUND[kind]).map(msgspec.json.encode))
    # A damaged answer may also come late, after some valid ones.
    well = data.draw(st.integers(0, 6))

    def draw() -> tuple[int, dict[str, str], bytes]:
        nonlocal well
        well -= 1
        answer: tuple[int, dict[str, str], bytes] = data.draw(sound if well >= 0 else answers)
        return answer

    async def run() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Http, "session", lambda _: Answers(draw))
            await try_everything(make(kind, tmp_path), None)

    asyncio.run(run())


@thorough
@given(
    content=bodies([{"flags": {REF.flag: DEFINITION, "other": DEFINITION}, "metadata": {"team": "a"}}]),
    again=bodies([{"flags": {REF.flag: DEFINITION}}]),
)
def test_no_flagd_file_raises_anything_but_a_backend_error(tmp_path: Path, content: bytes, again: bytes) -> None:
    path = tmp_path / "flags.json"

    async def run() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(flagd_file, "_SETTLE_S", 0.0)
            backend = FlagdFileBackend(settings.FlagdFile(path=path))
            held = None
            for text in (again, content):
                path.write_bytes(text)
                await try_everything(backend, held)
                try:
                    held = await backend.snapshot(REF, deadline=time.monotonic() + 60)
                except BackendError:
                    held = None
            await backend.close()

    asyncio.run(run())


def documents() -> st.SearchStrategy[Any]:
    """A flag's document with fields of any of Firestore's kinds."""
    kinds = st.one_of(
        st.builds(lambda seconds, nanos: Value(timestamp_value={"seconds": seconds, "nanos": nanos}),
                  st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1)),
        st.floats().map(lambda number: Value(double_value=number)),
        st.binary(max_size=3).map(lambda content: Value(bytes_value=content)),
        st.just(Value()),
        st.just(Value(geo_point_value={"latitude": 1.0})),
        st.just(Value(reference_value="projects/p")),
        junk.filter(_holds).map(value),
    )  # fmt: skip

    def of(fields: dict[str, Any], odd: dict[str, Any], seconds: int) -> Any:
        document = Document(name=f"x/{REF.flag}", update_time={"seconds": seconds})
        for name, content in {**{name: value(content) for name, content in fields.items()}, **odd}.items():
            document.fields[name].CopyFrom(content)
        return document

    names = st.sampled_from([*DEFINITION, "x"])
    plain = damaged({**DEFINITION, "targeting": '{"fractional": [["on", 10], ["off", 90]]}'})
    fields = plain.filter(lambda found: isinstance(found, dict) and _holds(found))
    return st.builds(of, fields, st.dictionaries(names, kinds, max_size=2), st.integers(-(2**63), 2**63 - 1))


def _holds(content: object) -> bool:
    try:
        value(content).SerializeToString()
    except Exception:
        return False
    return True


@thorough
@given(data=st.data())
def test_no_document_raises_anything_but_a_backend_error(data: st.DataObject) -> None:
    async def run() -> None:
        backend = FirestoreBackend(settings.Firestore(project="p", emulator="127.0.0.1:1"))

        def read(names: list[str], **_: object) -> dict[str, Any]:
            return {name: data.draw(documents()) for name in names if data.draw(st.booleans())}

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("agent.backends.firestore.backend._PAUSES_S", (0.0, 0.0))
            patch.setattr(backend._connection, "read", read)
            patch.setattr(backend._connection, "commit", lambda *_, **__: [])
            # In this thread, because hypothesis draws in one thread only.
            patch.setattr(backend._calls, "_call", lambda work, metadata: _now(work, metadata))
            await try_everything(backend, None)
        await backend.close()

    asyncio.run(run())


async def _now(work: Callable[[Any], Any], metadata: Any) -> Any:
    return work(metadata)


@given(st.binary(max_size=30), st.integers(0, 16))
def test_no_details_of_a_refusal_raise_anything(details: bytes, code: int) -> None:
    class Refusal:
        def code(self) -> grpc.StatusCode:
            return grpc.StatusCode.RESOURCE_EXHAUSTED

        def details(self) -> str:
            return "x"

        def trailing_metadata(self) -> list[tuple[str, bytes]]:
            return [("grpc-status-details-bin", bytes([8, code]) + details)]

    error = firestore_connection._error_of("x", Refusal())
    assert isinstance(error, Throttled)
    assert error.retry_after is None or error.retry_after >= 0


@given(st.text(max_size=30) | st.sampled_from(["²", "9" * 5000, "Mon, 99 Jan 99999999999 0:0:0 GMT", "\udce9"]))
def test_any_retry_after_is_seconds_or_nothing(text: str) -> None:
    seconds = retry_after({"Retry-After": text})
    assert seconds is None or 0 <= seconds < 10**10
