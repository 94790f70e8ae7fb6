"""What the schemes with rows of several rates make of the published model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from embgemma.export.scheme import keeps_tokenizer_model, planned_embedding, row_rates, scheme_formats
from embgemma.kernels.config import EMBEDDINGGEMMA_300M
from embgemma.kernels.embedding_rows import RATES
from embgemma.kernels.model_file import expected_tensors

if TYPE_CHECKING:
    from embgemma.kernels.model_file import Scheme

# Of the published model's file.
TOKENIZER_TABLE_BYTES, TOKENIZER_MODEL_BYTES, HEADER_BYTES = 5_027_776, 4_689_074, 50_000


def test_int4_has_8_bits_where_they_bring_most() -> None:
    formats = scheme_formats(EMBEDDINGGEMMA_300M, "int4")
    layers = {"qkv": (0, 1, 2), "gate_up": (0, 1, 2, 3, 4, 5), "down": (0, 1, 2, 3, 19, 20, 21, 22, 23)}
    expected = {f"layers.{i}.{kind}" for kind, some in layers.items() for i in some} | {"head"}
    assert {name for name in formats if formats[name] == "int8"} == expected


@pytest.mark.parametrize(("scheme", "most"), [("int4", 160e6), ("mixed", 198e6)])
def test_files_are_as_small_as_they_are_said_to_be(scheme: Scheme, most: float) -> None:
    config = EMBEDDINGGEMMA_300M
    model = TOKENIZER_MODEL_BYTES if keeps_tokenizer_model(scheme) else 0
    tensors = expected_tensors(
        config, scheme_formats(config, scheme), planned_embedding(config, scheme), model, TOKENIZER_TABLE_BYTES
    )
    assert sum(info.size_bytes for info in tensors.values()) + HEADER_BYTES < most


@pytest.mark.parametrize("scheme", ["balanced", "mixed", "int4"])
def test_each_row_has_a_rate_and_frequent_ones_the_highest(scheme: Scheme) -> None:
    rates = row_rates(EMBEDDINGGEMMA_300M.vocab, scheme)
    assert (rates.shape, rates.dtype) == ((EMBEDDINGGEMMA_300M.vocab,), np.dtype(np.uint8))
    assert RATES >= rates[0] > rates[-1] >= 1
    assert (np.diff(rates.astype(int)) <= 0).all()
