"""The webhook beyond the contract: signatures, endpoints that can do less, and writes without a read-back."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from agent.backends import settings
from agent.backends.contract import Cas, FlagBackend, FlagRef, Outcome, Verdict
from agent.backends.webhook.backend import WebhookBackend
from agent.errors import Auth, ConfigError, Invalid, NotFound, Throttled, Transient, Unsent, Unsupported
from agent.events import cloudevents as events
from agent.fakes.server import listen
from tests.contract.test_backend_faults import Desk
from tests.support.places import ABSENT, REF
from tests.support.places.webhook import WebhookPlace

OP = "0b5c9a2e-6a0d-5b7e-9a35-1a0b6c1d2e3f"
SECRET = "a secret of one line"  # noqa: S105 - of these tests
Answering = Callable[[web.Request], web.Response]


def soon() -> float:
    return time.monotonic() + 60


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n")
    path.chmod(0o600)
    return path


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[WebhookPlace]:
    made = WebhookPlace(tmp_path)
    await made.start()
    try:
        yield made
    finally:
        await made.backend.close()
        await made.stop()


@pytest.fixture
async def blind(place: WebhookPlace) -> AsyncIterator[FlagBackend]:
    backend = place.blind()
    yield backend
    await backend.close()


@asynccontextmanager
async def endpoint(
    secret_file: Path, answering: Answering, state: str | None = "/{environment}/{flag}"
) -> AsyncIterator[tuple[WebhookBackend, list[tuple[web.Request, bytes]]]]:
    """A backend of an endpoint with these answers, and the requests that it received with their bodies."""
    seen: list[tuple[web.Request, bytes]] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append((request, await request.read()))
        return answering(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner, port = await listen(app, 0)
    base = f"http://127.0.0.1:{port}"
    backend = WebhookBackend(
        settings.Webhook(
            url=f"{base}/set?by=flipback", state_url=state and f"{base}{state}?of=a%20b", secret_file=secret_file
        )
    )
    try:
        yield backend, seen
    finally:
        await backend.close()
        await runner.cleanup()


def told(body: object, etag: str | None = None) -> Answering:
    """Answer every GET with `body`, and acknowledge every other request."""
    headers = {} if etag is None else {"ETag": etag}
    return lambda request: web.json_response(body, headers=headers) if request.method == "GET" else web.Response()


def is_signed(request: web.Request, content: bytes) -> bool:
    stamp = request.headers["X-Flipback-Timestamp"]
    digest = hmac.digest(SECRET.encode(), f"{stamp}.".encode() + content, hashlib.sha256).hex()
    return request.headers["X-Flipback-Signature"] == f"sha256={digest}" and abs(time.time() - int(stamp)) < 60


async def test_a_write_is_signed_and_says_what_it_rests_on(secret_file: Path) -> None:
    async with endpoint(secret_file, told({"variant": "on", "version": 7, "owner": "shop"}, '"e7"')) as (backend, seen):
        version = (await backend.read(REF, deadline=soon())).version
        await backend.apply(REF, "off", expect=version, op_id=OP, deadline=soon())
    ((request, body),) = [one for one in seen if one[0].method == "POST"]
    assert is_signed(request, body)
    assert request.path_qs == "/set?by=flipback"
    assert request.headers["Content-Type"] == "application/json"
    assert (request.headers["Idempotency-Key"], request.headers["If-Match"]) == (OP, '"e7"')
    assert json.loads(body) == {
        "operation": "apply",
        "target": "off",
        "flag": "new-checkout",
        "environment": "production",
        "op_id": OP,
        "expect": {"variant": "on", "owner": "shop"},
    }


async def test_a_read_is_signed_over_the_path_as_it_was_sent(secret_file: Path) -> None:
    async with endpoint(secret_file, told({"variant": "on"})) as (backend, seen):
        await backend.read(FlagRef("a/b {ü}", "prod eu"), deadline=soon())
    ((request, _),) = seen
    assert request.raw_path == "/prod%20eu/a%2Fb%20%7B%C3%BC%7D?of=a%20b"
    assert is_signed(request, f"GET {request.raw_path}".encode())


async def test_another_secret_is_not_accepted_and_never_shown(place: WebhookPlace, secret_file: Path) -> None:
    backend = WebhookBackend(
        settings.Webhook(
            url=f"{place.url}/set", state_url=f"{place.url}/{{environment}}/{{flag}}", secret_file=secret_file
        )
    )
    try:
        with pytest.raises(Auth) as refused:
            await backend.read(REF, deadline=soon())
    finally:
        await backend.close()
    assert SECRET not in f"{refused.value!r} {backend!r}"


@pytest.mark.parametrize(("etag", "cas"), [('"strong"', Cas.NATIVE), ('W/"weak"', Cas.NONE), (None, Cas.NONE)], ids=str)
async def test_an_endpoint_compares_where_its_answers_carry_a_strong_etag(
    secret_file: Path, etag: str | None, cas: Cas
) -> None:
    async with endpoint(secret_file, told({"variant": "on"}, etag)) as (backend, seen):
        version = (await backend.read(REF, deadline=soon())).version
        assert backend.capabilities.cas is cas
        await backend.apply(REF, "off", expect=version, op_id=OP, deadline=soon())
    posted = next(request for request, _ in seen if request.method == "POST")
    assert ("If-Match" in posted.headers) is (cas is Cas.NATIVE)


async def test_without_an_etag_the_state_is_compared_right_before_the_write(secret_file: Path) -> None:
    async with endpoint(secret_file, told({"variant": "on"})) as (backend, seen):
        done = await backend.apply(REF, "off", expect="stale", op_id=OP, deadline=soon())
    assert done.outcome is Outcome.CONFLICT
    assert [request.method for request, _ in seen] == ["GET"]


@pytest.mark.parametrize("etag", [True, False])
async def test_a_flag_that_was_changed_and_changed_back_is_not_taken_for_untouched(
    secret_file: Path, etag: bool
) -> None:
    version = 1

    def answer(request: web.Request) -> web.Response:
        body = {"variant": "on"} if etag else {"variant": "on", "version": version}
        return web.json_response(body, headers={"ETag": f'"{version}"'} if etag else {})

    async with endpoint(secret_file, answer) as (backend, _):
        snap = await backend.snapshot(REF, deadline=soon())
        assert (await backend.verify(snap, "off", op_id=OP, deadline=soon())).verdict is Verdict.UNTOUCHED
        version = 3
        found = await backend.verify(snap, "off", op_id=OP, deadline=soon())
    assert found.verdict is Verdict.OTHER
    assert found.state == snap.state


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"variant": 1}', b'{"variant": null, "percent": 101}', b"\xff", b'{"variant":']
)
async def test_an_answer_that_is_no_state_is_invalid(secret_file: Path, body: bytes) -> None:
    async with endpoint(secret_file, lambda _: web.Response(body=body)) as (backend, _):
        with pytest.raises(Invalid, match=r"docs/webhook\.md"):
            await backend.read(REF, deadline=soon())


async def test_a_read_that_fails_before_the_write_says_that_nothing_was_written(secret_file: Path) -> None:
    async with endpoint(secret_file, lambda _: web.Response(status=503)) as (backend, seen):
        with pytest.raises(Unsent, match="nothing was written"):
            await backend.apply(REF, "off", expect="any", op_id=OP, deadline=soon())
    assert [request.method for request, _ in seen] == ["GET"]


async def test_an_operation_that_the_endpoint_does_not_have_is_unsupported(secret_file: Path) -> None:
    def answer(request: web.Request) -> web.Response:
        return web.json_response({"variant": "on"}) if request.method == "GET" else web.Response(status=501)

    async with endpoint(secret_file, answer) as (backend, _):
        version = (await backend.read(REF, deadline=soon())).version
        with pytest.raises(Unsupported):
            await backend.set_percent(REF, "on", "off", 10, expect=version, op_id=OP, deadline=soon())


async def test_an_operation_that_was_carried_out_before_is_a_duplicate(place: WebhookPlace) -> None:
    version = (await place.backend.read(REF, deadline=soon())).version
    await place.backend.apply(REF, "off", expect=version, op_id=OP, deadline=soon())
    await place.edit("on")
    done = await place.backend.apply(REF, "off", expect=version, op_id=OP, deadline=soon())
    assert done.outcome is Outcome.DUPLICATE
    assert (await place.backend.read(REF, deadline=soon())).variant == "on"


async def test_a_redirect_is_not_followed(secret_file: Path) -> None:
    async with endpoint(
        secret_file, lambda _: web.Response(status=307, headers={"Location": "http://127.0.0.1:1/"})
    ) as (backend, seen):
        with pytest.raises(Invalid):
            await backend.read(REF, deadline=soon())
    assert len(seen) == 1


async def test_without_a_state_a_write_is_acknowledged_and_never_verified(
    place: WebhookPlace, blind: FlagBackend
) -> None:
    assert blind.capabilities.cas is Cas.NONE
    snap = await blind.snapshot(REF, deadline=soon())
    assert (snap.state.variant, snap.state.percent) == (None, None)
    done = await blind.apply(REF, "off", expect=snap.state.version, op_id=OP, deadline=soon())
    assert done.outcome is Outcome.APPLIED
    assert done.state == await blind.read(REF, deadline=soon())
    assert done.state is not None
    assert (done.state.variant, done.state.version != snap.state.version) == ("off", True)
    assert (await blind.verify(snap, "off", op_id=OP, deadline=soon())).verdict is Verdict.UNKNOWN
    assert (await place.backend.read(REF, deadline=soon())).variant == "off"
    with pytest.raises(Unsupported):
        await blind.restore(snap, expect=done.state.version, op_id=OP, deadline=soon())


async def test_without_a_state_a_flip_ends_as_unverified(
    place: WebhookPlace, blind: FlagBackend, tmp_path: Path
) -> None:
    await place.backend.close()
    place.backend = blind
    desk = Desk(place, tmp_path / "ledger")
    raw = await desk.command()
    result = await desk.execute(raw)
    desk.executor.close()
    assert (result.outcome, result.final) == (Outcome.APPLIED, True)
    kinds = [event.type for event in desk.told]
    assert kinds[-2:] == [events.FLAG_WRITTEN, events.FLAG_UNVERIFIED]
    assert await place.writes() == 1


async def test_without_a_state_nothing_is_known_to_be_safe_before_it_was_set(
    place: WebhookPlace, blind: FlagBackend
) -> None:
    await place.edit("off")
    snap = await blind.snapshot(REF, deadline=soon())
    assert snap.state.variant is None
    await blind.apply(REF, "off", expect=snap.state.version, op_id=OP, deadline=soon())
    assert await place.writes() == 1


async def test_without_a_state_503_means_that_nothing_was_done(place: WebhookPlace, blind: FlagBackend) -> None:
    assert place.faults is not None
    place.faults.add("write:status=503,retry-after=3")
    version = (await blind.read(REF, deadline=soon())).version
    with pytest.raises(Throttled) as refused:
        await blind.apply(REF, "off", expect=version, op_id=OP, deadline=soon())
    assert refused.value.retry_after == 3
    place.faults.add("write:drop")
    with pytest.raises(Transient) as lost:
        await blind.apply(REF, "off", expect=version, op_id=OP, deadline=soon())
    assert not isinstance(lost.value, Unsent)
    assert (await blind.read(REF, deadline=soon())).variant is None


async def test_without_a_state_a_flag_that_is_not_there_is_found_out_by_the_write(blind: FlagBackend) -> None:
    version = (await blind.read(ABSENT, deadline=soon())).version
    with pytest.raises(NotFound):
        await blind.apply(ABSENT, "off", expect=version, op_id=OP, deadline=soon())


async def test_without_a_state_health_says_whether_anything_answers(secret_file: Path) -> None:
    async with endpoint(secret_file, lambda _: web.Response(status=405), state=None) as (backend, seen):
        assert (await backend.health([(REF, "off")], deadline=soon())).ok
        assert [request.method for request, _ in seen] == ["OPTIONS"]
    async with endpoint(secret_file, lambda _: web.Response(status=502), state=None) as (backend, _):
        assert not (await backend.health([(REF, "off")], deadline=soon())).ok
    nobody = WebhookBackend(settings.Webhook(url="http://127.0.0.1:1/set", secret_file=secret_file))
    (problem,) = (await nobody.health([(REF, "off")], deadline=soon())).problems
    await nobody.close()
    assert "cannot be reached" in problem


@pytest.mark.parametrize(
    ("url", "state_url"),
    [
        ("http://flags.example.org/set", None),
        ("https://flags.example.org/set", "http://flags.example.org/{flag}"),
        ("https://flags.example.org/set", "https://flags.example.org/state"),
    ],
)
def test_addresses_are_encrypted_and_a_state_is_of_a_flag(secret_file: Path, url: str, state_url: str | None) -> None:
    with pytest.raises(ConfigError, match="https"):
        WebhookBackend(settings.Webhook(url=url, state_url=state_url, secret_file=secret_file))
