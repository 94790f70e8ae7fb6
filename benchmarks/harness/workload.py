"""Token ids to encode, and the least work that encoding them takes on any machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...kernels.config import EncoderConfig
from ...kernels.layout import matrices

Ids = npt.NDArray[np.int32]  # (texts, tokens): texts of equal length

DEFAULT_LENGTHS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048)
BATCH_LENGTHS = (32, 128)  # tokens a text, where many are encoded in one call: a short and a usual passage
MEMORY_LENGTH = 256  # tokens of the text after which memory is read
MIN_TOKENS = 2  # <bos> and <eos>
FIRST_ORDINARY_ID = 256  # the first ids of the vocabulary are control tokens and bytes


@dataclass(frozen=True)
class Shape:
    """One call: `texts` texts of `tokens` tokens each, <bos> and <eos> included."""

    texts: int
    tokens: int


def make_ids(config: EncoderConfig, shape: Shape) -> Ids:
    """Random ordinary tokens between <bos> and <eos>, the same on every run."""
    random = np.random.default_rng([shape.texts, shape.tokens])
    first = min(FIRST_ORDINARY_ID, config.vocab - 1)
    ids = random.integers(first, config.vocab, (shape.texts, shape.tokens), np.int32)
    ids[:, 0] = config.bos_id
    ids[:, -1] = config.eos_id
    return ids


@dataclass(frozen=True)
class Work:
    """The least that one call must do.

    Attributes:
        linear_macs: multiply-accumulates of the weight matrices.
        attention_macs: those of scores and weighted sums, inside the window only.
        weight_bytes: bytes of weights that must be read at least once, embedding rows included.
    """

    linear_macs: int
    attention_macs: int
    weight_bytes: int

    @property
    def macs(self) -> int:
        """All multiply-accumulates."""
        return self.linear_macs + self.attention_macs


def work_of(config: EncoderConfig, tensors: Mapping[str, npt.NDArray[Any]], shape: Shape) -> Work:
    """The work of one call on a model file with these tensors."""
    works = work_by_operation(config, tensors, shape.tokens).values()
    others = sum(tensor.nbytes for name, tensor in tensors.items() if not name.startswith("embedding."))
    return Work(
        linear_macs=shape.texts * sum(work.linear_macs for work in works),
        attention_macs=shape.texts * sum(work.attention_macs for work in works),
        weight_bytes=others + shape.texts * shape.tokens * _row_bytes(config, tensors),
    )


def work_by_operation(config: EncoderConfig, tensors: Mapping[str, npt.NDArray[Any]], tokens: int) -> dict[str, Work]:
    """The least work of each operation that multiplies or reads weights, for one text."""
    works: dict[str, Work] = {}
    for spec in matrices(config):
        name = "pool_and_head" if spec.name == "head" else spec.name.rpartition(".")[2]
        parts = (f"{spec.name}.{kind}" for kind in ("weight", "codebook", "scale"))
        size = sum(tensors[part].nbytes for part in parts if part in tensors)
        macs = spec.out_features * spec.in_features * (1 if spec.name == "head" else tokens)
        before = works.get(name, Work(0, 0, 0))
        works[name] = Work(before.linear_macs + macs, 0, before.weight_bytes + size)
    full = len(config.full_attention_layers)
    pairs = {"full": full * tokens**2, "sliding": (config.layers - full) * band_pairs(tokens, config.window)}
    # q · k and p · v for every pair that may attend.
    attention = {f"attention_{kind}": Work(0, 2 * config.q_width * count, 0) for kind, count in pairs.items()}
    return {**works, **attention, "embed": Work(0, 0, tokens * _row_bytes(config, tensors))}


def _row_bytes(config: EncoderConfig, tensors: Mapping[str, npt.NDArray[Any]]) -> int:
    """Of a row of the table, on average."""
    names = ("embedding.weight", "embedding.rate", "embedding.scale")
    return round(sum(tensors[name].nbytes for name in names if name in tensors) / config.vocab)


def band_pairs(tokens: int, window: int) -> int:
    """Number of pairs (i, j) of `tokens` positions with |i - j| <= window."""
    reach = min(window, tokens - 1)
    return tokens * (2 * reach + 1) - reach * (reach + 1)
