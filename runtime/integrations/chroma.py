"""Chroma: `EmbgemmaEmbeddingFunction`.

Chroma compares the function that a collection was made with and the one that it is opened with by their names alone. So
each name has the fingerprint of its vectors. Chroma finds a function by its name once there was one in this process.
"""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

from .base import Embedder, needs

with needs("chromadb"):
    from chromadb.api.types import Documents, EmbeddingFunction, Embeddings, Space
    from chromadb.utils.embedding_functions import register_embedding_function


class EmbgemmaEmbeddingFunction(Embedder, EmbeddingFunction[Documents]):
    """Embeds queries and documents, each with its prompt; a collection of other vectors refuses it."""

    def __init__(self, *args: Any, **options: Any) -> None:  # EmbeddingFunction asks for one
        super().__init__(*args, **options)
        name = partial(str, f"{self.name()}-{self.fingerprint}")
        self.name = name  # type: ignore[method-assign]
        register_embedding_function(SimpleNamespace(name=name, build_from_config=self.build_from_config))

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
        """The beginning of the name that it is stored under."""
        return "embgemma"

    def get_config(self) -> dict[str, Any]:
        """What is stored with a collection."""
        return self.config()

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> EmbgemmaEmbeddingFunction:
        """Makes one of what was stored."""
        return EmbgemmaEmbeddingFunction(**config)
