"""Secrets are read from files that only their owner can read, and no message shows them."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.backends.secret_file import read_secret
from agent.errors import ConfigError


def written(directory: Path, content: bytes, mode: int = 0o600) -> Path:
    path = directory / "secret"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("content", [b"abc def", b"abc def\n", b"abc def\r\n"])
def test_a_secret_is_the_line_without_its_end(tmp_path: Path, content: bytes) -> None:
    assert read_secret(written(tmp_path, content)) == "abc def"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_file_that_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigError, match="chmod 600"):
        read_secret(written(tmp_path, b"hush", mode))


@pytest.mark.parametrize("content", [b"", b"\n", b"hush\nhush", b"hush\x00", b"h\xc3\xbcsh"])
def test_what_is_no_secret_is_refused_and_not_quoted(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ConfigError, match="one line of printable ASCII") as refused:
        read_secret(written(tmp_path, content))
    assert "hush" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere: No such file"):
        read_secret(tmp_path / "nowhere")
