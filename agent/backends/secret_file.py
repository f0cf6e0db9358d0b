"""Files that hold a secret: they are their owner's alone, and what they hold is never shown."""

from __future__ import annotations

import stat
from pathlib import Path

from agent.errors import ConfigError


def check_secret_file(path: Path) -> None:
    """Raises ConfigError where a file that holds a secret cannot be read, or can be read by others."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        path.open("rb").close()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if mode & 0o077:
        raise ConfigError(f"{path} has mode {mode:04o}; what holds a secret must be its owner's alone: chmod 600")


def read_secret(path: Path) -> str:
    """The secret in a file, one line of printable ASCII, without the end of the line.

    Raises ConfigError where the file cannot be used; no error quotes it.
    """
    check_secret_file(path)
    try:
        secret = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        # The cause is left out: it holds the bytes.
        raise ConfigError(f"{path} holds no secret: expected one line of printable ASCII") from None
    if not secret or not secret.isprintable():
        raise ConfigError(f"{path} holds no secret: expected one line of printable ASCII")
    return secret
