"""Ed25519 keys of commands: the monitor signs with a private key, the executor holds public keys only (RFC 8032).

A key's id is a fingerprint of its public half, so that logs and commands can name the key. The private half never
leaves its file and this process: no repr, log line or error shows it.
"""

from __future__ import annotations

import hashlib
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from agent.errors import KeyFileError

KEY_ID_BYTES = 8
SIGNATURE_BYTES = 64
PRIVATE_NAME = "flipback.key"
PUBLIC_NAME = "flipback.pub"


class PublicKey:
    """Verifies signatures. `id` is 16 hexadecimal digits."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key
        self.id = hashlib.sha256(key.public_bytes_raw()).hexdigest()[: 2 * KEY_ID_BYTES]

    def verify(self, signature: bytes, message: bytes) -> bool:
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def pem(self) -> bytes:
        return self._key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def __repr__(self) -> str:
        return f"PublicKey({self.id})"


class PrivateKey:
    """Signs commands. Its repr shows only the id of the public half."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key())

    @property
    def id(self) -> str:
        return self.public.id

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes of the signature."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"PrivateKey({self.id})"


def generate(directory: Path) -> tuple[Path, Path]:
    """Make a new pair in `directory`, created if missing; return the files of the private and the public key.

    Raises KeyFileError if a file of either name exists. The old key is not replaced: its commands are valid until they
    expire, and an executor that holds only the old public key would refuse all new commands.
    """
    private, public = directory / PRIVATE_NAME, directory / PUBLIC_NAME
    for path in (private, public):
        if path.exists():
            raise KeyFileError(f"{path} is there already; move it away first, or name another directory")
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Both files are complete before either gets its name: a full disk must not leave half a key for a later start.
        with _written(private, pem, 0o600) as new, _written(public, PublicKey(key.public_key()).pem(), 0o644) as other:
            # The private key comes last, so that its public half exists whenever it does.
            public.hardlink_to(other)
            try:
                private.hardlink_to(new)
            except OSError:
                public.unlink()
                raise
    except OSError as error:
        raise KeyFileError(f"cannot write keys into {directory}: {error.strerror}") from error
    return private, public


def load_private(path: Path) -> PrivateKey:
    """Read a private key. Raises KeyFileError if other users have access to the file, or it holds no such key."""
    try:
        # One descriptor for the check and the read, so that both see the same file.
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise KeyFileError(f"{path} has mode {mode:04o}; only its owner may have access: chmod 600")
            pem = file.read()
    except OSError as error:
        raise _unreadable(path, error) from error
    if not pem:
        raise KeyFileError(f"{path} is empty: a full disk may have cut it short; remove it, and make a new pair")
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # Without the cause: the parser's message may quote the content.
        raise KeyFileError(f"{path} holds no unencrypted private key in PEM; see `flipback keys generate`") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path} holds a key of another kind than Ed25519; see `flipback keys generate`")
    return PrivateKey(key)


def load_public(path: Path) -> PublicKey:
    """Read a public key. Raises KeyFileError if the file cannot be read or holds no Ed25519 public key."""
    try:
        pem = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFileError(f"{path} holds no public key in PEM; the executor wants {PUBLIC_NAME}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFileError(f"{path} holds a key of another kind than Ed25519; see `flipback keys generate`")
    return PublicKey(key)


@contextmanager
def _written(path: Path, content: bytes, mode: int) -> Iterator[Path]:
    """Write a temporary file beside `path`, durably; it is removed at the end of the context."""
    new = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        yield new
    finally:
        new.unlink(missing_ok=True)


def _unreadable(path: Path, error: OSError) -> KeyFileError:
    return KeyFileError(f"cannot read the key {path}: {error.strerror}; see `flipback keys generate`")
