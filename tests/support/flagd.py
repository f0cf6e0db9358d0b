"""A flagd file and its backend, for tests of how the backend changes the file."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.backends import settings
from agent.backends.contract import FlagRef
from agent.backends.flagd.backend import FlagdFileBackend

REF = FlagRef("new-checkout", "production")


def soon(seconds: float = 60.0) -> float:
    """Return a deadline this many seconds from now."""
    return time.monotonic() + seconds


def fixtures(text: str) -> tuple[Any, Any]:
    """Make the fixtures `path`, a file with this text, and `backend`, which uses it and is closed at the end."""

    @pytest.fixture
    def path(tmp_path: Path) -> Path:
        file = tmp_path / "flags.json"
        file.write_text(text)
        return file

    @pytest.fixture
    async def backend(path: Path) -> AsyncIterator[FlagdFileBackend]:
        made = FlagdFileBackend(settings.FlagdFile(path=path))
        yield made
        await made.close()

    return path, backend
