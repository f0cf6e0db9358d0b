"""Checks of the addresses of flag systems, and of the files that the configuration names, on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from agent.backends.address import checked_state_url, checked_url, database_host, emulator_address
from agent.backends.secret_file import check_secret_file
from agent.backends.settings import RealtimeDatabase, Unleash, Webhook
from agent.config.document import Note, join
from agent.config.wrong import WRONG
from agent.errors import ConfigError

_SECRETS = ("secret_file", "token_file", "credentials")


def check_addresses(backends: Any, note: Note) -> None:
    """Check that servers have https addresses without a password, or are on loopback, as emulators must be."""
    for at, backend in _backends(backends):
        if isinstance(backend, Unleash | Webhook):
            kind = str(type(backend).__struct_config__.tag)
            _try(join(at, "url"), backend.url, partial(checked_url, kind), _ADDRESS, note)
        if isinstance(backend, Webhook):
            _try(join(at, "state_url"), backend.state_url, checked_state_url, _ADDRESS, note)
        if isinstance(backend, RealtimeDatabase):
            check = partial(database_host, emulated=backend.emulator is not None)
            _try(join(at, "url"), backend.url, check, _ADDRESS, note)
        emulator = getattr(backend, "emulator", None)
        _try(join(at, "emulator"), emulator, emulator_address, "leave it out to use the real system", note)


def check_files(settings: Mapping[str, Any], note: Note) -> None:
    """Check that this user can read the named files, and that only their owner can read secrets.

    Not part of the checks at start: which files a process needs depends on its role.
    """
    for at, backend in _backends(settings["backends"]):
        for name in _SECRETS:
            _try(join(at, name), getattr(backend, name, None), check_secret_file, _SECRET, note)
    kafka, keys = settings["kafka"], settings["keys"]
    security = kafka.security if kafka is not WRONG else None
    if security not in (None, WRONG):
        _try("kafka.security.password_file", security.password_file, check_secret_file, _SECRET, note)
        for name in ("cafile", "certfile", "keyfile"):
            _try(f"kafka.security.{name}", getattr(security, name), _readable, "name a PEM file", note)
    if keys is WRONG:
        return
    _try("keys.signing_key", keys.signing_key, check_secret_file, f"{_GENERATE}, or check on the monitor", note)
    for index, path in enumerate(keys.public_keys if keys.public_keys not in (None, WRONG) else ()):
        _try(f"keys.public_keys[{index}]", path, _readable, f"{_GENERATE}, or check on the executor", note)


_ADDRESS = "write the server's https address, without a password in it"
_SECRET = "name a file of mode 0600 that this user owns, or check on the machine that has it"  # noqa: S105 - a hint
_GENERATE = "make a pair with `flipback keys generate`"


def _backends(backends: Any) -> Iterator[tuple[str, msgspec.Struct]]:
    for name, backend in (backends if backends is not WRONG else {}).items():
        if backend is not WRONG:
            yield join("backends", name), backend


def _try(path: str, value: Any, check: Callable[[Any], object], todo: str, note: Note) -> None:
    if value is None or value is WRONG:
        return
    try:
        check(value)
    except ConfigError as error:
        note(path, str(error), todo)


def _readable(path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
