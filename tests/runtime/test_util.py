"""Search and pairs in memory, by the functions of `sentence_transformers.util`, against every pair."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from embgemma.kernels.errors import InputError
from embgemma.util import (
    community_detection,
    cos_sim,
    dot_score,
    normalize_embeddings,
    paraphrase_mining,
    paraphrase_mining_embeddings,
    semantic_search,
    truncate_embeddings,
)

ROWS = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
CHUNKS: list[dict[str, Any]] = [{}, {"query_chunk_size": 3, "corpus_chunk_size": 7}, {"corpus_chunk_size": 1}]


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("score_function", [cos_sim, dot_score])
@pytest.mark.parametrize(("queries", "top_k"), [(ROWS[:8], 5), (ROWS[3], 1), (ROWS[:1], 100)])
def test_semantic_search(queries: Any, top_k: int, score_function: Any, chunks: dict[str, Any]) -> None:
    found = semantic_search(queries, ROWS, top_k=top_k, score_function=score_function, **chunks)
    for hits, scores in zip(found, score_function(queries, ROWS), strict=True):
        best = np.argsort(-scores)[:top_k].tolist()
        assert [hit["corpus_id"] for hit in hits] == best
        np.testing.assert_allclose([hit["score"] for hit in hits], scores[best], atol=1e-6)


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("top_k", [1, 2, 5, 39])
def test_of_equal_scores_the_first_is_best(top_k: int, chunks: dict[str, Any]) -> None:
    rows = np.random.default_rng(1).integers(0, 3, (40, 1)).astype(np.float32)
    found = semantic_search(np.float32([[1], [2]]), rows, top_k=top_k, score_function=dot_score, **chunks)
    expected = np.argsort(-rows[:, 0], kind="stable")[:top_k].tolist()
    assert [[hit["corpus_id"] for hit in hits] for hits in found] == [expected, expected]


@pytest.mark.parametrize("sentences", ["cats purr", {"text": "cats"}, {"cats": 1}, {"cats"}])
def test_pairs_of_one_text_are_refused(sentences: Any) -> None:
    with pytest.raises(InputError, match=r"is of type .*; expected .*list of str"):
        paraphrase_mining(None, sentences)


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize(("top_k", "max_pairs"), [(100, 10**6), (3, 10**6), (100, 9)])
def test_paraphrase_mining(top_k: int, max_pairs: int, chunks: dict[str, Any]) -> None:
    scores = cos_sim(ROWS, ROWS)
    expected = set()
    for i, row in enumerate(scores):
        best = [int(j) for j in np.argsort(-row) if j != i][:top_k]
        expected |= {(min(i, j), max(i, j)) for j in best}
    ordered = sorted(expected, key=lambda pair: -scores[pair])[:max_pairs]
    found = paraphrase_mining_embeddings(ROWS, top_k=top_k, max_pairs=max_pairs, **chunks)
    assert [(i, j) for _, i, j in found] == ordered
    np.testing.assert_allclose([score for score, *_ in found], [scores[pair] for pair in ordered], atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 7, 1024])
def test_communities(batch_size: int) -> None:
    angles = np.radians([0, 60, 1, 63, 3, 90, 58, 7, 59.5, 180])
    rows = 5 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    found = community_detection(rows, np.cos(np.radians(3.7)), 2, batch_size)
    assert found == [[1, 8, 6, 3], [0, 2, 4]]  # 7 is near 4, which is taken
    assert community_detection(rows, np.cos(np.radians(4.2)), 4, batch_size) == [[1, 8, 6, 3], [4, 2, 0, 7]]
    assert community_detection(rows, min_community_size=11) == community_detection([]) == []


def test_parts_and_lengths_of_embeddings() -> None:
    assert np.array_equal(truncate_embeddings(ROWS, 2), ROWS[:, :2])
    assert truncate_embeddings(ROWS[0].tolist(), 3).shape == (3,)
    assert truncate_embeddings(ROWS, None).shape == ROWS.shape
    np.testing.assert_allclose(np.linalg.norm(normalize_embeddings(ROWS), axis=1), 1, atol=1e-6)
    assert normalize_embeddings([3, 4]).tolist() == np.float32([0.6, 0.8]).tolist()
    assert not normalize_embeddings(np.zeros((2, 3))).any()
    with pytest.raises(InputError, match="truncate_dim"):
        truncate_embeddings(ROWS, 0)


def test_nothing_to_search() -> None:
    assert semantic_search(ROWS[:2], ROWS[:0]) == [[], []]
    assert semantic_search(ROWS[:0], ROWS) == paraphrase_mining_embeddings(ROWS[:1]) == []
    for wrong in ({"top_k": 0}, {"corpus_chunk_size": 0}, {"query_chunk_size": -1}, {"top_k": 1.5}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            semantic_search(ROWS, ROWS, **wrong)
    with pytest.raises(InputError, match="dimensions"):
        semantic_search(ROWS, ROWS[:, :3])
