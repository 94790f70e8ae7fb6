"""Rows of the embedding table are read as they were written, and damaged ones are noticed."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from embgemma.export.quantise.row_rounder import RowRounder, normal_code
from embgemma.kernels.embedding_rows import (
    LEVELS,
    LOWEST,
    RATES,
    WORD_BITS,
    EmbeddingRows,
    RowCode,
    check_table,
    decode_rows,
    encode_table,
    row_bytes,
    table_bytes,
    table_format,
)
from embgemma.kernels.errors import ModelFileError
from embgemma.kernels.rotation import rotate_blocks

if TYPE_CHECKING:
    from embgemma.kernels.embedding_rows import Bytes, Decoder, Levels
    from embgemma.kernels.layout import Tensor

HIDDEN = 64


@pytest.fixture(params=["numpy", "numba"])
def decode(request: pytest.FixtureRequest) -> Decoder:
    if request.param == "numpy":
        return decode_rows
    decoder: Decoder = pytest.importorskip("embgemma.kernels.numba_engine.numba_rows").decode_rows
    return decoder


def code_of(lengths: dict[int, int]) -> RowCode:
    """The code whose words of these levels have these lengths."""
    of_levels = np.zeros(LEVELS, np.uint8)
    for level, bits in lengths.items():
        of_levels[level - LOWEST] = bits
    return RowCode(1, of_levels)


def random_code(seed: int) -> RowCode:
    """A code of any number of words: one is split into two longer ones, again and again."""
    random = np.random.default_rng(seed)
    lengths = [1, 1]
    for _ in range(random.integers(LEVELS - 1)):
        split = random.choice([i for i, bits in enumerate(lengths) if bits < WORD_BITS])
        lengths[split] += 1
        lengths.append(lengths[split])
    levels = random.permutation(LEVELS)[: len(lengths)] + LOWEST
    return code_of(dict(zip(levels.tolist(), lengths, strict=True)))


def random_levels(code: RowCode, rows: int) -> Levels:
    """Levels of the code, each as often as others."""
    levels = np.flatnonzero(code.lengths) + LOWEST
    return np.random.default_rng(0).choice(levels.astype(np.int8), (rows, HIDDEN))


CODES = {
    **{f"random {seed}": random_code(seed) for seed in range(8)},
    **{f"rate {rate}": RowCode(rate, normal_code(rate)[1]) for rate in (4, 5, 13, 22, RATES)},
}


def test_words_come_in_the_order_of_their_lengths_then_of_their_levels() -> None:
    code = code_of({0: 1, -1: 2, 2: 3, 1: 3})
    stored = code.encode(np.array([[0, -1, 1, 2, 0, 0, -1, -1]], np.int8), 3)
    assert stored.tolist() == [[0b0_10_110_11, 0b1_0_0_10_10_0, 0]]


@pytest.mark.parametrize("name", CODES)
def test_rows_are_read_as_they_were_written(decode: Decoder, name: str) -> None:
    code = CODES[name]
    levels = random_levels(code, 20)
    size = code.size(levels)
    stored = code.encode(levels, int(-(-size.max() // 8)))
    found, ends = decode(stored, code, HIDDEN)
    np.testing.assert_array_equal(found, levels, strict=True)
    np.testing.assert_array_equal(ends, size, strict=True)


@pytest.mark.parametrize("name", CODES)
def test_numba_reads_any_bytes_as_numpy_does(name: str) -> None:
    numba_rows = pytest.importorskip("embgemma.kernels.numba_engine.numba_rows")
    stored = np.random.default_rng(0).integers(0, 256, (50, 24), np.uint8)
    expected, found = (decode(stored, CODES[name], HIDDEN) for decode in (decode_rows, numba_rows.decode_rows))
    np.testing.assert_array_equal(found[0], expected[0], strict=True)
    np.testing.assert_array_equal(found[1], expected[1], strict=True)


def table_of(rates: Bytes) -> tuple[dict[str, Tensor], Levels]:
    """The tensors of a table of random rows of these rates, and its levels."""
    values = np.random.default_rng(1).standard_normal((len(rates), HIDDEN)).astype(np.float32)
    levels, scale = np.empty(values.shape, np.int8), np.empty(len(rates), np.float16)
    rounders = {rate: RowRounder(rate) for rate in np.unique(rates).tolist()}
    lengths = np.zeros((RATES, LEVELS), np.uint8)
    for rate, rounder in rounders.items():
        chosen = rates == rate
        levels[chosen], scales = rounder.round(values[chosen], None)
        scale[chosen] = scales[:, 0]
        lengths[rate - 1] = rounder.code.lengths
    rows = encode_table(levels, rates, {rate: rounder.code for rate, rounder in rounders.items()})
    stored = np.zeros(table_bytes(rates, HIDDEN), np.uint8)
    stored[: len(rows)] = rows
    return {
        "embedding.weight": stored,
        "embedding.rate": rates,
        "embedding.code_length": lengths,
        "embedding.scale": scale,
    }, levels


def test_a_table_of_several_rates_gives_its_rows_and_parts_of_it(decode: Decoder) -> None:
    random = np.random.default_rng(1)
    rates = random.permutation(np.repeat(np.array([5, 12, 17, RATES], np.uint8), (20, 13, 21, 10)))
    table, levels = table_of(rates)
    check_table(table, HIDDEN)
    rows = EmbeddingRows(table, HIDDEN, decode)
    ids = np.array([63, 0, 17, 17, 5])
    found, damaged = rows.levels(ids)
    np.testing.assert_array_equal(found, levels[ids], strict=True)
    assert not damaged.any()
    expected = rotate_blocks(levels[ids] * table["embedding.scale"][ids, None].astype(np.float32))
    np.testing.assert_array_equal(rows.values(ids), expected, strict=True)
    some = np.flatnonzero(random.integers(0, 2, 64))
    part = {**table, **rows.part(some)}
    check_table(part, HIDDEN)
    np.testing.assert_array_equal(EmbeddingRows(part, HIDDEN).values(np.arange(len(some))), rows.values(some))


def test_a_part_of_a_table_takes_little_more_memory_than_it_has() -> None:
    random = np.random.default_rng(2)
    rates = random.choice(np.array([12, 16, 24], np.uint8), 1024)
    table = {
        "embedding.weight": random.integers(0, 256, table_bytes(rates, 4096), np.uint8),
        "embedding.rate": rates,
        "embedding.code_length": np.tile(CODES["random 0"].lengths, (RATES, 1)),
    }
    rows = EmbeddingRows(table, 4096)
    tracemalloc.start()
    try:
        part = rows.part(np.arange(1, 1024))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.2 * part["embedding.weight"].nbytes


def small_table() -> dict[str, Tensor]:
    """Rows of 8, 24 and 24 bytes, all of level 0, with 8 bytes behind them. A first row of such words is full."""
    lengths = np.zeros((RATES, LEVELS), np.uint8)
    lengths[3] = code_of({0: 1, 1: 2, -1: 3, 2: 3}).lengths
    lengths[11] = code_of(dict.fromkeys(range(8), 3)).lengths
    return {
        "embedding.weight": np.zeros(64, np.uint8),
        "embedding.rate": np.array([4, 12, 12], np.uint8),
        "embedding.code_length": lengths,
        "embedding.scale": np.ones(3, np.float16),
    }


def test_a_row_whose_last_word_is_a_bit_too_long_has_no_values(decode: Decoder) -> None:
    table = small_table()
    ids = np.array([2, 0, 1])
    np.testing.assert_array_equal(EmbeddingRows(table, HIDDEN, decode).values(ids), np.zeros((3, HIDDEN)))
    table["embedding.weight"][7] = 1  # the last word becomes 10
    rows = EmbeddingRows(table, HIDDEN, decode)
    assert rows.levels(ids)[1].tolist() == [False, True, False]
    assert np.isnan(rows.values(ids)).all(axis=1).tolist() == [False, True, False]
    assert np.isfinite(rows.values(ids[::2])).all()


@pytest.mark.parametrize(
    ("name", "place", "value", "reason"),
    [
        ("rate", 0, 3, "has rate 3: expected 4 … 32"),
        ("rate", 2, 33, "has rate 33: expected 4 … 32"),
        ("rate", 1, 6, "words of rate 6 of"),  # no code
        ("code_length", (3, -LOWEST), 2, "words of rate 4 of"),  # not all patterns
        ("code_length", (11, 0), 12, "words of rate 12 of"),  # more than all
        ("code_length", (11, 0), 13, "up to 12 bits"),
        ("code_length", 3, 0, "words of rate 4 of"),
        ("rate", 0, 12, "has 64 bytes; its rows need 128"),
        ("weight", 56, 1, "byte 56 .*, behind its rows, is not 0"),
        ("weight", 63, 255, "byte 63 .*, behind its rows, is not 0"),
    ],
)
def test_a_wrong_table_is_refused(name: str, place: Any, value: int, reason: str) -> None:
    table = small_table()
    check_table(table, HIDDEN)
    table[f"embedding.{name}"][place] = value
    with pytest.raises(ModelFileError, match=f"{reason}.*; convert the checkpoint again"):
        check_table(table, HIDDEN)


def test_lengths_of_rates_that_no_row_has_may_be_any() -> None:
    table = small_table()
    table["embedding.code_length"][[0, 12, 31]] = 255
    check_table(table, HIDDEN)
    assert not EmbeddingRows(table, HIDDEN).values(np.arange(3)).any()


def test_the_format_of_a_table_is_told_in_words() -> None:
    assert table_format(small_table()) == "2.33 bits an element, 1 to 3 by row"
    assert table_format({"embedding.weight": np.zeros((2, HIDDEN), np.int8)}) == "int8"


def test_rows_take_the_bytes_of_their_rates() -> None:
    rates = np.array([1, 4, 13, RATES], np.uint8)
    assert row_bytes(rates, 768).tolist() == [24, 96, 312, 768]
    assert table_bytes(rates, 768) == 1216  # whole 64s
