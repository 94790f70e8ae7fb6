"""Chroma: `EmbgemmaEmbeddingFunction`. Import this module before a collection that was made with it is opened."""

from __future__ import annotations

from typing import Any

from .base import Embedder, needs

with needs("chromadb"):
    from chromadb.api.types import Documents, EmbeddingFunction, Embeddings, Space
    from chromadb.utils.embedding_functions import register_embedding_function


@register_embedding_function
class EmbgemmaEmbeddingFunction(Embedder, EmbeddingFunction[Documents]):
    """Embeds queries and documents, each with its prompt.

    A collection keeps its arguments and opens the model again by itself; it refuses a model that was changed.
    """

    def __init__(self, *args: Any, **options: Any) -> None:  # EmbeddingFunction asks for one
        super().__init__(*args, **options)

    def __call__(self, input: Documents) -> Embeddings:  # noqa: A002  (the name is Chroma's)
        """Vectors of documents, in their order."""
        return list(self.documents(input))

    def embed_query(self, input: Documents) -> Embeddings:  # noqa: A002
        """Vectors of queries, in their order."""
        return list(self.queries(input))

    def default_space(self) -> Space:
        """How vectors are compared."""
        return "cosine"

    @staticmethod
    def name() -> str:
        """The name that it is stored under."""
        return "embgemma"

    def get_config(self) -> dict[str, Any]:
        """What is stored with a collection."""
        return self.config()

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> EmbgemmaEmbeddingFunction:
        """Makes one of what was stored."""
        return EmbgemmaEmbeddingFunction(**config)
