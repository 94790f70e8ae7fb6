"""Functions of `sentence_transformers.util` on embeddings: arrays give arrays, and torch tensors give tensors.

Imports are absolute: a program may import this module under the name of sentence-transformers.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from embgemma.arguments import Precision
from embgemma.inputs import check_choice
from embgemma.kernels.errors import InputError
from embgemma.outputs import quantize, to_arrays
from embgemma.similarity import SimilarityFunction, as_rows, compare, similarity, similarity_pairwise

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = [
    "SimilarityFunction",
    "cos_sim",
    "dot_score",
    "euclidean_sim",
    "manhattan_sim",
    "pairwise_cos_sim",
    "pairwise_dot_score",
    "pairwise_euclidean_sim",
    "pairwise_manhattan_sim",
    "pytorch_cos_sim",
    "quantize_embeddings",
]

cos_sim = pytorch_cos_sim = partial(compare, similarity, "cosine")
dot_score = partial(compare, similarity, "dot")
euclidean_sim = partial(compare, similarity, "euclidean")
manhattan_sim = partial(compare, similarity, "manhattan")
pairwise_cos_sim = partial(compare, similarity_pairwise, "cosine")
pairwise_dot_score = partial(compare, similarity_pairwise, "dot")
pairwise_euclidean_sim = partial(compare, similarity_pairwise, "euclidean")
pairwise_manhattan_sim = partial(compare, similarity_pairwise, "manhattan")


def quantize_embeddings(
    embeddings: Any, precision: Precision, ranges: Any = None, calibration_embeddings: Any = None
) -> npt.NDArray[Any]:
    """Embeddings (n, dim) in fewer bits; see `outputs.quantize`.

    ranges (2, dim) are least and greatest values for "int8" and "uint8", or else those of calibration_embeddings.
    """
    check_choice("precision", precision, get_args(Precision))
    rows = as_rows("embeddings", to_arrays(embeddings))
    if ranges is None and calibration_embeddings is not None:
        seen = as_rows("calibration_embeddings", to_arrays(calibration_embeddings))
        ranges = (seen.min(axis=0), seen.max(axis=0)) if len(seen) else seen
    if ranges is not None:
        ranges = as_rows("ranges", ranges)
        if ranges.shape != (2, rows.shape[1]):
            raise InputError(f"ranges of shape {ranges.shape} do not fit; expected {(2, rows.shape[1])}")
    codes = rows if precision == "float32" else quantize(rows, precision, ranges)
    return codes[0] if np.ndim(embeddings) == 1 else codes
