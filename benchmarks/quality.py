"""What quantisation costs: `python -m embgemma.benchmarks.quality FLOAT32 FILE…` compares model files.

Cosines to the golden embeddings, and the scores of evaluation sets at every Matryoshka size, with the loss against the
float32 file and its bootstrap interval. These sets only measure: nothing in this project is tuned on them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..kernels.errors import EmbgemmaError, InputError
from ..model import EmbeddingModel, load
from .exactness import GOLDEN_FILE, GOLDEN_VARIABLE
from .model import path_from_environment
from .quality_tasks import Task, Vectors, read_tasks
from .table import table

EVALUATION_VARIABLE = "EMBGEMMA_EVALDATA"
DIMENSIONS = (768, 512, 256, 128)
NEIGHBOURS = 10

_RESAMPLES = 300  # of the bootstrap: enough for the 2.5 % and 97.5 % points to two digits
_INTERVAL = (2.5, 97.5)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m embgemma.benchmarks.quality", description=__doc__)
    parser.add_argument("reference", type=Path, metavar="FLOAT32", help="the model file that others are compared with")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="model files in other schemes")
    parser.add_argument("--task", action="append", default=[], help="only tasks whose name contains this")
    parser.add_argument("--threads", type=int, help="default: the number of physical cores")
    options = parser.parse_args(arguments)
    try:
        sys.stdout.write(f"{quality([options.reference, *options.files], options.task, options.threads)}\n")
    except EmbgemmaError as error:
        sys.stderr.write(f"quality: {error}\n")
        return 1
    return 0


def quality(files: Sequence[Path], wanted: Sequence[str] = (), threads: int | None = None) -> str:
    """The report on model files, the first of which is the float32 one; raises InputError without any data."""
    golden, evaluation = path_from_environment(GOLDEN_VARIABLE), path_from_environment(EVALUATION_VARIABLE)
    if golden is None and evaluation is None:
        raise InputError(f"set {GOLDEN_VARIABLE} or {EVALUATION_VARIABLE} to a folder of reference data")
    parts = []
    if golden is not None:
        parts.append(_golden_table(files[1:], golden, threads))
    if evaluation is not None:
        parts.append(_task_table(files, read_tasks(evaluation, wanted), threads))
    return "\n\n".join(parts)


def _golden_table(files: Sequence[Path], folder: Path, threads: int | None) -> str:
    """How near the vectors of each file are to the golden ones."""
    with np.load(folder / GOLDEN_FILE) as stored:
        ids = np.split(stored["ids"].astype(np.int32), stored["offsets"][1:-1])
        expected = stored["embeddings"]
    header = ["file", "dim", "cosine mean", "1st percentile", "min", f"top-{NEIGHBOURS} overlap", "similarity error"]
    rows = []
    for file in files:
        with load(file, threads=threads) as model:
            found = model.encode_ids([text.tolist() for text in ids])
        for dim in DIMENSIONS:
            a, b = _cut(expected, dim), _cut(found, dim)
            cosine = np.einsum("td,td->t", a, b)
            numbers = [cosine.mean(), np.percentile(cosine, 1), cosine.min(), _overlap(a, b), similarity_error(a, b)]
            rows.append([file.name, str(dim), *(f"{number:.4f}" for number in numbers)])
    return table(header, rows, markdown=True, left=1)


def _task_table(files: Sequence[Path], tasks: Sequence[Task], threads: int | None) -> str:
    """Scores by task, and the mean loss against the first file with its interval."""
    results: dict[tuple[Path, int], list[npt.NDArray[np.float64]]] = {}
    for file in files:
        with load(file, threads=threads) as model:
            for task in tasks:
                vectors = _encoded(model, task)
                for dim in DIMENSIONS:
                    cut = [_cut(part, dim) for part in vectors]
                    results.setdefault((file, dim), []).append(task.results(cut))
    header = ["file", "dim", *(task.name for task in tasks), "mean", "loss", "95 % interval"]
    rows = []
    for (file, dim), of_file in results.items():
        everything = [np.arange(task.items) for task in tasks]
        scores = [task.score(found, items) for task, found, items in zip(tasks, of_file, everything, strict=True)]
        row = [file.name, str(dim), *(f"{score:.2f}" for score in [*scores, float(np.mean(scores))])]
        if file == files[0]:
            rows.append([*row, "-", "-"])
            continue
        reference = results[files[0], dim]
        loss = _mean_loss(tasks, reference, of_file, everything)
        low, high = _interval(tasks, reference, of_file)
        rows.append([*row, f"{loss:.2f}", f"{low:.2f} … {high:.2f}"])
    return table(header, rows, markdown=True, left=1)


def _encoded(model: EmbeddingModel, task: Task) -> list[Vectors]:
    """Vectors of each list of texts of a task; texts that occur twice are embedded once."""
    out = []
    for prompt, texts in task.texts:
        distinct, positions = np.unique(np.array(texts, dtype=object), return_inverse=True)
        name = prompt if prompt in model.prompts else None
        out.append(model.encode(distinct.tolist(), prompt_name=name, show_progress_bar=False)[positions])
    return out


def _mean_loss(
    tasks: Sequence[Task],
    reference: Sequence[npt.NDArray[np.float64]],
    found: Sequence[npt.NDArray[np.float64]],
    chosen: Sequence[npt.NDArray[np.int64]],
) -> float:
    """How many points the found results lose on the mean over tasks, for the chosen items of each."""
    losses = [
        task.score(expected, items) - task.score(result, items)
        for task, expected, result, items in zip(tasks, reference, found, chosen, strict=True)
    ]
    return float(np.mean(losses))


def _interval(
    tasks: Sequence[Task], reference: Sequence[npt.NDArray[np.float64]], found: Sequence[npt.NDArray[np.float64]]
) -> tuple[float, float]:
    """The 95 % interval of the mean loss by paired bootstrap: the same items are drawn for both."""
    random = np.random.default_rng(0)
    losses = [
        _mean_loss(tasks, reference, found, [random.integers(0, task.items, task.items) for task in tasks])
        for _ in range(_RESAMPLES)
    ]
    low, high = np.percentile(losses, _INTERVAL)
    return float(low), float(high)


def _cut(vectors: Vectors, dim: int) -> Vectors:
    """The first dim values, normalised again."""
    part = vectors[:, :dim]
    return np.asarray(part / np.linalg.norm(part, axis=1, keepdims=True))


def _overlap(expected: Vectors, found: Vectors) -> float:
    """How many of the nearest neighbours of a text, among the others, stay among its nearest."""
    nearest = []
    for vectors in (expected, found):
        similarity = vectors @ vectors.T
        np.fill_diagonal(similarity, -np.inf)
        nearest.append(np.argsort(-similarity, axis=1, kind="stable")[:, :NEIGHBOURS])
    return float(np.mean([len(np.intersect1d(a, b)) / NEIGHBOURS for a, b in zip(*nearest, strict=True)]))


def similarity_error(expected: Vectors, found: Vectors) -> float:
    """The mean distance between the cosines of two texts."""
    return float(np.abs(expected @ expected.T - found @ found.T).mean())


if __name__ == "__main__":
    raise SystemExit(main())
