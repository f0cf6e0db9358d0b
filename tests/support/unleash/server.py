"""One Unleash server on loopback for the tests, from npm, with a PostgreSQL of its own.

Both end with the process that started them, even if that is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.npm import NpmUnavailable, installed
from tests.support.processes import end_guarded, free_ports, start_guarded

START_TIMEOUT = 120.0  # seconds; 9 s on a quiet machine with two cores, most of it migrations

_START = 'import {start} from "unleash-server"; await start(JSON.parse(process.env.FLIPBACK_UNLEASH))'
_POSTGRES_OPTIONS = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "jit": "off",
}


class UnleashUnavailable(Exception):
    """This machine cannot run Unleash. The message says what is missing."""


class UnleashServer:
    """A server with an admin token, and a client token of the environment `production`."""

    def __init__(self, directory: Path) -> None:
        self.log = directory / "unleash.log"
        self.admin_token = f"*:*.{secrets.token_hex(16)}"
        self.client_token = f"*:production.{secrets.token_hex(16)}"
        (self._port,) = free_ports(1)
        self._processes: list[subprocess.Popen[bytes]] = []
        # Not in pytest's directories, which are closed to PostgreSQL's user. The path of a socket may have 107 bytes.
        self._database = Path(tempfile.mkdtemp(prefix="flipback-pg-"))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start both and return when Unleash serves; UnleashUnavailable, or RuntimeError with the end of the log."""
        try:
            tools = _tools()
            packages = _packages()
            self.log.parent.mkdir(parents=True, exist_ok=True)
            self._start_database(tools)
            self._start_unleash(packages)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        while self._processes:
            end_guarded(self._processes.pop())
        shutil.rmtree(self._database, ignore_errors=True)

    def _start_database(self, tools: Path) -> None:
        user = None
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root.
            name = next((user.pw_name for user in pwd.getpwall() if user.pw_name == "postgres"), "nobody")
            entry = pwd.getpwnam(name)
            user = entry.pw_uid, entry.pw_gid
            os.chown(self._database, *user)
        data = self._database / "data"
        done = subprocess.run(
            [tools / "initdb", "-D", data, "-U", "unleash", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=START_TIMEOUT,
            user=None if user is None else user[0],
            group=None if user is None else user[1],
            extra_groups=None if user is None else [],
            cwd=self._database,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"PostgreSQL's storage could not be made:\n{done.stdout[-2000:]}")
        options = [word for name, value in _POSTGRES_OPTIONS.items() for word in ("-c", f"{name}={value}")]
        command = [str(tools / "postgres"), "-D", str(data), "-k", str(self._database), *options]
        with self.log.open("ab") as log:
            # An immediate shutdown: a killed postmaster would leave its shared memory segment behind.
            self._processes.append(start_guarded(command, log, directory=self._database, user=user, signal="QUIT"))
        self._await("PostgreSQL", lambda: (self._database / ".s.PGSQL.5432").exists())

    def _start_unleash(self, packages: Path) -> None:
        tokens = [("admin", "*", self.admin_token), ("client", "production", self.client_token)]
        settings = {
            "db": {"host": str(self._database), "user": "unleash", "database": "postgres", "ssl": False},
            "server": {"host": "127.0.0.1", "port": self._port},
            "versionCheck": {"enable": False},
            "authentication": {
                "initApiTokens": [
                    {"type": kind, "environment": environment, "project": "*", "secret": secret, "tokenName": kind}
                    for kind, environment, secret in tokens
                ]
            },
        }
        # Unleash requires Node 22, which npm installs with the packages if it has one for this machine.
        brought = next(packages.glob("node_modules/node-linux-*/bin/node"), None)
        command = [str(brought or "node"), "--input-type=module", "--eval", _START]
        environment = {**os.environ, "FLIPBACK_UNLEASH": json.dumps(settings)}
        with self.log.open("ab") as log:
            self._processes.append(start_guarded(command, log, directory=packages, environment=environment))
        self._await("Unleash", self._serves)

    def _serves(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5):  # noqa: S310 - on loopback
                return True
        except (urllib.error.URLError, OSError):
            return False

    def _await(self, what: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline and self._processes[-1].poll() is None:
            if ready():
                return
            time.sleep(0.05)
        raise RuntimeError(f"{what} did not start; the end of {self.log}:\n{self.log.read_text()[-2000:]}")


def _packages() -> Path:
    try:
        return installed(Path(__file__).parent, ("package.json", "package-lock.json"))
    except NpmUnavailable as error:
        raise UnleashUnavailable(str(error)) from error


def _tools() -> Path:
    """Return the directory of initdb and postgres, which Debian does not put on the path, unlike its other programs."""
    on_path = shutil.which("initdb")
    debians = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    found = [Path(on_path).resolve()] if on_path is not None else debians
    missing = [tool for tool in ("node", "npm") if shutil.which(tool) is None] + ["postgresql"] * (not found)
    if missing:
        raise UnleashUnavailable(f"{' and '.join(missing)} not installed")
    return found[-1].parent


_running: list[UnleashServer] = []


def running() -> UnleashServer:
    """The server of this session, which the fixture `unleash` starts."""
    assert _running, "a test of Unleash without the marker `unleash`, see tests/conftest.py"
    return _running[0]


@contextlib.contextmanager
def serving(directory: Path) -> Iterator[UnleashServer]:
    """Start the server of a session. Raises UnleashUnavailable if this machine cannot run it."""
    server = UnleashServer(directory)
    server.start()
    _running.append(server)
    try:
        yield server
    finally:
        _running.remove(server)
        server.stop()
