"""Unit vectors as an index stores them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

PRECISIONS = ("int8", "float32")

# Values of a unit vector of `dim` values are 1 / sqrt(dim) in the mean square; int8 reaches to so many of these. Then,
# of the 10 nearest of 6,000 vectors of EmbeddingGemma, it finds 99.6 % with 768 values, 98.7 % with 256 and 98.3 % with
# 128. Less cuts off the few large values (5: 99.4, 98.7 and 97.8 %), more is coarser (8: 99.1, 98.5 and 97.9 %).
INT8_RANGE = 6.0
INT8_MOST = 127


def to_bytes(vectors: npt.NDArray[np.float32], precision: str) -> list[bytes]:
    """Unit vectors (n, dim), each as it is stored. One scale for all keeps distances comparable."""
    if precision == "float32":
        return [row.astype("<f4").tobytes() for row in vectors]
    scale = INT8_MOST / INT8_RANGE * np.sqrt(np.float32(vectors.shape[1]))
    codes = np.rint(vectors * scale).clip(-INT8_MOST, INT8_MOST).astype(np.int8)
    return [row.tobytes() for row in codes]


def cosine(query: npt.NDArray[np.float32], stored: bytes, precision: str) -> float:
    """The cosine of a unit vector (dim,) and a stored one."""
    dtype: Any = np.int8 if precision == "int8" else "<f4"
    vector = np.frombuffer(stored, dtype).astype(np.float32)
    return float(query @ vector / max(float(np.linalg.norm(vector)), 1e-30))
