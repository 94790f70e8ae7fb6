"""The evaluation sets: what texts each has, and how MTEB (arXiv 2210.07316) scores vectors of them.

A task gives one value per item (a query, a pair, a test text), or is scored over all items at once; either way
`score` takes a choice of items, so that a score can be bootstrapped.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..kernels.errors import InputError

Vectors = npt.NDArray[np.float32]  # (texts, dim), unit length
Items = npt.NDArray[np.int64]  # numbers of items, with repetitions

_NDCG_DEPTH = 10

# Banking77 as MTEB runs it: that many logistic regressions, each on so many texts of a label.
_EXPERIMENTS = 10
_SAMPLES_PER_LABEL = 8
_SEED = 42

# The Tatoeba languages with a published score.
_TATOEBA = ("deu", "fra", "spa", "ita", "por", "rus", "cmn", "jpn", "kor", "ara", "hin", "tha", "tur", "swh")


class Task(Protocol):
    """One evaluation set.

    Attributes:
        name: as MTEB has it.
        texts: lists of texts, each with the name of the prompt that goes before them.
        items: how many items the score is made of.
    """

    name: str
    texts: tuple[tuple[str, list[str]], ...]
    items: int

    def results(self, vectors: Sequence[Vectors]) -> npt.NDArray[np.float64]:
        """What each item gives, (items, …), with vectors of each list of texts."""

    def score(self, results: npt.NDArray[np.float64], chosen: Items) -> float:
        """The score of the chosen items, from 0 to 100."""


class _MeanScore:
    """Tasks whose score is the mean of what items give."""

    def score(self, results: npt.NDArray[np.float64], chosen: Items) -> float:
        """100 times the mean."""
        return 100 * float(results[chosen].mean())


class Similarity:
    """Pairs of sentences: Spearman's correlation of cosines with what people said."""

    def __init__(self, path: Path) -> None:
        rows = _rows(path)
        self.name = path.name.partition(".")[0]
        self.texts = tuple(("STS", [row[side] for row in rows]) for side in ("s1", "s2"))
        self.items = len(rows)
        self._gold = np.array([float(row["score"]) for row in rows])

    def results(self, vectors: Sequence[Vectors]) -> npt.NDArray[np.float64]:
        """Cosine and gold score of each pair: (pairs, 2)."""
        return np.stack([np.einsum("td,td->t", *vectors), self._gold], axis=1)

    def score(self, results: npt.NDArray[np.float64], chosen: Items) -> float:
        """Spearman's correlation over the chosen pairs."""
        cosine, gold = (_ranks(column) for column in results[chosen].T)
        return 100 * float(np.corrcoef(cosine, gold)[0, 1])


class Retrieval(_MeanScore):
    """Queries that have relevant documents: nDCG@10."""

    def __init__(self, path: Path) -> None:
        self.name = path.name.partition(".corpus")[0]
        corpus = _rows(path)
        queries = _rows(path.with_name(f"{self.name}.queries.jsonl.gz"))
        # As sentence-transformers' prompt for documents says: a title, or none.
        documents = [f"{row['title']} {row['text']}".strip() for row in corpus]
        self.texts = (("Retrieval-query", [row["text"] for row in queries]), ("Retrieval-document", documents))
        self.items = len(queries)
        query_number = {row["id"]: i for i, row in enumerate(queries)}
        document_number = {row["id"]: i for i, row in enumerate(corpus)}
        self._relevance = np.zeros((len(queries), len(corpus)))
        for row in _rows(path.with_name(f"{self.name}.qrels.jsonl.gz")):
            self._relevance[query_number[row["qid"]], document_number[row["did"]]] = float(row["rel"])

    def results(self, vectors: Sequence[Vectors]) -> npt.NDArray[np.float64]:
        """nDCG@10 of each query."""
        queries, documents = vectors
        best = np.argsort(-(queries @ documents.T), axis=1, kind="stable")[:, :_NDCG_DEPTH]
        discount = 1 / np.log2(np.arange(best.shape[1]) + 2)
        ideal = -np.sort(-self._relevance, axis=1)[:, :_NDCG_DEPTH] @ discount
        return np.asarray(np.take_along_axis(self._relevance, best, axis=1) @ discount / ideal)


class Bitext(_MeanScore):
    """Sentences and their translations: F1 of finding each in all those of its language."""

    def __init__(self, path: Path, languages: Sequence[str] = _TATOEBA) -> None:
        rows = [row for row in _rows(path) if row["subset"].partition("-")[0] in languages]
        self.name = path.name.partition(".")[0]
        self.texts = tuple(("BitextMining", [row[side] for row in rows]) for side in ("s1", "s2"))
        self.items = len(rows)
        self._subsets = np.array([row["subset"] for row in rows])

    def results(self, vectors: Sequence[Vectors]) -> npt.NDArray[np.float64]:
        """F1 of each pair."""
        out = np.empty(self.items)
        for subset in np.unique(self._subsets):
            members = self._subsets == subset
            found = np.argmax(vectors[0][members] @ vectors[1][members].T, axis=1)
            # A label occurs once, so its F1 is 2 * hit / (1 + how often it was given). Subsets count alike.
            given = np.bincount(found, minlength=len(found))
            f1 = 2 * (found == np.arange(len(found))) / (1 + given)
            out[members] = f1 * self.items / (len(found) * len(np.unique(self._subsets)))
        return out


class Classification(_MeanScore):
    """Labelled texts: mean accuracy of logistic regressions on a few texts of each label. Needs scikit-learn."""

    def __init__(self, path: Path) -> None:
        rows = _rows(path)
        self.name = path.name.partition(".")[0]
        self._train = [row for row in rows if row["split"] == "train"]
        self._test = [row for row in rows if row["split"] == "test"]
        self.texts = tuple(("Classification", [row["text"] for row in part]) for part in (self._train, self._test))
        self.items = len(self._test)

    def results(self, vectors: Sequence[Vectors]) -> npt.NDArray[np.float64]:
        """How often each test text was labelled right, from 0 to 1."""
        from sklearn.linear_model import LogisticRegression

        train, test = vectors
        labels = np.array([row["label"] for row in self._train])
        gold = np.array([row["label"] for row in self._test])
        correct = np.zeros(self.items)
        order = np.arange(len(labels))
        random = np.random.RandomState(_SEED)
        for _ in range(_EXPERIMENTS):
            random.shuffle(order)
            chosen = [i for label in np.unique(labels) for i in order[labels[order] == label][:_SAMPLES_PER_LABEL]]
            model = LogisticRegression(random_state=_SEED, max_iter=100).fit(train[chosen], labels[chosen])
            correct += model.predict(test) == gold
        return correct / _EXPERIMENTS


@dataclass(frozen=True)
class _Kind:
    pattern: str
    make: Any


_KINDS = (
    _Kind("STS*.jsonl.gz", Similarity),
    _Kind("*.corpus.jsonl.gz", Retrieval),
    _Kind("Banking77*.jsonl.gz", Classification),
    _Kind("Tatoeba.jsonl.gz", Bitext),
)


def read_tasks(folder: Path, wanted: Sequence[str] = ()) -> list[Task]:
    """The tasks in a folder, or those whose name contains one of the wanted words; raises InputError if none is."""
    tasks: list[Task] = [
        kind.make(path)
        for kind in _KINDS
        for path in sorted(folder.glob(kind.pattern))
        if not wanted or any(word in path.name for word in wanted)
    ]
    if not tasks:
        raise InputError(f"{folder} holds no evaluation set{' of these names' if wanted else ''}; see its README")
    return tasks


def _rows(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Ranks from 0; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts + 1) / 2)[inverse])
