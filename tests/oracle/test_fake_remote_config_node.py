"""firebase-admin for Node.js, which uses whole templates, works with the fake Remote Config as with the real one."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from agent.fakes.remote_config.server import SERVER, FakeRemoteConfig
from tests.support.npm import NpmUnavailable, installed

HERE = Path(__file__).with_name("node")
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def packages() -> Path:
    try:
        return installed(HERE)
    except NpmUnavailable as error:
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(f"CI must not skip the comparison with firebase-admin for Node.js: {error}", pytrace=False)
        pytest.skip(f"NOT TESTED against firebase-admin for Node.js: {error}")


@pytest.mark.parametrize(("status", "stale"), [(409, "aborted"), (412, "failed-precondition")])
async def test_a_fake_does_what_the_client_for_node_expects(
    packages: Path, tmp_path: Path, status: int, stale: str
) -> None:
    fake = FakeRemoteConfig(status)
    fake.put("new-checkout", "on")
    await fake.start()
    try:
        found = await _run(packages, tmp_path, fake)
    finally:
        await fake.stop()

    flag = {"defaultValue": {"value": "true"}, "valueType": "BOOLEAN"}
    fresh = {
        "defaultValue": {"value": "false"},
        "conditionalValues": {"tenth": {"value": "true"}},
        "valueType": "BOOLEAN",
    }
    assert found["first"]["parameters"] == {"new_checkout": flag}
    assert found["first"]["version"]["versionNumber"] == "1"
    assert found["validated"] is True
    published = found["published"]
    assert published["parameters"] == {"new_checkout": flag, "fresh": fresh}
    assert published["etag"] != found["first"]["etag"]
    assert (published["version"]["versionNumber"], published["version"]["description"]) == ("2", "a person's edit")
    assert found["stale"] == f"remote-config/{stale}"
    assert found["forced"] == "FORCED_UPDATE"
    assert found["unknownCondition"] == found["wrongType"] == "remote-config/invalid-argument"
    assert found["listed"] == ["3", "2", "1"]
    assert [version["versionNumber"] for version in found["page"]] == ["2"]
    assert found["then"] == "1"
    assert found["rolled"]["parameters"] == {"new_checkout": flag}
    assert found["rolled"]["version"]["rollbackSource"] == "1"
    assert found["rolledNowhere"] == "remote-config/not-found"
    assert found["server"] is True
    # The client received what is stored.
    assert [version["versionNumber"] for version in fake.history()] == ["4", "3", "2", "1"]
    assert fake.flags()["firebase"] == {"new_checkout": flag}
    assert (fake.writes, fake.dry_runs) == (3, 1)
    assert len(fake.history(SERVER)) == 1


async def _run(packages: Path, directory: Path, fake: FakeRemoteConfig) -> dict[str, Any]:
    """Return what the script prints. The script lies beside a link to the packages, where Node.js looks for them."""
    (directory / "node_modules").symlink_to(packages / "node_modules")
    shutil.copy(HERE / "remote_config.mjs", directory)
    process = await asyncio.create_subprocess_exec(
        "node",
        "remote_config.mjs",
        cwd=directory,
        env={"PATH": os.environ["PATH"], "FIREBASE_REMOTE_CONFIG_URL_BASE": f"http://127.0.0.1:{fake.port}"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE_S):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    found: dict[str, Any] = json.loads(out)
    return found
