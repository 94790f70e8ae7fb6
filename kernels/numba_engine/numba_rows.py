"""Reads rows of the embedding table, as `decode_rows` of embedding_rows.py does."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from ..embedding_rows import WORD_BITS, Bytes, Levels, RowCode
from .numba_team import OPTIONS

PADDING = 3  # bytes that are read at a time: a word may begin and end within a byte


@numba.njit(**OPTIONS)
def _decode(padded: Any, row_bytes: int, code_levels: Any, code_bits: Any, levels: Any, ends: Any) -> None:
    for r in range(len(padded)):
        position = 0
        for i in range(levels.shape[1]):
            byte = min(position >> 3, row_bytes)
            window = np.int64(padded[r, byte]) << 16 | np.int64(padded[r, byte + 1]) << 8 | padded[r, byte + 2]
            first = window >> (8 * PADDING - WORD_BITS - (position & 7)) & (1 << WORD_BITS) - 1
            levels[r, i] = code_levels[first]
            position += np.int64(code_bits[first])
        ends[r] = position


def decode_rows(stored: Bytes, code: RowCode, hidden: int) -> tuple[Levels, npt.NDArray[np.int64]]:
    """The levels (rows, hidden) of stored rows (rows, bytes), and where each ends, in bits."""
    levels, ends = np.empty((len(stored), hidden), np.int8), np.empty(len(stored), np.int64)
    _decode(np.pad(stored, ((0, 0), (0, PADDING))), stored.shape[1], code.levels, code.bits, levels, ends)
    return levels, ends
