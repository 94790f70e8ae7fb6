"""Which rows of the embedding table are longest."""

from __future__ import annotations

import numpy as np
import pytest

from embgemma.export.quantise.row_order import rates_of_rows
from embgemma.export.tokenizer.pieces import Pieces

# Ids: three special pieces, of which texts have one, merged pieces by frequency, then characters by theirs.
PIECES = Pieces(
    count=10,
    normal={"ab": 3, "abc": 4, "bc": 5, "cd": 6, "c": 7, "b": 8, "a": 9},
    special={"<unused0>": 0, "<bos>": 1, "<unused1>": 2},
    cut=frozenset(),
    runs=[],
    byte_ids=[],
)


@pytest.mark.parametrize(
    ("ids", "order"),
    [
        ([], [1, 0, 7, 2, 3, 4, 8, 5, 6, 9]),
        ([6, 9, 9, 3], [1, 9, 3, 6, 0, 7, 2, 4, 8, 5]),
    ],
)
def test_special_pieces_come_first_then_those_of_texts_then_low_ids(ids: list[int], order: list[int]) -> None:
    descending = np.arange(10, 0, -1, dtype=np.uint8)  # each its own, which tells the order
    rates = rates_of_rows(PIECES, np.array(ids, np.int32), descending)
    assert np.argsort(-rates.astype(int)).tolist() == order
