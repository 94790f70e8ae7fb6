"""The evaluation sets: what texts each has, and how MTEB (arXiv 2210.07316) scores vectors of them.

A task gives one value per item (a query, a pair, a test text), or is scored over all items at once; either way
`score` takes a choice of items, so that a score can be bootstrapped.
"""

from __future__ import annotations

import gzip
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...kernels.errors import InputError

Vectors = npt.NDArray[np.float32]  # (texts, dim), unit length
Items = npt.NDArray[np.int64]  # numbers of items, with repetitions

_NDCG_DEPTH = 10

# Banking77 as MTEB runs it: 10 logistic regressions, each on 8 texts of every label.
_EXPERIMENTS = 10
_SAMPLES_PER_LABEL = 8
_ITERATIONS = 100
_SEED = 42

# Scores of google/embeddinggemma-300m in full precision, as MTEB publishes them. For retrieval and bitext mining, MTEB
# used prompts of its own; this benchmark uses the checkpoint's.
PUBLISHED_DIMENSION = 768
PUBLISHED = {
    "STSBenchmark": 88.16,
    "STS13": 86.42,
    "Banking77Classification": 91.45,
    "BelebeleRetrieval-eng_Latn-eng_Latn": 96.44,
    "BelebeleRetrieval-eng_Latn-deu_Latn": 94.17,
    "Tatoeba": 87.99,
}

# The Tatoeba languages with a published score.
_TATOEBA = ("deu", "fra", "spa", "ita", "por", "rus", "cmn", "jpn", "kor", "ara", "hin", "tha", "tur", "swh")


class Task(ABC):
    """One evaluation set; its score is the mean over the items, unless it has a `score` of its own.

    Attributes:
        name: as MTEB has it.
        texts: lists of texts, each with the name of the prompt that goes before them.
        items: how many items the score is made of.
    """

    name: str
    texts: tuple[tuple[str, list[str]], ...]
    items: int

    @abstractmethod
    def results(self, vectors: Sequence[Vectors]) -> npt.NDArray[np.float64]:
        """The result of each item, (items, …), from the vectors of each list of texts."""

    def score(self, results: npt.NDArray[np.float64], chosen: Items) -> float:
        """The score of the chosen items, from 0 to 100."""
        return 100 * float(results[chosen].mean())


class Similarity(Task):
    """Pairs of sentences: Spearman's correlation of cosines with human scores."""

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


class Retrieval(Task):
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


class Bitext(Task):
    """Sentences and their translations: F1 of finding each among all translations of its language."""

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


class Classification(Task):
    """Labelled texts: mean accuracy of logistic regressions on a few texts of each label. Needs scikit-learn."""

    def __init__(self, path: Path) -> None:
        rows = _rows(path)
        self.name = path.name.partition(".")[0]
        train, test = ([row for row in rows if row["split"] == split] for split in ("train", "test"))
        samples = _samples(np.array([row["label"] for row in train]))
        # Half of the texts are in no regression and need no vector.
        used, positions = np.unique(np.concatenate(samples), return_inverse=True)
        self._samples = np.split(positions, np.cumsum([len(sample) for sample in samples])[:-1])
        self._labels = np.array([train[i]["label"] for i in used])
        self._gold = np.array([row["label"] for row in test])
        self.texts = (
            ("Classification", [train[i]["text"] for i in used]),
            ("Classification", [row["text"] for row in test]),
        )
        self.items = len(test)

    def results(self, vectors: Sequence[Vectors]) -> npt.NDArray[np.float64]:
        """How often each test text was labelled right, from 0 to 1."""
        try:
            from sklearn.linear_model import LogisticRegression
            from threadpoolctl import threadpool_limits
        except ImportError as error:
            raise InputError(
                f"{self.name} needs scikit-learn, which is not installed; pip install scikit-learn"
            ) from error
        train, test = vectors
        correct = np.zeros(self.items)
        with threadpool_limits(1):  # small matrices: threads do not help, and cost much on a busy machine
            for sample in self._samples:
                regression = LogisticRegression(random_state=_SEED, max_iter=_ITERATIONS)
                regression.fit(train[sample], self._labels[sample])
                correct += regression.predict(test) == self._gold
        return correct / len(self._samples)


def _samples(labels: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """The texts of each regression: the first few of every label; each shuffle starts from the last one, as in MTEB."""
    order = np.arange(len(labels))
    random = np.random.RandomState(_SEED)
    samples = []
    for _ in range(_EXPERIMENTS):
        random.shuffle(order)
        of_labels = [order[labels[order] == label][:_SAMPLES_PER_LABEL] for label in np.unique(labels)]
        samples.append(np.concatenate(of_labels))
    return samples


_KINDS: dict[str, Callable[[Path], Task]] = {
    "STS*.jsonl.gz": Similarity,
    "*.corpus.jsonl.gz": Retrieval,
    "Banking77*.jsonl.gz": Classification,
    "Tatoeba.jsonl.gz": Bitext,
}


def read_tasks(folder: Path, wanted: Sequence[str] = ()) -> list[Task]:
    """The tasks in a folder, or those whose name contains one of the wanted words; raises InputError if none is."""
    tasks = [
        make(path)
        for pattern, make in _KINDS.items()
        for path in sorted(folder.glob(pattern))
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
