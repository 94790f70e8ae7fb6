"""The embedding table as a model file stores it: by rows, since rows are gathered. FORMAT.md says the same in prose.

A table is F32 or I8 [vocab][hidden], or U8 [bytes]: rows end to end, each element a word of a prefix code. Rotated rows
are spread like a normal distribution, so that levels near 0 are frequent, and get short words.

    rate         how long a row is, in quarters of a bit an element, U8 [vocab]: more for frequent pieces
    code length  how many bits a level's word has, U8 [32][256], by rate and level + 128; 0 for a level without a word

Words come in the order of their lengths, then of their levels, as those of a canonical Huffman code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from .errors import ModelFileError
from .layout import ALIGNMENT, DTYPE_FORMATS, Tensor
from .rotation import rotate_blocks

RATE_BITS = 4  # a rate counts quarters of a bit
RATES = 32  # the highest: 8 bits
LEVELS = 256  # -128 … 127
LOWEST = -128
WORD_BITS = 12  # of the longest word

Levels: TypeAlias = npt.NDArray[np.int8]
Bytes: TypeAlias = npt.NDArray[np.uint8]


class RowCode:
    """The prefix code of one rate; raises ModelFileError if it is none.

    Args:
        rate: of the rows that have it.
        lengths: (LEVELS,) of the words, in bits; together they use up all patterns of WORD_BITS bits.

    Attributes:
        levels, bits: (1 << WORD_BITS,) what the word is that these bits begin with, and its length.
    """

    def __init__(self, rate: int, lengths: Bytes) -> None:
        in_order = np.lexsort((np.arange(LEVELS), lengths))
        in_order = in_order[lengths[in_order] > 0]
        shares = (1 << WORD_BITS) >> lengths[in_order].astype(np.int64)
        if lengths.max() > WORD_BITS or shares.sum() != 1 << WORD_BITS:
            raise ModelFileError(
                f"the words of rate {rate} of the embedding table are not a prefix code of up to {WORD_BITS} bits that "
                "uses up all patterns; convert the checkpoint again"
            )
        self.lengths = lengths
        self.levels = np.repeat((in_order + LOWEST).astype(np.int8), shares)
        self.bits = np.repeat(lengths[in_order], shares)
        self._words = np.zeros(LEVELS, np.uint16)  # the first bits first, from the highest on
        self._words[in_order] = (np.cumsum(shares) - shares) << (16 - WORD_BITS)

    def size(self, levels: Levels) -> npt.NDArray[np.int64]:
        """Bits that rows of levels (rows, hidden) take: (rows,)."""
        return np.asarray(self.lengths[levels.view(np.uint8) ^ 0x80].sum(axis=1, dtype=np.int64))

    def encode(self, levels: Levels, row_bytes: int) -> Bytes:
        """Rows of levels (rows, hidden) that fit so many bytes as words, and zeros behind them: (rows, row_bytes)."""
        places = levels.view(np.uint8) ^ 0x80
        words, lengths = self._words[places], self.lengths[places]
        bits = np.unpackbits(words.astype(">u2").view(np.uint8).reshape(*levels.shape, 2), axis=2)
        row_bits = np.zeros((len(levels), 8 * row_bytes), np.uint8)
        sizes = lengths.sum(axis=1, dtype=np.int64)
        row_bits[np.arange(8 * row_bytes) < sizes[:, None]] = bits[np.arange(16) < lengths[..., None]]
        return np.packbits(row_bits, axis=1)


Decoder: TypeAlias = Callable[[Bytes, RowCode, int], tuple[Levels, npt.NDArray[np.int64]]]


def decode_rows(stored: Bytes, code: RowCode, hidden: int) -> tuple[Levels, npt.NDArray[np.int64]]:
    """The levels (rows, hidden) of stored rows (rows, bytes), and where each ends, in bits."""
    padded = np.pad(stored, ((0, 0), (0, 3))).astype(np.int32)
    rows, ends = np.arange(len(stored)), np.zeros(len(stored), np.int64)
    levels = np.empty((len(stored), hidden), np.int8)
    for i in range(hidden):
        byte = np.minimum(ends >> 3, stored.shape[1])
        window = padded[rows, byte] << 16 | padded[rows, byte + 1] << 8 | padded[rows, byte + 2]
        first = window >> (24 - WORD_BITS - (ends & 7)) & (1 << WORD_BITS) - 1
        levels[:, i] = code.levels[first]
        ends += code.bits[first]
    return levels, ends


def row_bytes(rates: Tensor, hidden: int) -> npt.NDArray[np.int64]:
    """Bytes of rows of these rates."""
    return rates.astype(np.int64) * (hidden // (8 * RATE_BITS))


def table_bytes(rates: Tensor, hidden: int) -> int:
    """Bytes of an embedding table whose rows have these rates: (vocab,) uint8."""
    return -(-int(row_bytes(rates, hidden).sum()) // ALIGNMENT) * ALIGNMENT


def table_format(tensors: Mapping[str, Tensor]) -> str:
    """How the embedding table of a file is stored, such as "int8" or "3.56 bits an element, 2.5 to 6 by row"."""
    if "embedding.rate" not in tensors:
        return DTYPE_FORMATS[tensors["embedding.weight"].dtype]
    bits = tensors["embedding.rate"] / RATE_BITS
    return f"{bits.mean():.2f} bits an element, {bits.min():g} to {bits.max():g} by row"


def encode_table(levels: Levels, rates: Bytes, codes: Mapping[int, RowCode]) -> Bytes:
    """Rows of levels (rows, hidden) end to end, in the codes of their rates: (bytes,)."""
    sizes = row_bytes(rates, levels.shape[1])
    ends = np.cumsum(sizes)
    table = np.empty(int(sizes.sum()), np.uint8)
    for rate in np.unique(rates).tolist():
        rows = codes[rate].encode(levels[rates == rate], int(row_bytes(np.array(rate), levels.shape[1])))
        table[(ends - sizes)[rates == rate][:, None] + np.arange(rows.shape[1])] = rows
    return table


def check_table(tensors: Mapping[str, Tensor], hidden: int) -> None:
    """Checks rates, codes and size of the table among the tensors of a file, if its rows have rates.

    Raises ModelFileError. Whether the words of a row end within it shows when it is read.
    """
    if "embedding.rate" not in tensors:
        return
    rates, stored = tensors["embedding.rate"], tensors["embedding.weight"]
    counts = np.bincount(rates, minlength=RATES + 1)
    used = np.flatnonzero(counts)
    wrong = used[(used < RATE_BITS) | (used > RATES)]
    if len(wrong):
        raise ModelFileError(
            f"a row of the embedding table has rate {wrong[0]}: expected {RATE_BITS} … {RATES}; convert the checkpoint "
            "again"
        )
    for rate in used.tolist():
        RowCode(rate, tensors["embedding.code_length"][rate - 1])
    end = int(counts @ row_bytes(np.arange(len(counts)), hidden))
    needed = end + -end % ALIGNMENT
    if needed != len(stored):
        raise ModelFileError(
            f"the embedding table has {len(stored)} bytes; its rows need {needed}; convert the checkpoint again"
        )
    filled = np.flatnonzero(stored[end:])
    if len(filled):
        raise ModelFileError(
            f"byte {end + filled[0]} of the embedding table, behind its rows, is not 0; convert the checkpoint again"
        )


class EmbeddingRows:
    """The rows of the embedding table among the tensors of a model file.

    Args:
        tensors: those of the file.
        hidden: elements of a row.
        decode: as `decode_rows`, which is slow.
    """

    def __init__(self, tensors: Mapping[str, Tensor], hidden: int, decode: Decoder = decode_rows) -> None:
        self._hidden = hidden
        self._decode = decode
        self._weight = tensors["embedding.weight"]
        self._scale = tensors.get("embedding.scale")
        self._rates: Bytes | None = None
        if "embedding.rate" in tensors:  # copied: they were checked, and the file may change
            self._rates = tensors["embedding.rate"].copy()
            self._ends = np.cumsum(row_bytes(self._rates, hidden))
            lengths = tensors["embedding.code_length"].copy()
            self._codes = {rate: RowCode(rate, lengths[rate - 1]) for rate in np.unique(self._rates).tolist()}

    def levels(self, ids: npt.NDArray[np.integer]) -> tuple[Tensor, npt.NDArray[np.bool_]]:
        """Rows `ids` as stored, float32 values or int8 levels (len(ids), hidden), and which of them are damaged."""
        damaged = np.zeros(len(ids), np.bool_)
        if self._rates is None:
            return np.asarray(self._weight[ids]), damaged
        levels = np.empty((len(ids), self._hidden), np.int8)
        for rate in np.unique(self._rates[ids]).tolist():
            chosen = self._rates[ids] == rate
            stored = self._stored(ids[chosen], rate)
            levels[chosen], ends = self._decode(stored, self._codes[rate], self._hidden)
            damaged[chosen] = ends > 8 * stored.shape[1]
        return levels, damaged

    def _stored(self, ids: npt.NDArray[np.integer], rate: int) -> Bytes:
        """The bytes of rows that have this rate: (len(ids), bytes)."""
        size = int(row_bytes(np.array(rate), self._hidden))
        return np.asarray(np.lib.stride_tricks.sliding_window_view(self._weight, size)[self._ends[ids] - size])

    def values(self, ids: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """Rows `ids` as float32 (len(ids), hidden), sqrt(hidden) included; NaN where they are damaged."""
        rows, damaged = self.levels(ids)
        if self._scale is None:
            return np.asarray(rows, np.float32)
        scale = self._scale[ids].astype(np.float32)
        scale[damaged] = np.nan
        return rotate_blocks(rows * scale[:, None])

    def part(self, ids: npt.NDArray[np.integer]) -> dict[str, Tensor]:
        """The tensors of a table of rows `ids`, ascending, alone, but for those that are not of rows."""
        parts = {} if self._scale is None else {"embedding.scale": self._scale[ids]}
        if self._rates is None:
            return {"embedding.weight": self._weight[ids], **parts}
        sizes = row_bytes(self._rates[ids], self._hidden)
        ends = np.cumsum(sizes)
        weight = np.zeros(table_bytes(self._rates[ids], self._hidden), np.uint8)
        # Row by row: numpy would take eight bytes to index each.
        for size, end, old_end in zip(sizes.tolist(), ends.tolist(), self._ends[ids].tolist(), strict=True):
            weight[end - size : end] = self._weight[old_end - size : old_end]
        return {"embedding.weight": weight, "embedding.rate": self._rates[ids], **parts}
