"""The plugin of `llm`: the model in the box and those in the cache, as models for `llm embed` and its collections.

`llm` does not say whether a text is a query, so each model comes twice: with the prompt of documents, and under a name
that ends in "-query" with the prompt of queries. Vectors of both may be compared.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..find import IN_THE_BOX
from ..hub.cache import entries
from ..kernels.errors import EmbgemmaError
from .base import Embedder, needs

with needs("llm"):
    import llm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

BATCH = 256  # texts that are embedded at once


class EmbgemmaModel(llm.EmbeddingModel):
    """A model that is opened when it is first used."""

    batch_size = BATCH

    def __init__(self, name: str, *, query: bool) -> None:
        self.model_id = (name if name == IN_THE_BOX else f"embgemma/{name}") + ("-query" if query else "")
        self._name, self._query = name, query
        self._embedder: Embedder | None = None

    def embed_batch(self, items: Iterable[Any], *, key: str | None = None) -> Iterator[list[float]]:
        """Vectors of texts, in their order."""
        del key
        if self._embedder is None:
            self._embedder = Embedder(self._name, local_files_only=True)
        return iter((self._embedder.queries if self._query else self._embedder.documents)(list(items)).tolist())


@llm.hookimpl
def register_embedding_models(register: Callable[[EmbgemmaModel], None]) -> None:
    """Names the models; opens none. A cache that cannot be read must not stop `llm`."""
    cached: list[str] = []
    with suppress(EmbgemmaError, OSError):
        cached = [entry.name for entry in entries()]
    for name in dict.fromkeys([IN_THE_BOX, *cached]):
        for query in (False, True):
            register(EmbgemmaModel(name, query=query))
