"""What the smallest scheme makes of the published model."""

from __future__ import annotations

from embgemma.export.scheme import planned_embedding, row_counts, scheme_formats
from embgemma.kernels.config import EMBEDDINGGEMMA_300M
from embgemma.kernels.model_file import expected_tensors

TOKENIZER_TABLE_BYTES, HEADER_BYTES = 5_027_776, 50_000  # of the published model's file


def test_int4_has_8_bits_where_they_bring_most_within_160_mb() -> None:
    formats, embedding = scheme_formats(EMBEDDINGGEMMA_300M, "int4"), planned_embedding(EMBEDDINGGEMMA_300M, "int4")
    down, gate_up = (f"layers.{i}.down" for i in range(4)), (f"layers.{i}.gate_up" for i in range(1, 4))
    assert {name for name in formats if formats[name] == "int8"} == {*down, *gate_up, "layers.1.qkv", "head"}
    assert row_counts(EMBEDDINGGEMMA_300M.vocab, "int4") == (16_384, 0, 126_604, 119_156)
    tensors = expected_tensors(EMBEDDINGGEMMA_300M, formats, embedding, 0, TOKENIZER_TABLE_BYTES)
    assert sum(info.size_bytes for info in tensors.values()) + HEADER_BYTES < 160e6
