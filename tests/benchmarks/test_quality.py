"""Scores are those that MTEB's definitions give by hand, and losses are against the same items."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from embgemma.benchmarks.quality import NEIGHBOURS, _cut, _interval, _mean_loss, _overlap, similarity_error
from embgemma.benchmarks.quality_tasks import Bitext, Retrieval, Similarity, read_tasks
from embgemma.kernels.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("\n".join(map(json.dumps, rows)))
    return path


def similarity(folder: Path, scores: list[float]) -> Similarity:
    rows = [{"s1": f"a{i}", "s2": f"b{i}", "score": str(score)} for i, score in enumerate(scores)]
    return Similarity(write_rows(folder / "STSx.jsonl.gz", rows))


def at_angles(*degrees: float) -> Any:
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def test_similarity_is_the_rank_correlation_of_cosines(tmp_path: Path) -> None:
    task = similarity(tmp_path, [5, 4, 1, 1])
    assert task.texts == (("STS", ["a0", "a1", "a2", "a3"]), ("STS", ["b0", "b1", "b2", "b3"]))
    everything = np.arange(4)
    perfect = task.results([at_angles(0, 0, 0, 0), at_angles(10, 20, 80, 80)])
    assert task.score(perfect, everything) == pytest.approx(100)
    swapped = task.results([at_angles(0, 0, 0, 0), at_angles(20, 10, 80, 80)])
    # ranks 3 2 .5 .5 against 2 3 .5 .5: covariance 1, variances 1.125 each, by hand
    assert task.score(swapped, everything) == pytest.approx(100 * 3.5 / 4.5)
    assert task.score(perfect, np.array([0, 1, 1, 2])) == pytest.approx(100)


def test_retrieval_is_ndcg(tmp_path: Path) -> None:
    corpus = [{"id": f"d{i}", "title": "", "text": f"text {i}"} for i in range(3)]
    path = write_rows(tmp_path / "X.corpus.jsonl.gz", corpus)
    write_rows(tmp_path / "X.queries.jsonl.gz", [{"id": "q0", "text": "first"}, {"id": "q1", "text": "second"}])
    write_rows(
        tmp_path / "X.qrels.jsonl.gz", [{"qid": "q0", "did": "d0", "rel": "1"}, {"qid": "q1", "did": "d2", "rel": "1"}]
    )
    task = Retrieval(path)
    assert task.texts[1] == ("Retrieval-document", ["text 0", "text 1", "text 2"])
    results = task.results([at_angles(1, 41), at_angles(0, 40, 80)])
    np.testing.assert_allclose(results, [1, 1 / np.log2(3)])
    assert task.score(results, np.array([1, 1])) == pytest.approx(100 / np.log2(3))


def test_bitext_is_the_mean_f1_of_each_language(tmp_path: Path) -> None:
    pairs = [("deu-eng", 2), ("fra-eng", 3), ("vie-eng", 1)]  # the last has no published score
    rows = [{"subset": subset, "s1": f"{subset} {i}", "s2": f"{i}"} for subset, count in pairs for i in range(count)]
    task = Bitext(write_rows(tmp_path / "Tatoeba.jsonl.gz", rows))
    assert task.items == 5
    results = task.results([at_angles(0, 1, 0, 40, 80), at_angles(0, 90, 0, 40, 80)])
    # German: both sentences find the first translation, so its F1 is 2 / 3, and the other's 0
    assert task.score(results, np.arange(5)) == pytest.approx(100 * (1 / 3 + 1) / 2)


def test_tasks_are_chosen_by_name(tmp_path: Path) -> None:
    similarity(tmp_path, [1, 2])
    assert [task.name for task in read_tasks(tmp_path)] == ["STSx"]
    with pytest.raises(InputError, match="no evaluation set of these names"):
        read_tasks(tmp_path, ["Banking"])


def test_the_loss_is_paired(tmp_path: Path) -> None:
    task = similarity(tmp_path, list(np.random.default_rng(0).random(50)))
    random = np.random.default_rng(1)
    vectors = [_cut(random.standard_normal((50, 8)).astype(np.float32), 8) for _ in range(2)]
    results = [task.results(vectors)]
    assert _mean_loss([task], results, results, [np.arange(50)]) == 0
    assert _interval([task], results, results) == (0, 0)


def test_neighbours_and_similarities_of_the_same_vectors_agree() -> None:
    vectors = _cut(np.random.default_rng(0).standard_normal((3 * NEIGHBOURS, 16)).astype(np.float32), 8)
    assert vectors.shape == (3 * NEIGHBOURS, 8)
    assert _overlap(vectors, vectors) == 1
    assert similarity_error(vectors, vectors) == 0
    others = _cut(np.random.default_rng(1).standard_normal((3 * NEIGHBOURS, 8)).astype(np.float32), 8)
    assert _overlap(vectors, others) < 0.6
    assert similarity_error(vectors, others) > 0.1
