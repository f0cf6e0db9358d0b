"""Read recorded telemetry from files: a record per line, or columnar batches with their length before each."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from agent.errors import FlipbackError
from streams.settings import Format
from streams.telemetry.sample import MAX_RECORD_BYTES

_LENGTH = struct.Struct("<I")


class RecordingError(FlipbackError):
    """A recording cannot be read."""


def read(path: Path, format: Format) -> Iterator[bytes]:
    """Yield the records of a file, which may be gzipped (recognised by its first bytes). Raises RecordingError.

    `columnar`: each record follows its length, a little-endian unsigned 32-bit number. `json-array`: the file is one
    record. Other formats: each line that is not empty is a record.
    """
    try:
        with _open(path) as file:
            if format == "columnar":
                yield from _with_lengths(file, path)
            elif format == "json-array":
                yield file.read()
            else:
                for line in file:
                    if record := line.strip():
                        yield record
    except (OSError, EOFError) as error:
        raise RecordingError(f"{path} cannot be read: {error}") from error


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if not zipped:
            yield file
            return
        with gzip.GzipFile(fileobj=file) as content:
            yield content  # type: ignore[misc]


def _with_lengths(file: BinaryIO, path: Path) -> Iterator[bytes]:
    while head := file.read(_LENGTH.size):
        if len(head) < _LENGTH.size:
            raise RecordingError(f"{path} ends inside the length of a record")
        (length,) = _LENGTH.unpack(head)
        if length > MAX_RECORD_BYTES:
            raise RecordingError(f"{path}: a record of {length} bytes; at most {MAX_RECORD_BYTES} are read")
        record = file.read(length)
        if len(record) < length:
            raise RecordingError(f"{path} ends inside a record of {length} bytes")
        yield record
