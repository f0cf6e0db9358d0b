"""The command `flipback` of this installation."""

from __future__ import annotations

import sys
from pathlib import Path


def program() -> list[str]:
    """Its words, to be followed by a subcommand."""
    script = Path(sys.executable).with_name("flipback")
    return [str(script)] if script.exists() else [sys.executable, "-c", "from agent.cli import main; main()"]
