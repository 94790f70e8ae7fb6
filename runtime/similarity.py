"""Similarity of embeddings, by the four functions of sentence-transformers."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .inputs import check_choice
from .kernels.errors import InputError
from .outputs import has_tensors, to_arrays, to_tensors

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]


class SimilarityFunction(Enum):
    """How embeddings are compared."""

    COSINE = "cosine"
    DOT_PRODUCT = DOT = "dot"
    EUCLIDEAN = "euclidean"
    MANHATTAN = "manhattan"


SIMILARITY_FUNCTIONS = tuple(each.value for each in SimilarityFunction)

# The similarity is minus the norm of the difference; this is the order of the norm.
_DISTANCE_ORDER: dict[str, Literal[1, 2]] = {"euclidean": 2, "manhattan": 1}


def similarity(name: str, left: npt.ArrayLike, right: npt.ArrayLike) -> Vectors:
    """Scores (n, m) of every row of left (n, dim) with every row of right (m, dim); a single (dim,) is one row."""
    a, b = _comparable(name, left, right)
    if name in _DISTANCE_ORDER:
        scores = np.empty((len(a), len(b)), np.float32)
        for i, row in enumerate(a):  # row by row: all (n, m, dim) differences would not fit in memory
            scores[i] = -np.linalg.norm(row - b, ord=_DISTANCE_ORDER[name], axis=1)
        return scores
    return np.asarray(a @ b.T, np.float32)


def similarity_pairwise(name: str, left: npt.ArrayLike, right: npt.ArrayLike) -> Vectors:
    """Scores (n,) of row i of left (n, dim) with row i of right (n, dim); a single one goes with every other.

    Two single embeddings (dim,) give a score of shape ().
    """
    a, b = _comparable(name, left, right)
    if len(a) != len(b) and 1 not in (len(a), len(b)):
        raise InputError(f"there are {len(a)} and {len(b)} embeddings; expected as many, since pairs are compared")
    if name in _DISTANCE_ORDER:
        scores = -np.linalg.norm(a - b, ord=_DISTANCE_ORDER[name], axis=1)
    else:
        scores = np.einsum("nd,nd->n", *np.broadcast_arrays(a, b))
    return np.asarray(scores[0] if np.ndim(left) == np.ndim(right) == 1 else scores, np.float32)


def compare(function: Callable[[str, Any, Any], Vectors], name: str, a: Any, b: Any) -> Any:
    """Scores by one of the functions above; a torch tensor if either is one, or a list of tensors."""
    scores = function(name, to_arrays(a), to_arrays(b))
    return to_tensors(scores) if has_tensors(a) or has_tensors(b) else scores


def check_name(name: str) -> str:
    """The name of a similarity function; raises InputError for others."""
    return check_choice("similarity_fn_name", name, SIMILARITY_FUNCTIONS)


def _comparable(name: str, left: npt.ArrayLike, right: npt.ArrayLike) -> tuple[Vectors, Vectors]:
    """Both as rows of one size, which have length 1 if the function is the cosine."""
    a, b = as_rows("embeddings1", left), as_rows("embeddings2", right)
    check_name(name)
    if a.shape[1] != b.shape[1]:
        raise InputError(
            f"embeddings of {a.shape[1]} and {b.shape[1]} dimensions cannot be compared; "
            "encode both with the same truncate_dim"
        )
    return (unit(a), unit(b)) if name == "cosine" else (a, b)


def as_rows(what: str, embeddings: npt.ArrayLike) -> Vectors:
    """The embeddings as float32 (n, dim)."""
    try:
        rows = np.asarray(embeddings, np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} are not numbers of one shape ({error}); pass what encode() returned") from error
    if rows.ndim not in (1, 2):
        raise InputError(f"{what} have shape {rows.shape}; expected (dim,) or (n, dim)")
    return np.atleast_2d(rows)


def unit(rows: Vectors) -> Vectors:
    """Rows scaled to length 1; a row of zeros stays zero."""
    smallest = np.float32(1e-12)  # as torch.nn.functional.normalize has it
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), smallest), np.float32)
