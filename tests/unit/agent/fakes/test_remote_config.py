"""The fake Remote Config follows the rules of the service, and works with firebase_admin, which evaluates templates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from agent.fakes.remote_config.rules import MOST_CHARACTERS, MOST_CONDITIONS, MOST_PARAMETERS, problem
from agent.fakes.remote_config.server import CLIENT, SERVER, FakeRemoteConfig
from tests.support.firebase_server import USERS, given

OWNER = {"Authorization": "Bearer owner"}
FLAG = {"defaultValue": {"value": "true"}, "valueType": "BOOLEAN"}


@pytest.fixture
async def fake() -> AsyncIterator[FakeRemoteConfig]:
    fake = FakeRemoteConfig()
    fake.put("new-checkout", "on")
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
async def http(fake: FakeRemoteConfig) -> AsyncIterator[aiohttp.ClientSession]:
    url = f"http://127.0.0.1:{fake.port}/v1/projects/p/"
    async with aiohttp.ClientSession(url, headers=OWNER) as session:
        yield session


async def etag(http: aiohttp.ClientSession, path: str = "remoteConfig") -> str:
    async with http.get(path) as response:
        return response.headers["ETag"]


async def put(http: aiohttp.ClientSession, body: Any, tag: str | None, path: str = "remoteConfig") -> tuple[int, Any]:
    headers = {} if tag is None else {"If-Match": tag}
    async with http.put(path, json=body, headers=headers) as response:
        return response.status, await response.json()


async def test_an_etag_comes_only_where_compression_is_asked_for(http: aiohttp.ClientSession) -> None:
    assert await etag(http)
    async with http.get("remoteConfig", headers={"Accept-Encoding": "identity"}) as response:
        assert "ETag" not in response.headers
        assert (await response.json())["parameters"] == {"new_checkout": FLAG}


async def test_a_publication_needs_the_etag_of_the_newest_version_of_its_own_template(
    fake: FakeRemoteConfig, http: aiohttp.ClientSession
) -> None:
    body, old = {"parameters": {"new_checkout": FLAG}}, await etag(http)
    assert (await put(http, body, old))[0] == 200
    for tag in (old, None, "", await etag(http, f"namespaces/{SERVER}/remoteConfig")):
        status, answer = await put(http, body, tag)
        assert (status, answer["error"]["status"]) == (409, "ABORTED")
        assert "VERSION_MISMATCH" in answer["error"]["message"]
    assert (await put(http, body, "*"))[1]["version"]["updateType"] == "FORCED_UPDATE"
    assert fake.writes == 2


async def test_of_many_publications_on_one_etag_one_is_taken(
    fake: FakeRemoteConfig, http: aiohttp.ClientSession
) -> None:
    tag = await etag(http)
    statuses = [status for status, _ in await asyncio.gather(*(put(http, {"parameters": {}}, tag) for _ in range(20)))]
    assert (statuses.count(200), statuses.count(409), fake.writes) == (1, 19, 1)


async def test_a_dry_run_checks_everything_and_writes_nothing(
    fake: FakeRemoteConfig, http: aiohttp.ClientSession
) -> None:
    tag = await etag(http)
    for name in ("validateOnly", "validate_only"):
        path = f"remoteConfig?{name}=true"
        assert (await put(http, {"parameters": {"new_checkout": FLAG}}, tag, path))[0] == 200
        assert (await put(http, {"parameters": {"new checkout": FLAG}}, tag, path))[0] == 400
        assert (await put(http, {}, "stale", path))[0] == 409
    assert (fake.writes, fake.dry_runs, await etag(http)) == (0, 2, tag)


async def test_what_is_sent_is_kept_as_it_is_spelled(fake: FakeRemoteConfig, http: aiohttp.ClientSession) -> None:
    sent = '{"parameters":{"p":{"defaultValue":{"ofTomorrow":[1.10,1e3]},"z":"\\u00e9","a":1}}'
    async with http.put("remoteConfig", data=sent + "}", headers={"If-Match": await etag(http)}) as response:
        assert response.status == 200
    async with http.get("remoteConfig") as response:
        assert (await response.text()).startswith(sent)


async def test_300_versions_are_kept_listed_in_pages_and_read_by_number(
    fake: FakeRemoteConfig, http: aiohttp.ClientSession
) -> None:
    for _ in range(310):
        fake.publish({"parameters": {}})
    listed, token = [], "0"
    while token:
        async with http.get(f"./remoteConfig:listVersions?pageSize=120&pageToken={token}") as response:
            page = await response.json()
            listed += [int(version["versionNumber"]) for version in page["versions"]]
            token = page.get("nextPageToken", "")
    assert listed == list(range(311, 11, -1))
    async with http.get("remoteConfig?versionNumber=200") as response:
        assert (await response.json())["version"]["versionNumber"] == "200"
    async with http.get("remoteConfig?versionNumber=11") as response:
        assert response.status == 404


async def test_a_rollback_is_a_new_version_with_the_old_content(
    fake: FakeRemoteConfig, http: aiohttp.ClientSession
) -> None:
    fake.put("new-checkout", "off")
    async with http.post("./remoteConfig:rollback", json={"versionNumber": "1"}) as response:
        version = (await response.json())["version"]
    assert (version["versionNumber"], version["rollbackSource"]) == ("3", "1")
    assert fake.template()["parameters"] == {"new_checkout": FLAG}
    async with http.post("./remoteConfig:rollback", json={"versionNumber": "9"}) as response:
        assert response.status == 404


async def test_who_shows_no_token_is_sent_away(fake: FakeRemoteConfig) -> None:
    url = f"http://127.0.0.1:{fake.port}/v1/projects/p/remoteConfig"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        assert response.status == 401


def test_a_persons_flag_is_what_everyone_gets() -> None:
    fake = FakeRemoteConfig()
    fake.publish(
        {"parameterGroups": {"g": {"parameters": {"p": {**FLAG, "conditionalValues": {"c": {"value": "x"}}}}}}}
    )
    fake.put("p", "off")
    off = {"value": "false"}
    assert fake.flags()[CLIENT] == {"p": {**FLAG, "defaultValue": off, "conditionalValues": {"c": off}}}
    assert fake.flags()[SERVER] == {"p": {**FLAG, "defaultValue": off}}


CONDITION = {"name": "c", "expression": "percent('s') <= 10"}
IOS = {"name": "c", "expression": "device.os == 'ios'"}


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ({"parameters": {"a b": FLAG}}, "parameter key"),
        ({"parameters": {"a": {}}}, "no value"),
        ({"parameters": {"a": {"defaultValue": {"value": "x"}, "valueType": "COLOUR"}}}, "COLOUR"),
        ({"parameters": {"a": {"defaultValue": {"value": True}}}}, "TYPE_STRING"),
        ({"parameters": {"a": {"defaultValue": {"value": "perhaps"}, "valueType": "BOOLEAN"}}}, "not BOOLEAN"),
        ({"parameters": {"a": {"defaultValue": {"value": "x"}, "valueType": "NUMBER"}}}, "not NUMBER"),
        ({"parameters": {"a": {"defaultValue": {"value": "{"}, "valueType": "JSON"}}}, "not JSON"),
        ({"parameters": {"a": {"defaultValue": {"value": "x", "useInAppDefault": True}}}}, "exactly one kind"),
        ({"parameters": {"a": {"conditionalValues": {"c": {"value": "x"}}}}}, "condition c, which is not there"),
        ({"parameters": {"a": FLAG}, "parameterGroups": {"g": {"parameters": {"a": FLAG}}}}, "a is there twice"),
        ({"conditions": [CONDITION, CONDITION]}, "condition c is there twice"),
        ({"conditions": [{"name": "c"}]}, "no expression"),
        ({"conditions": [{"expression": "true"}]}, "no name"),
        ({"conditions": [{"name": "c" * 101, "expression": "true"}]}, "no name, or one longer"),
        ({"conditions": [{"name": "c", "expression": "true&&true"}]}, "space before and after"),
        ({"conditions": [{"name": "c", "expression": "percent('s') <= 101"}]}, "cannot be evaluated"),
        ({"conditions": [{"name": "c", "expression": f"percent('{'s' * 33}') <= 1"}]}, "cannot be evaluated"),
        ({"parameters": {f"p{n}": FLAG for n in range(MOST_PARAMETERS + 1)}}, "3000 parameters"),
        ({"conditions": [{"name": f"c{n}", "expression": "true"} for n in range(MOST_CONDITIONS + 1)]}, "2000 cond"),
        ({"parameters": {"a": {"defaultValue": {"value": "x" * (MOST_CHARACTERS + 1)}}}}, "1000000 characters"),
        ({"version": {"description": "x" * 1025}}, "1024 characters"),
        ({"etag": "x"}, 'Unknown name "etag"'),
        ([], "no object"),
    ],
)
def test_what_the_service_would_refuse_is_refused(template: Any, why: str) -> None:
    refused = problem(template, {}, server=False)
    assert refused is not None
    assert why in refused


@pytest.mark.parametrize(
    "template",
    [
        {},
        {"parameters": {f"p{n}": FLAG for n in range(MOST_PARAMETERS)}},
        {"parameters": {"a": {"defaultValue": {"rolloutValue": {"rolloutId": "rollout_1"}}}}},
        {"conditions": [IOS], "parameters": {"a": {"conditionalValues": {"c": {"useInAppDefault": True}}}}},
        {"conditions": [{"name": "c", "expression": "app.id == 'x' && percent between 0 and 12.5"}]},
    ],
)
def test_what_the_service_would_take_is_taken(template: Any) -> None:
    assert problem(template, {}, server=False) is None


def test_a_server_template_has_only_conditions_that_a_server_can_evaluate() -> None:
    assert problem({"conditions": [CONDITION]}, {}, server=True) is None
    refused = problem({"conditions": [IOS]}, {}, server=True)
    assert refused is not None
    assert "device.os" in refused


async def test_the_python_client_gives_the_shares_that_the_conditions_say(fake: FakeRemoteConfig) -> None:
    conditions = {
        "tenth": "percent('salt') <= 10",
        "quarter": "percent('salt') <= 25",
        "middle": "percent('salt') between 10 and 30",
        "both": "percent('salt') <= 25 && percent('salt') > 10",
        "none": "percent('salt') <= 0",
        "unknown": "device.os == 'ios'",
    }
    conditional = {
        name: {
            "defaultValue": {"value": "false"},
            "conditionalValues": {name: {"value": "true"}},
            "valueType": "BOOLEAN",
        }
        for name in conditions
    }
    template = {
        "conditions": [{"name": name, "expression": text} for name, text in conditions.items()],
        "parameters": {"plain": FLAG},
        "parameterGroups": {"g": {"parameters": conditional}},
    }
    fake.publish(template, SERVER)
    found = await given(fake, "plain", *conditions)
    share = {name: sum(values) / USERS for name, values in found.items()}
    assert (share["plain"], share["none"], share["unknown"]) == (1, 0, 0)
    expected = {"tenth": 0.10, "quarter": 0.25, "middle": 0.20, "both": 0.15}
    # The users are fixed, so the result is not random: one standard deviation of a quarter of 4,000 is 0.007.
    assert {name: share[name] for name in expected} == pytest.approx(expected, abs=0.02)
    assert all(quarter >= tenth for quarter, tenth in zip(found["quarter"], found["tenth"], strict=True))
    assert found["both"] == [one and not other for one, other in zip(found["quarter"], found["tenth"], strict=True)]
