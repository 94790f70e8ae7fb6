"""Which rows of the embedding table are longest."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from embgemma.export.quantise.row_order import FREQUENT, rates_of_rows
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


def test_pieces_that_are_frequent_in_many_languages_come_before_others_of_gemma() -> None:
    gemma = replace(PIECES, count=262_144, normal={"ab": 100_001}, special={"<bos>": 2})
    descending = np.repeat(np.array([3, 2, 1], np.uint8), (2, 5000, gemma.count - 5002))
    rates = rates_of_rows(gemma, np.array([100_000], np.int32), descending)
    frequent = np.cumsum(json.loads(FREQUENT.read_text()))
    assert np.flatnonzero(rates == 3).tolist() == [2, 100_000]
    assert np.flatnonzero(rates == 2).tolist() == frequent.tolist()
