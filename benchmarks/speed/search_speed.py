"""How much time an index takes on top of its embeddings, and how long a search in it takes.

The files are indexed and their passages embedded alone, in turn. Then as many random vectors are searched as are asked
for; the time to embed the query is not counted. The figures are medians; processor time does not depend on what else
the machine does.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from ...kernels.errors import InputError
from ...model import EmbeddingModel, load
from ...search import Index
from ...search.embedder import Embedder
from ...search.passages import Passage
from ...search.vectors import to_bytes
from ..harness.command import progress
from . import options as shared

ROUNDS = 3
SEARCHES = 30
NEAREST = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of the command `search`."""
    parser.description = __doc__
    parser.add_argument("model", metavar="MODEL", help="a model file, or a name")
    parser.add_argument("paths", nargs="+", type=Path, metavar="FOLDER|FILE", help="what to index")
    parser.add_argument(
        "--vectors", type=shared.positive, default=100_000, metavar="N", help="to search (default: 100000)"
    )
    parser.set_defaults(run=lambda options: measure_search(options.model, options.paths, options.vectors))


def measure_search(model_name: str, paths: list[Path], vectors: int) -> str:
    """The figures, as text."""
    with load(model_name) as model, tempfile.TemporaryDirectory() as folder:
        indexing = _indexing(model, paths, Path(folder))
        searching = _searching(model, vectors, Path(folder) / "random.db")
        return f"{indexing}\n{searching}"


def _indexing(model: EmbeddingModel, paths: list[Path], folder: Path) -> str:
    with Index.create(folder / "first.db", model) as index:
        index.update(paths)
        rows = index._store.connection.execute("SELECT text, title FROM passages").fetchall()
        passages = [Passage(str(text), 0, 0, 0, str(title)) for text, title in rows]
        texts = list(dict.fromkeys(map(index._embedder.text_of, passages)))
        dim = index.settings.dim

    def make(number: int) -> None:
        with Index.create(folder / f"{number}.db", model) as index:
            index.update(paths)

    if not texts:
        raise InputError(f"{', '.join(map(str, paths))}: there is no text in it; name other files")
    progress(f"timing {len(texts)} passages")
    plain, indexed = [], []
    for i in range(ROUNDS):
        plain.append(_seconds(lambda: model.encode(texts, prompt="", truncate_dim=dim, normalize_embeddings=True)))
        indexed.append(_seconds(partial(make, i)))
    (wall, cpu), (index_wall, index_cpu) = map(_medians, (plain, indexed))
    return (
        f"{len(texts)} passages: encode {wall:.2f} s ({cpu:.2f} s of processor time), index {index_wall:.2f} s "
        f"({index_cpu:.2f} s); index / encode {index_wall / wall:.3f} ({index_cpu / cpu:.3f})"
    )


def _searching(model: EmbeddingModel, vectors: int, path: Path) -> str:
    class Random(Embedder):
        def embed(self, texts: list[str]) -> list[bytes]:
            rows = np.random.default_rng(len(texts)).standard_normal((len(texts), index.settings.dim), np.float32)
            return to_bytes(rows / np.linalg.norm(rows, axis=1, keepdims=True), index.settings.precision)

    with Index.create(path, model) as index:
        progress(f"storing {vectors} vectors")
        index._embedder = Random(model, index.settings)
        index.add(map(str, range(vectors)))
        query = index._embedder.embed_query("what is searched for")
        wall, cpu = _medians([_seconds(lambda: index._store.nearest(query, NEAREST)) for _ in range(SEARCHES)])
        stored = f"{len(index)} vectors of {index.settings.dim} {index.settings.precision}"
        size = path.stat().st_size / 1e6
    return f"{stored}, {size:.1f} MB: search {wall * 1e3:.1f} ms ({cpu * 1e3:.1f} ms of processor time)"


def _seconds(run: Callable[[], object]) -> tuple[float, float]:
    """Wall time and processor time."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def _medians(times: list[tuple[float, float]]) -> tuple[float, float]:
    wall, cpu = zip(*times, strict=True)
    return statistics.median(wall), statistics.median(cpu)
