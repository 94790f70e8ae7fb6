"""Daft: `embedding`, a function for a column."""

from __future__ import annotations

from typing import Any

from ..find import IN_THE_BOX
from .base import needs
from .bulk import ColumnEmbedder, one_of_process

with needs("daft", "daft"):
    import daft


def embedding(model: str = IN_THE_BOX, *, cpus: int = 1, **options: Any) -> Any:
    """A function that gives the vectors of a column of texts: `embedding(MODEL)(daft.col("text"))`.

    Each worker has one model, and computes with `cpus` threads. For the other arguments and errors see
    `ColumnEmbedder`; those that name columns have no meaning here.
    """
    config = ColumnEmbedder(model, **{"threads": cpus, **options}).config()

    @daft.cls(cpus=cpus)
    class Embed:
        def __init__(self) -> None:
            self._embedder = one_of_process(config)

        @daft.method.batch(return_dtype=daft.DataType.list(daft.DataType.float32()))
        def embed(self, texts: daft.Series) -> Any:
            return self._embedder.vectors(texts.to_arrow())

    return Embed().embed
