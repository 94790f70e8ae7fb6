"""What the smallest scheme makes of the published model."""

from __future__ import annotations

from embgemma.export.scheme import planned_embedding, row_counts, scheme_formats
from embgemma.kernels.config import EMBEDDINGGEMMA_300M
from embgemma.kernels.model_file import expected_tensors

TOKENIZER_TABLE_BYTES, HEADER_BYTES = 5_027_776, 50_000  # of the published model's file


def test_int4_has_8_bits_where_they_bring_most_within_160_mb() -> None:
    formats, embedding = scheme_formats(EMBEDDINGGEMMA_300M, "int4"), planned_embedding(EMBEDDINGGEMMA_300M, "int4")
    layers = {"qkv": (1, 2), "gate_up": (1, 2, 3), "down": (0, 1, 2, 3, 19, 20, 21, 22, 23)}
    expected = {f"layers.{i}.{kind}" for kind, some in layers.items() for i in some} | {"head"}
    assert {name for name in formats if formats[name] == "int8"} == expected
    assert row_counts(EMBEDDINGGEMMA_300M.vocab, "int4") == (4096, 24_576, 86_016, 147_456)
    tensors = expected_tensors(EMBEDDINGGEMMA_300M, formats, embedding, 0, TOKENIZER_TABLE_BYTES)
    assert sum(info.size_bytes for info in tensors.values()) + HEADER_BYTES < 160e6
