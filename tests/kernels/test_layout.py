"""Packed matrices unpack to the original, and are stored where FORMAT.md says."""

from __future__ import annotations

import numpy as np

from embgemma.kernels.layout import (
    CODEBOOK_INPUTS,
    INT4_CODEBOOKS,
    codebook_shape,
    pack_codebooks,
    pack_panels,
    panel_shape,
    unpack_codebooks,
    unpack_panels,
)


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
