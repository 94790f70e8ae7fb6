"""The operations of a call, as the engine times them, and the least work of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from ...kernels.config import EncoderConfig
from ...kernels.layout import matrices
from .workload import Work, band_pairs

# The engine's name of an operation -> the report's. Operations without multiplications pass over rows in caches.
TITLES = {
    "embed": "embedding rows",
    "norm": "norm, residual, quantise",
    "qkv": "q, k, v",
    "place_heads": "q, k norm, rope, place",
    "attention_sliding": "attention, sliding",
    "attention_full": "attention, full",
    "quantize": "quantise inputs of o, down",
    "o": "o",
    "gate_up": "gate, up, GeGLU",
    "down": "down",
    "pool_and_head": "final norm, mean, head",
    "wait": "waiting for threads",
}

# Rate of attention's 16-bit products over that of 8-bit ones; AVX2 has no dot product of bytes: both are equal there.
ATTENTION_RATES = {
    "amx": 1 / 2,
    "avx512vbmi": 1 / 2,
    "avx512vnni": 1 / 2,
    "avxvnni": 1 / 2,
    "neondot": 1 / 4,
    "i8mm": 1 / 8,
}


@dataclass(frozen=True)
class Profile:
    """One call: its seconds, and of them those of each operation, as the mean over the threads."""

    seconds: float
    operations: dict[str, float]


def work_by_operation(config: EncoderConfig, tensors: Mapping[str, npt.NDArray[Any]], tokens: int) -> dict[str, Work]:
    """The least work of each operation that multiplies or reads weights, for one text."""
    works: dict[str, Work] = {}
    for spec in matrices(config):
        name = "pool_and_head" if spec.name == "head" else spec.name.rpartition(".")[2]
        size = sum(
            tensors[f"{spec.name}.{kind}"].nbytes
            for kind in ("weight", "codebook", "scale")
            if f"{spec.name}.{kind}" in tensors
        )
        macs = spec.out_features * spec.in_features * (1 if spec.name == "head" else tokens)
        before = works.get(name, Work(0, 0, 0))
        works[name] = Work(before.linear_macs + macs, 0, before.weight_bytes + size)
    row = sum(tensor[0].nbytes for name, tensor in tensors.items() if name.startswith("embedding."))
    full = len(config.full_attention_layers)
    pairs = {"full": full * tokens**2, "sliding": (config.layers - full) * band_pairs(tokens, config.window)}
    attention = {f"attention_{kind}": Work(0, 2 * config.q_width * count, 0) for kind, count in pairs.items()}
    return {**works, **attention, "embed": Work(0, 0, tokens * row)}
