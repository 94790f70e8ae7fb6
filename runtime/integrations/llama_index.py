"""LlamaIndex: `EmbgemmaEmbedding` is one of its `BaseEmbedding`s."""

from __future__ import annotations

import asyncio
from typing import Any

from ..find import IN_THE_BOX
from .base import Embedder, needs

with needs("llama-index-core"):
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import ConfigDict, PrivateAttr, field_validator


class EmbgemmaEmbedding(BaseEmbedding):
    """Embeds queries and documents, each with its prompt. The calls of `asyncio` run in a thread.

    What is stored of it has the fingerprint of its vectors: it refuses another model under the same name, and caches of
    pipelines tell them apart. An `embeddings_cache` is refused, since it has one vector for a query and a document of
    the same words, of whatever model.

    Arguments that BaseEmbedding does not know, such as truncate_dim, are those of `embgemma.load`.
    """

    model_config = ConfigDict(extra="allow", validate_assignment=True)
    _embedder: Embedder = PrivateAttr()

    def __init__(self, model_name: str = IN_THE_BOX, **options: Any) -> None:
        super().__init__(model_name=str(model_name), **options)
        self._embedder = Embedder(model_name, **(self.model_extra or {}))
        self.fingerprint = self._embedder.fingerprint  # one of the options from now on

    @field_validator("embeddings_cache")
    @classmethod
    def _no_cache(cls, cache: Any) -> Any:
        if cache is not None:
            raise ValueError("embeddings_cache confuses queries with documents of the same words; leave it out")
        return cache

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()  # of which the other side passes __dict__ to __init__
        return {**state, "__dict__": {**state["__dict__"], **(self.model_extra or {})}}

    @classmethod
    def class_name(cls) -> str:
        """The name that it is stored under."""
        return "EmbgemmaEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._embedder.query_list(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._embedder.document_lists(texts)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)
