"""The person behind an order: a name and a reason that fit into the evidence of a command."""

from __future__ import annotations

import getpass
import os

MAX_REASON = 4096
MAX_NAME = 512
"""The most characters in the evidence of a command (agent.commands.command.Evidence)."""


def user() -> str:
    """Return the name of this process's user, or "uid 12345": containers often run as a user without a name."""
    try:
        return encodable(getpass.getuser())[:MAX_NAME]
    except (KeyError, OSError, ImportError):
        return f"uid {os.getuid()}"


def encodable(text: str) -> str:
    """Replace what cannot be written as UTF-8: Python keeps invalid bytes of an argument as lone surrogates."""
    return text.encode("utf-8", "replace").decode()
