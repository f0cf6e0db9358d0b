from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent.commands.keys import generate, load_private, load_public
from agent.errors import KeyFileError


def test_what_the_private_key_signs_its_public_half_accepts(tmp_path: Path) -> None:
    private_file, public_file = generate(tmp_path)
    private, public = load_private(private_file), load_public(public_file)
    assert private.id == public.id
    assert len(public.id) == 16
    assert public.verify(private.sign(b"words"), b"words")
    assert not public.verify(private.sign(b"words"), b"other words")


def test_a_key_does_not_accept_what_another_signed(tmp_path: Path) -> None:
    one, _ = generate(tmp_path / "one")
    _, other = generate(tmp_path / "other")
    assert not load_public(other).verify(load_private(one).sign(b"words"), b"words")


def test_the_private_file_is_its_owners_alone_from_the_start(tmp_path: Path) -> None:
    private_file, _ = generate(tmp_path / "keys")
    assert stat.S_IMODE(private_file.stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o644, 0o601])
def test_a_private_key_that_others_can_touch_is_refused(tmp_path: Path, mode: int) -> None:
    private_file, _ = generate(tmp_path)
    private_file.chmod(mode)
    with pytest.raises(KeyFileError, match="chmod 600"):
        load_private(private_file)


def test_an_existing_key_is_never_overwritten(tmp_path: Path) -> None:
    private_file, public_file = generate(tmp_path)
    before = private_file.read_bytes(), public_file.read_bytes()
    with pytest.raises(KeyFileError, match="already"):
        generate(tmp_path)
    assert (private_file.read_bytes(), public_file.read_bytes()) == before


def test_nothing_of_the_private_key_is_in_its_repr(tmp_path: Path) -> None:
    private_file, _ = generate(tmp_path)
    key = load_private(private_file)
    assert repr(key) == f"PrivateKey({key.id})"
    assert str(key) == repr(key)


def test_an_error_shows_nothing_of_the_file(tmp_path: Path) -> None:
    broken = tmp_path / "broken.key"
    broken.write_bytes(b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n")
    broken.chmod(0o600)
    with pytest.raises(KeyFileError) as caught:
        load_private(broken)
    assert "c2VjcmV0" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    key = X25519PrivateKey.generate()
    private, public = tmp_path / "x.key", tmp_path / "x.pub"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    private.chmod(0o600)
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    with pytest.raises(KeyFileError, match="Ed25519"):
        load_private(private)
    with pytest.raises(KeyFileError, match="Ed25519"):
        load_public(public)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"absent\.key"):
        load_private(tmp_path / "absent.key")
    with pytest.raises(KeyFileError, match=r"absent\.pub"):
        load_public(tmp_path / "absent.pub")


def test_a_private_key_is_not_taken_for_a_public_one(tmp_path: Path) -> None:
    private_file, public_file = generate(tmp_path)
    with pytest.raises(KeyFileError):
        load_public(private_file)
    public_file.chmod(0o600)
    with pytest.raises(KeyFileError):
        load_private(public_file)


def test_a_disk_that_fills_up_leaves_no_half_of_a_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When there is room again, the next start makes its keys."""

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", full)
        with pytest.raises(KeyFileError, match="No space left"):
            generate(tmp_path)
    assert list(tmp_path.iterdir()) == []
    private_file, public_file = generate(tmp_path)
    assert load_private(private_file).id == load_public(public_file).id
    assert sorted(tmp_path.iterdir()) == [private_file, public_file]
