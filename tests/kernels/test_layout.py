"""Packed tensors unpack to the original, and are stored where FORMAT.md says."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from embgemma.kernels.layout import (
    CODEBOOK_INPUTS,
    INT4_CODEBOOKS,
    ROW_BITS,
    ROW_LEVELS,
    EmbeddingRows,
    codebook_shape,
    pack_codebooks,
    pack_panels,
    pack_rows,
    pack_table,
    panel_shape,
    row_bytes,
    table_bytes,
    unpack_codebooks,
    unpack_panels,
    unpack_rows,
)
from embgemma.kernels.rotation import rotate_blocks


def int4_rows(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Levels (rows, columns) and their codebooks (rows, columns / 16), all of them in use."""
    random = np.random.default_rng(0)
    codebooks = random.integers(0, len(INT4_CODEBOOKS), (rows, columns // CODEBOOK_INPUTS), np.uint8)
    codes = random.integers(0, 16, (rows, columns))
    return INT4_CODEBOOKS[np.repeat(codebooks, CODEBOOK_INPUTS, axis=1), codes], codebooks


def test_codebooks_are_symmetric_and_ascending() -> None:
    assert (np.diff(INT4_CODEBOOKS.astype(int), axis=1) > 0).all()
    np.testing.assert_array_equal(INT4_CODEBOOKS, -INT4_CODEBOOKS[:, ::-1])


def test_an_int4_matrix_unpacks_to_the_original() -> None:
    levels, codebooks = int4_rows(48, 192)
    weight, books = pack_panels(levels, "int4", codebooks), pack_codebooks(codebooks)
    assert (weight.dtype, weight.shape) == (np.dtype(np.uint8), panel_shape("int4", 48, 192))
    assert (books.dtype, books.shape) == (np.dtype(np.uint8), codebook_shape(48, 192))
    np.testing.assert_array_equal(unpack_panels(weight, books), levels)
    np.testing.assert_array_equal(unpack_codebooks(books), codebooks)


def test_an_int4_weight_is_stored_where_the_format_says() -> None:
    levels, codebooks = int4_rows(32, 128)
    weight, books = pack_panels(levels, "int4", codebooks), pack_codebooks(codebooks)
    for channel, column in ((0, 0), (17, 5), (31, 127), (9, 76)):
        byte = weight[channel // 16, column // 8, channel % 16, column % 4]
        code = byte >> 4 if column % 8 >= 4 else byte & 15
        number = books[channel // 16, column // 64, channel % 16] >> column % 64 // 16 * 2 & 3
        assert INT4_CODEBOOKS[number, code] == levels[channel, column]


@pytest.mark.parametrize("bits", ROW_LEVELS)
def test_rows_unpack_to_the_original_and_lie_where_the_format_says(bits: int) -> None:
    levels = ROW_LEVELS[bits][np.random.default_rng(0).integers(0, 1 << bits, (5, 192))]
    stored = pack_rows(levels, bits)
    assert (stored.dtype, stored.shape) == (np.dtype(np.uint8), (5, 192 * bits // 8))
    np.testing.assert_array_equal(unpack_rows(stored, bits), levels)
    block = np.resize(stored[4, 2 * 8 * bits :], 64)  # elements 128 … 191
    codes = {
        3: {7: block[7] & 3 | (block[16 + 7] & 1) << 2, 55: block[7] >> 6 | (block[16 + 7] >> 6 & 1) << 2},
        4: {7: block[7] & 15, 39: block[7] >> 4},
        6: {7: block[7] & 15 | (block[32 + 7] & 3) << 4, 55: block[23] >> 4 | block[32 + 7] >> 6 << 4},
    }[bits]
    assert {place: ROW_LEVELS[bits][code] for place, code in codes.items()} == {i: levels[4, 128 + i] for i in codes}


def test_a_table_of_several_bits_gives_its_rows_and_parts_of_it() -> None:
    random = np.random.default_rng(1)
    bits = random.permutation(np.repeat(np.array(ROW_BITS, np.uint8), (20, 13, 21, 10)))
    codebooks = {**ROW_LEVELS, 8: np.arange(-127, 128, dtype=np.int8)}
    levels = np.stack([random.choice(codebooks[width], 64) for width in bits.tolist()])
    packed = pack_table(levels, bits)
    assert len(packed) == row_bytes(bits, 64).sum() <= table_bytes(bits, 64) < len(packed) + 64
    scale = random.uniform(0.1, 1, 64).astype(np.float16)
    table = {"embedding.weight": packed, "embedding.bits": bits, "embedding.scale": scale}
    rows = EmbeddingRows(table, 64)
    ids = np.array([63, 0, 17, 17, 5])
    np.testing.assert_array_equal(rows.levels(ids), levels[ids])
    expected = rotate_blocks(levels[ids] * scale[ids, None].astype(np.float32))
    np.testing.assert_array_equal(rows.values(ids), expected)
    some = np.flatnonzero(random.integers(0, 2, 64))
    part = EmbeddingRows(rows.part(some), 64)
    np.testing.assert_array_equal(part.values(np.arange(len(some))), rows.values(some))


def test_a_part_of_a_table_takes_little_more_memory_than_it_has() -> None:
    random = np.random.default_rng(2)
    bits = random.choice(np.array(ROW_BITS, np.uint8), 1024)
    stored = random.integers(0, 256, table_bytes(bits, 4096), np.uint8)
    rows = EmbeddingRows({"embedding.weight": stored, "embedding.bits": bits}, 4096)
    tracemalloc.start()
    try:
        part = rows.part(np.arange(1, 1024))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.2 * part["embedding.weight"].nbytes
