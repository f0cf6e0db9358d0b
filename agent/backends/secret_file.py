"""Files that hold a secret: only their owner may read them, and no message shows their content."""

from __future__ import annotations

import stat
from pathlib import Path

from agent.errors import ConfigError


def check_secret_file(path: Path) -> None:
    """Raise ConfigError if a file that holds a secret cannot be read, or other users have access to it."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        path.open("rb").close()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if mode & 0o077:
        raise ConfigError(f"{path} has mode {mode:04o}; only the owner of a secret may have access to it: chmod 600")


def read_secret(path: Path) -> str:
    """Return the secret in a file: one line of printable ASCII, without white space around it.

    Raises ConfigError if the file cannot be used; no error quotes its content.
    """
    check_secret_file(path)
    try:
        secret = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        # Without the cause, which holds the bytes.
        raise ConfigError(f"{path} holds no secret: expected one line of printable ASCII") from None
    if not secret or not secret.isprintable():
        raise ConfigError(f"{path} holds no secret: expected one line of printable ASCII")
    return secret
