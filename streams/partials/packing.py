"""Columns of integers as bytes, in the narrowest width that holds them.

A column is little-endian after its least value is subtracted, so that a cell of a quiet scope takes about 40 bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import msgspec
import numpy as np

from detectors.arrays import Int
from detectors.cells import COLUMNS, Cells

_WIDTHS = ("<u1", "<u2", "<u4", "<i8")
_SIZES = tuple(np.dtype(width).itemsize for width in _WIDTHS)


class Column(msgspec.Struct, array_like=True, frozen=True):
    """`data` holds unsigned (or, at width 3, signed) integers; a value is one of them plus `least`."""

    width: int
    least: int
    data: bytes


def pack(cells: Cells) -> list[Column]:
    """The arrays of a block, in the order of `COLUMNS`; an array of two axes row by row."""
    return [packed(getattr(cells, column.name)) for column in COLUMNS]


def packed(values: Int) -> Column:
    """One array, of any shape, as bytes."""
    if not values.size:
        return Column(0, 0, b"")
    least = int(values.min())
    spread = int(values.max()) - least
    width = 0 if spread < 1 << 8 else 1 if spread < 1 << 16 else 2 if spread < 1 << 32 else 3
    # A span of more than 63 bits cannot be shifted without overflow; such a column keeps its values.
    if spread >= 1 << 63:
        return Column(3, 0, values.astype("<i8").tobytes())
    return Column(width, least, (values - least).astype(_WIDTHS[width]).tobytes())


def unpacked(columns: Sequence[Column]) -> tuple[Int, list[int]]:
    """The numbers of the same column of several blocks, one after the other, and how many each block has.

    Raises ValueError for a width or a number of bytes that cannot be.
    """
    lengths = []
    for column in columns:
        if not 0 <= column.width < len(_WIDTHS):
            raise ValueError(f"a column of width {column.width}, expected 0 to {len(_WIDTHS) - 1}")
        length, rest = divmod(len(column.data), _SIZES[column.width])
        if rest:
            raise ValueError(f"a column of {len(column.data)} bytes, expected a multiple of {_SIZES[column.width]}")
        lengths.append(length)
    parts = [
        np.frombuffer(b"".join([column.data for column in same]), dtype=_WIDTHS[width]).astype(np.int64)
        for width, same in groupby(columns, lambda column: column.width)
    ]
    values = parts[0] if len(parts) == 1 else np.concatenate(parts)
    values += repeated([column.least for column in columns], lengths)
    return values, lengths


def repeated(values: Sequence[int], lengths: Sequence[int]) -> Int | np.int64:
    """A value for each row of several blocks; of a single block, as live ones are, the value itself."""
    return np.int64(values[0]) if len(values) == 1 else np.array(values, dtype=np.int64).repeat(lengths)
