"""The operations of a call, as the engine times them."""

from __future__ import annotations

from dataclasses import dataclass

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
