"""Checks of this machine: the keys, the state directory and the halt of automation."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from agent.commands.keys import load_private, load_public
from agent.config.model import Config
from agent.errors import ConfigError, LedgerError
from agent.events.wording import halt_in_force
from agent.executor.build import LEDGER
from agent.ledger.automation import FILE_NAME, Automation
from agent.ledger.probe import TODO, probe_state
from agent.preflight.finding import Finding


def check_keys(config: Config) -> Iterator[Finding]:
    """Check the keys of commands. Without configured and existing keys, a process with all roles makes its own."""
    if config.keys.signing_key is None and config.keys.public_keys is None and not config.signing_key.exists():
        yield Finding(what="keys", ok=True, detail="none yet; a process that has all roles makes its own")
        return
    if config.signing_key.exists():
        try:
            private = load_private(config.signing_key)
            yield Finding(what="signing key", ok=True, detail=f"{private.id} in {config.signing_key}")
        except ConfigError as error:
            yield Finding(what="signing key", ok=False, detail=str(error))
    else:
        yield Finding(what="signing key", ok=True, detail="not here; only a monitor needs it")
    for path in config.public_keys:
        try:
            yield Finding(what="public key", ok=True, detail=f"{load_public(path).id} in {path}")
        except ConfigError as error:
            yield Finding(what="public key", ok=False, detail=str(error))


def check_state(config: Config) -> Finding:
    """Check that the executor could write its ledger: it flips nothing that it cannot record."""
    state_dir = config.state_dir
    directories = [state_dir, state_dir / LEDGER]
    problem = next((found for path in directories if (found := _directory_problem(path)) is not None), None)
    if problem is None:
        files = [state_dir / FILE_NAME, state_dir / f".{FILE_NAME}.lock", *(state_dir / LEDGER).glob("*.jsonl")]
        bad = next((path for path in files if os.path.lexists(path) and not os.access(path, os.R_OK | os.W_OK)), None)
        problem = _probe_problem(state_dir) if bad is None else f"{bad} cannot be read and written by this user"
    if problem is not None:
        return Finding(what="state_dir", ok=False, detail=f"{problem}; {TODO}")
    known = "can be used" if state_dir.is_dir() else "is not there yet and can be made"
    return Finding(what="state_dir", ok=True, detail=f"{state_dir} {known}")


def _probe_problem(state_dir: Path) -> str | None:
    """Return why the disk would not take an entry, if so.

    Permissions do not show that a disk is full, or that it has no hard links.
    """
    try:
        probe_state(state_dir / LEDGER)
    except LedgerError as error:
        return str(error)
    return None


def _directory_problem(path: Path) -> str | None:
    """Return why a directory cannot be used, or created if it is missing; None if it can. Writes nothing."""
    # A missing directory is created in its nearest existing parent.
    there = next(place for place in [path, *path.absolute().parents] if os.path.lexists(place))
    if not there.is_dir():
        return f"{there} is no directory"
    rights = os.R_OK | os.W_OK | os.X_OK if there == path else os.W_OK | os.X_OK
    if os.access(there, rights):
        return None
    return f"{path} cannot be {'read and written' if there == path else f'made in {there}'} by this user"


def check_automation(config: Config) -> Iterator[Finding]:
    """Yield the halt that is in force, if any. It stops the triggers' rollbacks, not a person's."""
    if not config.state_dir.exists():
        return
    try:
        halt = Automation(config.state_dir).halted()
    except LedgerError as error:
        yield Finding(what="automation", ok=False, detail=str(error))
        return
    if halt is not None:
        yield Finding(what="automation", ok=False, detail=halt_in_force(halt))
