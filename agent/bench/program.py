"""The `flipback` command of this installation."""

from __future__ import annotations

import sys
from pathlib import Path


def program() -> list[str]:
    """The command's arguments, to which a subcommand is appended."""
    script = Path(sys.executable).with_name("flipback")
    return [str(script)] if script.exists() else [sys.executable, "-c", "from agent.cli import main; main()"]
