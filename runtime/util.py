"""Functions of `sentence_transformers.util` on embeddings: arrays give arrays, and torch tensors give tensors.

Imports are absolute: a program may import this module under the name of sentence-transformers.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from embgemma.arguments import Precision
from embgemma.inputs import check_choice, check_integer, check_texts, is_one_text
from embgemma.kernels.errors import InputError
from embgemma.outputs import has_tensors, quantize, to_arrays, to_tensors
from embgemma.similarity import SimilarityFunction, as_rows, compare, similarity, similarity_pairwise, unit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from embgemma.model import EmbeddingModel

__all__ = [
    "SimilarityFunction",
    "community_detection",
    "cos_sim",
    "dot_score",
    "euclidean_sim",
    "manhattan_sim",
    "normalize_embeddings",
    "pairwise_cos_sim",
    "pairwise_dot_score",
    "pairwise_euclidean_sim",
    "pairwise_manhattan_sim",
    "paraphrase_mining",
    "paraphrase_mining_embeddings",
    "pytorch_cos_sim",
    "quantize_embeddings",
    "semantic_search",
    "truncate_embeddings",
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


def normalize_embeddings(embeddings: Any) -> Any:
    """Embeddings (n, dim) or (dim,) scaled to length 1; zeros stay zeros."""
    rows = to_arrays(embeddings)
    scaled = unit(as_rows("embeddings", rows)).reshape(np.shape(rows))
    return to_tensors(scaled) if has_tensors(embeddings) else scaled


def truncate_embeddings(embeddings: Any, truncate_dim: int | None) -> Any:
    """The first truncate_dim values of embeddings (n, dim) or (dim,), which are not scaled; all of them if None."""
    dim = None if truncate_dim is None else check_integer("truncate_dim", truncate_dim, 1)
    if has_tensors(embeddings) and isinstance(embeddings, list | tuple):
        return [truncate_embeddings(each, dim) for each in embeddings]
    return (embeddings if has_tensors(embeddings) else np.asarray(embeddings))[..., :dim]


def community_detection(
    embeddings: Any,
    threshold: float = 0.75,
    min_community_size: int = 10,
    batch_size: int = 1024,
    show_progress_bar: bool = False,
) -> list[list[int]]:
    """Groups of min_community_size rows or more of embeddings (n, dim), the largest first; no row is in two of them.

    Each has its centre first, then what is at least threshold similar to it by the cosine, best first. A batch bounds
    memory; no progress bar is shown.
    """
    del show_progress_bar
    check_integer("min_community_size", min_community_size, 1)
    check_integer("batch_size", batch_size, 1)
    given = to_arrays(embeddings)
    rows = unit(as_rows("embeddings", given)) if np.size(given) else np.empty((0, 0), np.float32)
    around: list[tuple[int, npt.NDArray[np.int64]]] = []  # each row that may be a centre, with what is near it
    for start in range(0, len(rows), batch_size):
        for centre, scores in enumerate(rows[start : start + batch_size] @ rows.T, start):
            near = np.flatnonzero(scores >= np.float32(threshold))
            if len(near) >= min_community_size:
                around.append((centre, near[np.argsort(-scores[near], kind="stable")]))
    communities, free = [], np.ones(len(rows), bool)
    for centre, near in sorted(around, key=lambda each: -len(each[1])):
        left = near[free[near]]
        if free[centre] and len(left) >= min_community_size:
            communities.append([centre, *left[left != centre].tolist()])
            free[communities[-1]] = False
    return sorted(communities, key=len, reverse=True)


def semantic_search(
    query_embeddings: Any,
    corpus_embeddings: Any,
    query_chunk_size: int = 100,
    corpus_chunk_size: int = 500000,
    top_k: int = 10,
    score_function: Callable[[Any, Any], Any] = cos_sim,
) -> list[list[dict[str, int | float]]]:
    """The best top_k of corpus_embeddings (m, dim) for each of query_embeddings (n, dim), best first.

    Each as {"corpus_id": its row, "score": its score}. Chunks bound memory. score_function gets tensors if either of
    the embeddings are tensors.
    """
    chunks = _best(query_embeddings, corpus_embeddings, query_chunk_size, corpus_chunk_size, top_k, score_function)
    return [
        [{"corpus_id": row, "score": score} for row, score in zip(rows, scores, strict=True)]
        for chunk in chunks
        for scores, rows in zip(*(each.tolist() for each in chunk), strict=True)
    ]


def paraphrase_mining(
    model: EmbeddingModel,
    sentences: list[str],
    show_progress_bar: bool = False,
    batch_size: int = 32,
    query_chunk_size: int = 5000,
    corpus_chunk_size: int = 100000,
    max_pairs: int = 500000,
    top_k: int = 100,
    score_function: Callable[[Any, Any], Any] = cos_sim,
    truncate_dim: int | None = None,
    prompt_name: str | None = None,
    prompt: str | None = None,
) -> list[list[float | int]]:
    """`paraphrase_mining_embeddings` of texts; the arguments that it does not have are those of `encode`."""
    if is_one_text(sentences):
        raise InputError(f"sentences is of type {type(sentences).__name__}; expected a list of str")
    texts = check_texts(sentences)
    embeddings = model.encode(texts, prompt_name, prompt, batch_size, show_progress_bar, truncate_dim=truncate_dim)
    return paraphrase_mining_embeddings(
        embeddings, query_chunk_size, corpus_chunk_size, max_pairs, top_k, score_function
    )


def paraphrase_mining_embeddings(
    embeddings: Any,
    query_chunk_size: int = 5000,
    corpus_chunk_size: int = 100000,
    max_pairs: int = 500000,
    top_k: int = 100,
    score_function: Callable[[Any, Any], Any] = cos_sim,
) -> list[list[float | int]]:
    """The most similar pairs of embeddings (n, dim), best first, each as [score, row, larger row].

    At most max_pairs, of which each has one embedding among the best top_k others of the other.
    """
    pairs, scores = np.empty((0, 2), np.int64), np.empty(0, np.float32)
    first = 0
    for best, others in _best(embeddings, embeddings, query_chunk_size, corpus_chunk_size, top_k + 1, score_function):
        rows = np.arange(first, first + len(others))[:, None]
        first += len(others)
        kept = others != rows
        kept &= kept.cumsum(axis=1) <= top_k
        new = np.stack([np.minimum(rows, others)[kept], np.maximum(rows, others)[kept]], axis=1)
        pairs, scores = np.concatenate([pairs, new]), np.concatenate([scores, best[kept]])
        _, once = np.unique(pairs, axis=0, return_index=True)
        once = once[np.argsort(-scores[once], kind="stable")][:max_pairs]
        pairs, scores = pairs[once], scores[once]
    return [[score, *pair] for score, pair in zip(scores.tolist(), pairs.tolist(), strict=True)]


def _best(
    queries: Any,
    corpus: Any,
    query_chunk_size: int,
    corpus_chunk_size: int,
    top_k: int,
    score_function: Callable[[Any, Any], Any],
) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
    """For each chunk of the queries, the best scores (n, top_k) and the rows of the corpus that have them.

    Of equal scores, the first rows are the better ones.
    """
    given = to_tensors if has_tensors(queries) or has_tensors(corpus) else np.asarray
    left, right = (as_rows(name, to_arrays(rows)) for name, rows in (("queries", queries), ("corpus", corpus)))
    check_integer("query_chunk_size", query_chunk_size, 1)
    check_integer("corpus_chunk_size", corpus_chunk_size, 1)
    check_integer("top_k", top_k, 1)
    if score_function is cos_sim:  # which would scale the same rows again and again
        left, right, score_function = unit(left), unit(right), dot_score
    for start in range(0, len(left), query_chunk_size):
        chunk = left[start : start + query_chunk_size]
        best, rows = np.empty((len(chunk), 0), np.float32), np.empty((len(chunk), 0), np.int64)
        for begin in range(0, len(right), corpus_chunk_size):
            scores = to_arrays(score_function(given(chunk), given(right[begin : begin + corpus_chunk_size])))
            places = _largest(scores, min(top_k, scores.shape[1]))
            best = np.concatenate([best, np.take_along_axis(scores, places, 1)], axis=1)
            rows = np.concatenate([rows, places + begin], axis=1)
            order = np.argsort(-best, axis=1, kind="stable")[:, :top_k]
            best, rows = np.take_along_axis(best, order, 1), np.take_along_axis(rows, order, 1)
        yield best, rows


def _largest(scores: npt.NDArray[Any], k: int) -> npt.NDArray[np.int64]:
    """Places (n, k) of the k largest scores of each row (n, m), in order; of equal ones the first."""
    places = np.sort(np.argpartition(scores, -k, axis=1)[:, -k:], axis=1)
    least = np.take_along_axis(scores, places, 1).min(axis=1, keepdims=True)
    for row in np.flatnonzero(np.count_nonzero(scores >= least, axis=1) > k):  # more of the least than have room
        candidates = np.flatnonzero(scores[row] >= least[row])
        places[row] = np.sort(candidates[np.argsort(-scores[row, candidates], kind="stable")[:k]])
    return places
