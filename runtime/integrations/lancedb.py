"""LanceDB: the embedding function "embgemma" of its registry, once this module is imported."""

from __future__ import annotations

from typing import Any

from ..find import IN_THE_BOX
from .base import Embedder, needs, or_none

with needs("lancedb"):
    from lancedb.embeddings import TextEmbeddingFunction, register
    from pydantic import ConfigDict, PrivateAttr


@register("embgemma")
class EmbgemmaEmbeddings(TextEmbeddingFunction):
    """Embeds queries and documents, each with its prompt; a text that is null has no vector.

    A table keeps the arguments and opens the model again by itself; it refuses a model that was changed. Arguments that
    are no fields, such as truncate_dim, are those of `embgemma.load`.
    """

    model_config = ConfigDict(extra="allow")
    model: str = IN_THE_BOX
    max_retries: int = 0  # what failed here fails again
    _embedder: Embedder = PrivateAttr()

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._embedder = Embedder(self.model, **(self.model_extra or {}))

    def safe_model_dump(self) -> dict[str, Any]:
        """What is stored with a table."""
        return {**super().safe_model_dump(), "fingerprint": self._embedder.fingerprint}

    def ndims(self) -> int:
        """Size of a vector."""
        return self._embedder.dim

    def generate_embeddings(self, texts: Any, *_: Any, **__: Any) -> list[Any]:
        """Vectors of documents, in their order."""
        return or_none(self._embedder.documents, texts)

    def compute_query_embeddings(self, query: Any, *_: Any, **__: Any) -> list[Any]:
        """The vector of a query."""
        return list(self._embedder.queries(self.sanitize_input(query)))
