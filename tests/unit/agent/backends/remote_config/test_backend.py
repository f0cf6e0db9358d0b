"""The Remote Config backend beyond the contract: what it publishes, on which version, how often, and its requests."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Literal

import pytest
from aiohttp import web

from agent.backends import settings
from agent.backends.contract import FlagRef, Outcome, Snapshot, Verdict
from agent.backends.remote_config.backend import RemoteConfigBackend
from agent.errors import Auth, ConfigError, Invalid, NotFound, Permission, Throttled, Timeout, Transient, Unsupported
from agent.fakes.remote_config.server import CLIENT, SERVER, FakeRemoteConfig
from agent.fakes.server import listen
from streams.settings import Seconds
from tests.support.firebase_server import USERS, given

REF = FlagRef("new-checkout", "production")
OTHER = FlagRef("other", "production")
OP = "op-1"
TENTH = {"name": "tenth", "expression": "percent('salt') <= 10"}

Make = Callable[..., Awaitable[RemoteConfigBackend]]


def soon() -> float:
    return time.monotonic() + 60


@pytest.fixture
async def fake() -> AsyncIterator[FakeRemoteConfig]:
    fake = FakeRemoteConfig()
    fake.put("new-checkout", "on")
    fake.put("other", "on")
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
async def make(fake: FakeRemoteConfig) -> AsyncIterator[Make]:
    async with AsyncExitStack() as stack:

        async def made(
            publish_every: float = 0,
            template: Literal["client", "server"] = "client",
            parameters: dict[str, str] | None = None,
            port: int = 0,
        ) -> RemoteConfigBackend:
            backend = RemoteConfigBackend(
                settings.RemoteConfig(
                    project="flipback-fake",
                    template=template,
                    parameters=parameters or {},
                    publish_every=Seconds(publish_every),
                    emulator=f"127.0.0.1:{port or fake.port}",
                )
            )
            stack.push_async_callback(backend.close)
            return backend

        yield made


@pytest.fixture
async def backend(make: Make) -> RemoteConfigBackend:
    return await make()


async def apply(backend: RemoteConfigBackend, snap: Snapshot, op_id: str = OP) -> Outcome:
    result = await backend.apply(snap.ref, "off", expect=snap.state.version, op_id=op_id, deadline=soon())
    return result.outcome


async def snapshot(backend: RemoteConfigBackend, ref: FlagRef = REF) -> Snapshot:
    return await backend.snapshot(ref, deadline=soon())


def edit(fake: FakeRemoteConfig, change: Callable[[dict[str, Any]], object], description: str = "") -> None:
    template = fake.template()
    change(template)
    fake.publish(template, description=description)


def asked(fake: FakeRemoteConfig) -> list[str]:
    """Return the requests since the last call, such as `GET :listVersions`."""
    found = [
        f"{method} {path.rpartition('/remoteConfig')[2]}".strip().replace("?pageSize=300", "")
        for method, path in fake.received
    ]
    fake.received.clear()
    return found


# What is written


async def test_a_flip_publishes_the_template_that_was_read_with_one_parameter_changed(
    fake: FakeRemoteConfig, backend: RemoteConfigBackend
) -> None:
    edit(fake, lambda template: template.update(unknown={"n": 1.5}, conditions=[TENTH]))
    before = fake.template()
    assert await apply(backend, await snapshot(backend)) is Outcome.APPLIED
    after = fake.template()
    assert after.pop("version")["description"] == f"flipback flip {OP}: new-checkout to off"
    del before["version"]
    before["parameters"]["new_checkout"]["defaultValue"]["value"] = "false"
    assert after == before
    assert (fake.history()[0]["updateType"], fake.writes) == ("INCREMENTAL_UPDATE", 1)


async def test_only_the_template_of_the_settings_is_written(fake: FakeRemoteConfig, make: Make) -> None:
    backend = await make(template="server")
    assert await apply(backend, await snapshot(backend)) is Outcome.APPLIED
    assert (len(fake.history(CLIENT)), len(fake.history(SERVER))) == (2, 3)


async def test_a_parameter_may_have_a_name_of_its_own_and_stand_in_a_group(fake: FakeRemoteConfig, make: Make) -> None:
    flag = fake.template()["parameters"]["other"]
    edit(fake, lambda template: template.update(parameterGroups={"g": {"parameters": {"Shop_v2": flag}}}))
    backend = await make(parameters={"new-checkout": "Shop_v2"})
    assert await apply(backend, await snapshot(backend)) is Outcome.APPLIED
    assert fake.template()["parameterGroups"]["g"]["parameters"]["Shop_v2"]["defaultValue"] == {"value": "false"}
    assert fake.template()["parameters"]["new_checkout"]["defaultValue"] == {"value": "true"}


async def test_a_rollout_of_the_console_is_not_ended(fake: FakeRemoteConfig, backend: RemoteConfigBackend) -> None:
    rollout = {"rolloutValue": {"rolloutId": "rollout_1", "value": "true", "percent": 5}}
    edit(fake, lambda template: template["parameters"]["new_checkout"].update(defaultValue=rollout))
    snap = await snapshot(backend)
    assert snap.state.variant is None
    with pytest.raises(Unsupported, match="rolloutValue"):
        await apply(backend, snap)
    assert (await backend.verify(snap, "off", op_id=OP, deadline=soon())).verdict is Verdict.UNTOUCHED
    (problem,) = (await backend.health([(REF, "off")], deadline=soon())).problems
    assert "rolloutValue" in problem
    # A rollout of another parameter does not stop a flip, and stays.
    assert await apply(backend, await snapshot(backend, OTHER)) is Outcome.APPLIED
    assert fake.template()["parameters"]["new_checkout"]["defaultValue"] == rollout


async def test_a_share_is_set_and_taken_back_without_a_new_seed(
    fake: FakeRemoteConfig, backend: RemoteConfigBackend
) -> None:
    snap = await snapshot(backend)
    for percent, op_id in ((10.0, "a"), (25.0, "b")):
        version = (await backend.read(REF, deadline=soon())).version
        result = await backend.set_percent(REF, "on", "off", percent, expect=version, op_id=op_id, deadline=soon())
        assert result.outcome is Outcome.APPLIED
        expression = f"percent('new_checkout') <= {percent:g}"
        assert fake.template()["conditions"] == [{"name": "flipback_new_checkout", "expression": expression}]
    now = (await backend.read(REF, deadline=soon())).version
    result = await backend.restore(snap, expect=now, op_id="c", deadline=soon())
    assert (result.outcome, result.state) == (Outcome.APPLIED, snap.state)


async def test_a_restore_puts_back_the_parameter_and_nothing_else(
    fake: FakeRemoteConfig, backend: RemoteConfigBackend
) -> None:
    snap = await snapshot(backend)
    await apply(backend, snap)
    written = (await backend.read(REF, deadline=soon())).version
    fake.put("other", "off")
    edit(fake, lambda template: template.update(conditions=[TENTH]))
    wanted = fake.template()
    wanted["parameters"]["new_checkout"]["defaultValue"]["value"] = "true"
    result = await backend.restore(snap, expect=written, op_id=OP, deadline=soon())
    assert result.outcome is Outcome.APPLIED
    assert {**fake.template(), "version": None} == {**wanted, "version": None}
    assert all(version["updateType"] == "INCREMENTAL_UPDATE" for version in fake.history())


async def test_what_is_written_is_what_googles_client_gives(fake: FakeRemoteConfig, make: Make) -> None:
    backend = await make(template="server")

    async def version() -> str:
        return (await backend.read(REF, deadline=soon())).version

    async def share(percent: float) -> list[bool]:
        await backend.set_percent(
            REF, "on", "off", percent, expect=await version(), op_id=f"to-{percent}", deadline=soon()
        )
        return (await given(fake, "new_checkout"))["new_checkout"]

    assert all((await given(fake, "new_checkout"))["new_checkout"])
    tenth, quarter = await share(10), await share(25)
    assert (sum(tenth) / USERS, sum(quarter) / USERS) == pytest.approx((0.10, 0.25), abs=0.02)
    assert all(more or not less for less, more in zip(tenth, quarter, strict=True)), "somebody lost it by a rise"
    await apply(backend, await snapshot(backend))
    assert not any((await given(fake, "new_checkout"))["new_checkout"])
    assert fake.template(SERVER)["conditions"], "the share's condition stays, and makes no difference"


# The version on which it is published


@pytest.mark.parametrize("status", [400, 409, 412])
async def test_a_publication_of_others_in_between_is_published_upon(
    fake: FakeRemoteConfig, make: Make, status: int
) -> None:
    fake.conflict_status = status
    # The attempt that lost against another publication does not count, so the next need not wait.
    backend = await make(publish_every=60)
    snap = await snapshot(backend)
    fake.faults.add("write:delay=0.2")
    flip = asyncio.create_task(apply(backend, snap))
    while "PUT" not in asked(fake):
        await asyncio.sleep(0.01)
    fake.put("other", "off")
    assert await flip is Outcome.APPLIED
    assert {name: flag["defaultValue"]["value"] for name, flag in fake.flags()[CLIENT].items()} == {
        "new_checkout": "false",
        "other": "false",
    }
    assert fake.writes == 1


async def test_a_publication_of_the_flag_in_between_is_left_alone(
    fake: FakeRemoteConfig, backend: RemoteConfigBackend
) -> None:
    snap = await snapshot(backend)
    fake.faults.add("write:delay=0.2")
    flip = asyncio.create_task(apply(backend, snap))
    while "PUT" not in asked(fake):
        await asyncio.sleep(0.01)
    edit(fake, lambda template: template["parameters"]["new_checkout"].update(description="mine"))
    assert await flip is Outcome.CONFLICT
    assert fake.writes == 0


async def test_whoever_publishes_all_the_time_is_not_outwaited(
    fake: FakeRemoteConfig, backend: RemoteConfigBackend
) -> None:
    snap = await snapshot(backend)
    fake.faults.add("write:status=409,times=0")
    with pytest.raises(Throttled, match="others published"):
        await apply(backend, snap)


async def test_without_an_etag_nothing_is_written(make: Make) -> None:
    written = []

    async def serve(request: web.Request) -> web.Response:
        if request.method == "PUT":
            written.append(request.path)
        flag = {"defaultValue": {"value": "true"}, "valueType": "BOOLEAN"}
        body = {"parameters": {"new_checkout": flag}, "version": {"versionNumber": "1"}}
        return web.json_response({"versions": []} if "list" in request.path else body)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", serve)
    runner, port = await listen(app, 0)
    try:
        backend = await make(port=port)
        with pytest.raises(Invalid, match="ETag"):
            await apply(backend, await snapshot(backend))
        (problem,) = (await backend.health([(REF, "off")], deadline=soon())).problems
        assert "ETag" in problem
        assert written == []
    finally:
        await runner.cleanup()


# The ledger: operations in the history


async def test_an_operation_that_was_taken_back_is_not_done_again(
    fake: FakeRemoteConfig, backend: RemoteConfigBackend
) -> None:
    snap = await snapshot(backend)
    assert await apply(backend, snap) is Outcome.APPLIED
    fake.put("new-checkout", "on")
    fake.put("other", "off")
    assert (await backend.read(REF, deadline=soon())).version == snap.state.version
    assert await apply(backend, snap) is Outcome.DUPLICATE
    assert (await backend.verify(snap, "off", op_id=OP, deadline=soon())).verdict is Verdict.OTHER
    assert await apply(backend, snap, "op-2") is Outcome.APPLIED


async def test_publications_of_others_leave_a_flag_untouched(
    fake: FakeRemoteConfig, backend: RemoteConfigBackend
) -> None:
    snap = await snapshot(backend)
    for variant in ("off", "on", "off"):
        fake.put("other", variant)
    assert (await backend.verify(snap, "off", op_id=OP, deadline=soon())).verdict is Verdict.UNTOUCHED


async def test_what_the_history_no_longer_tells_is_not_called_untouched(
    fake: FakeRemoteConfig, backend: RemoteConfigBackend
) -> None:
    snap = await snapshot(backend)
    for _ in range(301):
        fake.publish(fake.template())
    assert (await backend.verify(snap, "off", op_id=OP, deadline=soon())).verdict is Verdict.OTHER


async def test_a_write_that_landed_is_a_duplicate_of_itself_when_it_comes_back_as_a_conflict(
    fake: FakeRemoteConfig, backend: RemoteConfigBackend
) -> None:
    snap = await snapshot(backend)
    fake.faults.add("write:commit-then-fail=409")
    assert await apply(backend, snap) is Outcome.DUPLICATE
    assert fake.writes == 1


async def test_a_flip_has_landed_whatever_becomes_of_the_conditions(
    fake: FakeRemoteConfig, backend: RemoteConfigBackend
) -> None:
    def condition(template: dict[str, Any], percent: int) -> None:
        template["conditions"] = [{"name": "tenth", "expression": f"percent('s') <= {percent}"}]
        template["parameters"]["new_checkout"].setdefault("conditionalValues", {"tenth": {"value": "false"}})

    edit(fake, lambda template: condition(template, 10))
    snap = await snapshot(backend)
    assert (snap.state.variant, snap.state.percent) == (None, 10)
    await apply(backend, snap)
    edit(fake, lambda template: condition(template, 90))
    found = await backend.verify(snap, "off", op_id=OP, deadline=soon())
    assert found.verdict is Verdict.LANDED
    assert found.state is not None
    assert found.state.variant == "off"


# How often


async def test_two_publications_are_so_far_apart_as_the_settings_say(fake: FakeRemoteConfig, make: Make) -> None:
    backend = await make(publish_every=60)
    assert await apply(backend, await snapshot(backend)) is Outcome.APPLIED
    with pytest.raises(Throttled) as caught:
        await apply(backend, await snapshot(backend, OTHER), "op-2")
    assert caught.value.retry_after == pytest.approx(60, abs=5)
    # An operation that needs no publication need not wait.
    assert await apply(backend, await snapshot(backend), "op-3") is Outcome.ALREADY
    assert fake.writes == 1


async def test_what_did_not_land_does_not_count(fake: FakeRemoteConfig, make: Make) -> None:
    backend = await make(publish_every=60)
    snap = await snapshot(backend)
    fake.faults.add("write:status=503")
    with pytest.raises(Transient):
        await apply(backend, snap)
    fake.faults.add("write:status=409")
    fake.faults.add("write:status=412")
    assert await apply(backend, snap) is Outcome.APPLIED


async def test_what_may_have_landed_counts(fake: FakeRemoteConfig, make: Make) -> None:
    backend = await make(publish_every=60)
    fake.faults.add("write:commit-then-fail=503")
    with pytest.raises(Transient):
        await apply(backend, await snapshot(backend))
    with pytest.raises(Throttled):
        await apply(backend, await snapshot(backend, OTHER), "op-2")


# The requests


async def test_a_look_at_all_flags_fetches_a_template_that_has_not_changed_once(
    fake: FakeRemoteConfig, backend: RemoteConfigBackend
) -> None:
    for _ in range(2):
        for ref in (REF, OTHER):
            await backend.read(ref, deadline=soon())
    assert asked(fake) == ["GET", *["GET :listVersions?pageSize=1"] * 3]
    fake.put("other", "off")
    assert (await backend.read(OTHER, deadline=soon())).variant == "off"
    assert asked(fake) == ["GET :listVersions?pageSize=1", "GET"]


async def test_snapshot_write_and_read_back_never_trust_what_is_held(
    fake: FakeRemoteConfig, backend: RemoteConfigBackend
) -> None:
    await backend.read(REF, deadline=soon())
    asked(fake)
    snap = await snapshot(backend)
    await apply(backend, snap)
    await backend.verify(snap, "off", op_id=OP, deadline=soon())
    requests = asked(fake)
    assert sorted(requests[1:3]) == ["GET", "GET :listVersions"]
    assert [requests[0], *requests[3:]] == ["GET", "PUT", "GET"]


async def test_a_dry_run_that_went_through_is_not_made_again_before_something_changes(
    fake: FakeRemoteConfig, backend: RemoteConfigBackend
) -> None:
    async def dry_runs(*wanted: FlagRef) -> int:
        before = fake.dry_runs
        assert (await backend.health([(ref, "off") for ref in wanted], deadline=soon())).ok
        return fake.dry_runs - before

    assert [await dry_runs(REF), await dry_runs(REF), await dry_runs(REF)] == [1, 0, 0]
    fake.put("other", "off")
    assert [await dry_runs(REF), await dry_runs(REF)] == [1, 0]
    assert [await dry_runs(REF, OTHER), await dry_runs(REF, OTHER)] == [1, 0]
    assert fake.writes == 0


async def test_a_dry_run_that_was_refused_is_told_and_made_again(
    fake: FakeRemoteConfig, backend: RemoteConfigBackend
) -> None:
    await backend.read(REF, deadline=soon())
    answers = []
    for fault in ("read:status=400", "read:status=403", None):
        # The first request of a check reads the newest version, the second is the dry run.
        if fault is not None:
            fake.faults.add("read:delay=0")
            fake.faults.add(fault)
        answers.append((await backend.health([(REF, "off")], deadline=soon())).problems)
    assert "status 400" in answers[0][0]
    assert "roles/cloudconfig.admin" in answers[1][0]
    assert "cloudconfig.configs.update" in answers[1][0]
    assert answers[2] == ()


async def test_health_tells_of_names_that_would_never_be_read_back_and_of_flags_that_meet(
    fake: FakeRemoteConfig, backend: RemoteConfigBackend
) -> None:
    same = FlagRef("new.checkout", "production")
    problems = (await backend.health([(REF, "false"), (same, "off")], deadline=soon())).problems
    assert any("'false' is read back as 'off'" in problem for problem in problems)
    assert any("both parameter 'new_checkout'" in problem for problem in problems)


@pytest.mark.parametrize(("template", "named"), [("client", False), ("server", True)])
async def test_a_server_template_that_takes_no_publication_is_told_as_such(
    fake: FakeRemoteConfig, make: Make, template: Literal["client", "server"], named: bool
) -> None:
    backend = await make(template=template)
    await backend.read(REF, deadline=soon())
    fake.faults.add("read:delay=0")
    fake.faults.add("read:status=404")
    (problem,) = (await backend.health([(REF, "off")], deadline=soon())).problems
    assert ("server template" in problem) is named


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        ("read:status=403", Permission, "roles/cloudconfig.admin"),
        ("read:status=401,times=2", Auth, "401"),
        ("read:status=404", NotFound, "404"),
        ("read:status=429,retry-after=7", Throttled, "429"),
        ("read:drop", Transient, "connection"),
    ],
)
async def test_an_answer_that_is_none_is_an_error_with_its_reason(
    fake: FakeRemoteConfig, backend: RemoteConfigBackend, fault: str, kind: type[Exception], said: str
) -> None:
    fake.faults.add(fault)
    with pytest.raises(kind, match=said):
        await snapshot(backend)


async def test_a_template_that_cannot_be_read_in_time_is_a_timeout(
    fake: FakeRemoteConfig, backend: RemoteConfigBackend
) -> None:
    fake.faults.add("read:hang")
    with pytest.raises(Timeout):
        await backend.snapshot(REF, deadline=time.monotonic() + 0.1)


# Settings


@pytest.mark.parametrize("emulator", ["flags.example.org:8080", "127.0.0.1", "0.0.0.0:80", "http://127.0.0.1:80"])
def test_an_emulator_is_on_loopback_or_refused(emulator: str) -> None:
    with pytest.raises(ConfigError, match="loopback"):
        RemoteConfigBackend(settings.RemoteConfig(project="p", emulator=emulator))


def test_a_variable_that_names_an_emulator_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIREBASE_REMOTE_CONFIG_EMULATOR_HOST", "127.0.0.1:1")
    with pytest.raises(ConfigError, match="FIREBASE_REMOTE_CONFIG_EMULATOR_HOST"):
        RemoteConfigBackend(settings.RemoteConfig(project="p"))


@pytest.mark.filterwarnings("ignore:The load_credentials_from_file method:DeprecationWarning")
def test_a_key_file_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    path.write_text(json.dumps({"private_key": "secret"}))
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="no credentials") as caught:
        RemoteConfigBackend(settings.RemoteConfig(project="p", credentials=path))
    assert "secret" not in str(caught.value)
