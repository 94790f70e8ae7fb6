"""Scores are those that MTEB's definitions give by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embgemma.benchmarks.quality.quality_tasks import Bitext, Classification, Retrieval, Similarity, read_tasks
from embgemma.kernels.errors import InputError
from tests.benchmarks.tiny_sets import write_rows


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


def test_classification_is_the_mean_accuracy(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    labels = [0, 1, 2]
    rows = [{"split": "train", "text": f"{i} {label}", "label": label} for i in range(12) for label in labels]
    rows += [{"split": "test", "text": f"test {label}", "label": label} for label in [*labels, 0]]
    task = Classification(write_rows(tmp_path / "Banking77Classification.jsonl.gz", rows))
    assert (len(task.texts[0][1]), len(task.texts[1][1]), task.items) == (36, 4, 4)
    train = at_angles(*[120 * label + i for i in range(12) for label in labels])
    results = task.results([train, at_angles(5, 125, 245, 130)])  # the last looks like label 1 and has label 0
    np.testing.assert_allclose(results, [1, 1, 1, 0])
    assert task.score(results, np.arange(4)) == 75


def test_tasks_are_chosen_by_name(tmp_path: Path) -> None:
    similarity(tmp_path, [1, 2])
    assert [task.name for task in read_tasks(tmp_path)] == ["STSx"]
    with pytest.raises(InputError, match="no evaluation set of these names"):
        read_tasks(tmp_path, ["Banking"])
