"""A server that reads its flags from a server template with Google's own client, firebase_admin, for 4,000 users."""

from __future__ import annotations

import asyncio
import json
import sys

from agent.fakes.remote_config.server import FakeRemoteConfig

USERS = 4_000
_PATIENCE_S = 60.0

_PROGRAM = """
import asyncio, json, sys
import firebase_admin
from firebase_admin import remote_config
from google.auth.credentials import AnonymousCredentials

class Token(AnonymousCredentials):
    def before_request(self, request, method, url, headers):
        headers["Authorization"] = "Bearer owner"

class Credential(firebase_admin.credentials.Base):
    def get_credential(self):
        return Token()

async def main():
    server, users, *parameters = sys.argv[1:]
    app = firebase_admin.initialize_app(Credential(), {"projectId": "flipback-fake"})
    template = remote_config.init_server_template(app=app)
    template._rc_service._client._base_url = server
    await template.load()
    configs = [template.evaluate({"randomization_id": f"user-{number}"}) for number in range(int(users))]
    print(json.dumps({name: [config.get_boolean(name) for config in configs] for name in parameters}))

asyncio.run(main())
"""


async def given(fake: FakeRemoteConfig, *parameters: str) -> dict[str, list[bool]]:
    """Return each user's values. Runs in a process of its own: the client's import configures the root logger."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _PROGRAM,
        f"http://127.0.0.1:{fake.port}",
        str(USERS),
        *parameters,
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(_PATIENCE_S):
        out, _ = await process.communicate()
    assert process.returncode == 0
    found: dict[str, list[bool]] = json.loads(out)
    return found
