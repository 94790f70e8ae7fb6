"""The work model: it must be right, for the share of the machine's limit is computed from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embgemma.benchmarks.harness.workload import Shape, band_pairs, make_ids, work_of
from embgemma.kernels.config import EMBEDDINGGEMMA_300M
from embgemma.kernels.model_file import read_model_file


@pytest.mark.parametrize("tokens", [1, 2, 3, 7, 8, 9, 40])
@pytest.mark.parametrize("window", [0, 1, 7, 100])
def test_band_pairs_counts_what_the_definition_says(tokens: int, window: int) -> None:
    position = np.arange(tokens)
    expected = int((np.abs(position[:, None] - position) <= window).sum())
    assert band_pairs(tokens, window) == expected


def test_work_of_embeddinggemma() -> None:
    # 24 layers of (768 x 1280 qkv + 768 x 768 o + 768 x 2304 gate_up + 1152 x 768 down), and the head.
    one = work_of(EMBEDDINGGEMMA_300M, {}, Shape(texts=1, tokens=1))
    assert one.linear_macs == 24 * 768 * (1280 + 768 + 2304 + 1152) + 768 * 768
    # All 256 tokens see each other: 2 products, 3 heads of 256, 24 layers.
    assert work_of(EMBEDDINGGEMMA_300M, {}, Shape(1, 256)).attention_macs == 2 * 3 * 256 * 24 * 256**2
    # Beyond the window it grows by 513 pairs a token, but for the 4 layers that see everything.
    assert work_of(EMBEDDINGGEMMA_300M, {}, Shape(1, 2048)).attention_macs == pytest.approx(56e9, rel=0.01)
    many = work_of(EMBEDDINGGEMMA_300M, {}, Shape(texts=5, tokens=1))
    assert (many.linear_macs, many.attention_macs) == (5 * one.linear_macs, 5 * one.attention_macs)


def test_weight_bytes_count_the_rows_used_of_the_table_and_all_else(model_path: Path) -> None:
    model = read_model_file(model_path)
    sizes = {name: tensor.nbytes for name, tensor in model.tensors.items()}
    rows = sum(sizes[f"embedding.{kind}"] for kind in ("weight", "rate", "scale"))
    others = sum(size for name, size in sizes.items() if not name.startswith("embedding."))
    three = work_of(model.config, model.tensors, Shape(1, 3)).weight_bytes
    assert three == others + 3 * round(rows / model.config.vocab)


def test_ids_are_whole_texts_of_ordinary_tokens_and_the_same_every_time() -> None:
    config = EMBEDDINGGEMMA_300M
    ids = make_ids(config, Shape(3, 50))
    assert (ids.shape, ids.dtype) == ((3, 50), np.int32)
    assert (ids[:, 0] == config.bos_id).all()
    assert (ids[:, -1] == config.eos_id).all()
    assert ids[:, 1:-1].min() >= 256
    assert ids.max() < config.vocab
    assert np.array_equal(ids, make_ids(config, Shape(3, 50)))
