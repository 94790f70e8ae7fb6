"""LangChain: `EmbgemmaEmbeddings` is one of its `Embeddings`."""

from __future__ import annotations

from .base import Embedder, needs

with needs("langchain-core"):
    from langchain_core.embeddings import Embeddings


class EmbgemmaEmbeddings(Embedder, Embeddings):
    """Embeds queries and documents, each with its prompt. The calls of `asyncio` run in a thread."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Vectors of documents, in their order."""
        return self.document_lists(texts)

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query."""
        return self.query_list(text)
