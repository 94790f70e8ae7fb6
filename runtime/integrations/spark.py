"""Spark: `embedding`, a function for a column, and `embed_parquet`, which goes on where it was stopped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..find import IN_THE_BOX
from .base import needs
from .bulk import ColumnEmbedder, one_of_process

with needs("pyspark", "spark"):
    import pandas as pd
    import pyarrow as pa
    from pyspark import TaskContext
    from pyspark.sql.functions import pandas_udf

if TYPE_CHECKING:
    import os


def embedding(model: str = IN_THE_BOX, **options: Any) -> Any:
    """A function that gives the vectors of a column of texts, as arrays of floats: `embedding(MODEL)("text")`.

    Each process of Python has one model, and computes with as many threads as a task has CPUs (`spark.task.cpus`). For
    the arguments and errors see `ColumnEmbedder`; those that name columns have no meaning here.
    """
    config = ColumnEmbedder(model, **options).config()

    @pandas_udf("array<float>")
    def embed(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
        embedder = _embedder(config)
        for texts in batches:
            vectors = embedder.vectors(pa.array(texts, from_pandas=True))  # in pandas a null may be NaN
            yield pd.Series(vectors.to_numpy(zero_copy_only=False), dtype=object)

    return embed


def embed_parquet(
    session: Any, source: Any, destination: Any, model: str | os.PathLike[str] = IN_THE_BOX, **options: Any
) -> int:
    """Embeds every Parquet file of a folder into another one; gives the number of new rows.

    A file there has the name of its source, appears when it is whole, and is not made again, so a run that was stopped
    goes on. Every node must find the folders under these names. For the arguments and errors see `ColumnEmbedder`.
    """
    embedder = ColumnEmbedder(model, **options)
    tasks, config = embedder.tasks(source, destination), embedder.config()
    if not tasks:
        return 0
    partitions = session.sparkContext.parallelize(tasks, len(tasks))
    return int(partitions.map(lambda task: _embedder(config).file(task)).sum())


def _embedder(config: dict[str, Any]) -> ColumnEmbedder:
    """That of this process, with a thread for each CPU of a task."""
    context = TaskContext.get()
    return one_of_process({"threads": context.cpus() if context else 1, **config})
