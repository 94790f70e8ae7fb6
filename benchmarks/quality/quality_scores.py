"""Distance of vectors to the float32 model's, and the loss of a score: plain numbers, no files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..peers import Vectors
from .quality_tasks import Task

Scores: TypeAlias = npt.NDArray[np.float64]  # (1 + resamples,): of all items, then of each resample

NEIGHBOURS = 10  # nearest texts of a text

_RESAMPLES = 500  # of the bootstrap: the ends of an interval are then good to a tenth of its width
_INTERVAL = (2.5, 97.5)
_SEED = 0


@dataclass(frozen=True)
class Nearness:
    """How near vectors are to the golden ones.

    Attributes:
        mean, first_percentile, minimum: of the cosines of texts to their golden vectors.
        overlap: share of the NEIGHBOURS nearest texts of a text that stay among its nearest.
        similarity_error: mean distance of the cosines of two texts, over all pairs.
    """

    mean: float
    first_percentile: float
    minimum: float
    overlap: float
    similarity_error: float


@dataclass(frozen=True)
class Loss:
    """Points that a score loses, and its 95 % interval by paired bootstrap."""

    points: float
    low: float
    high: float


def nearness(expected: Vectors, found: Vectors) -> Nearness:
    """Of unit vectors (texts, dim)."""
    cosines = np.einsum("td,td->t", expected, found, dtype=np.float64)
    error = np.abs(expected @ expected.T - found @ found.T).mean()
    return Nearness(
        float(cosines.mean()),
        float(np.percentile(cosines, 1)),
        float(cosines.min()),
        _overlap(expected, found),
        float(error),
    )


def _overlap(expected: Vectors, found: Vectors) -> float:
    nearest = []
    for vectors in (expected, found):
        similarity = vectors @ vectors.T
        np.fill_diagonal(similarity, -np.inf)
        nearest.append(np.argsort(-similarity, axis=1, kind="stable")[:, :NEIGHBOURS])
    return float(np.mean([len(np.intersect1d(a, b)) / len(a) for a, b in zip(*nearest, strict=True)]))


def cut(vectors: Vectors, dim: int) -> Vectors:
    """The first dim values, of unit length again."""
    part = vectors[:, :dim]
    return np.asarray(part / np.linalg.norm(part, axis=1, keepdims=True))


def resampled_scores(task: Task, vectors: Sequence[Vectors]) -> Scores:
    """The score of all items, then of resamples of as many items, drawn with repetition.

    The draws depend only on the number of items, so those of two runtimes are paired. So are those of translations of
    a set, which are not independent.
    """
    results = task.results(vectors)
    random = np.random.default_rng(_SEED)
    draws = (random.integers(0, task.items, task.items) for _ in range(_RESAMPLES))
    return np.array([task.score(results, np.arange(task.items)), *(task.score(results, chosen) for chosen in draws)])


def loss(reference: Scores, found: Scores) -> Loss:
    """What `found` loses against `reference`, or the means of several."""
    points, *resampled = reference - found
    low, high = np.percentile(resampled, _INTERVAL)
    return Loss(float(points), float(low), float(high))
