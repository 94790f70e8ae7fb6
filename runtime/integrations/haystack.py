"""Haystack: components that embed a query, and documents."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from ..find import IN_THE_BOX
from ..kernels.errors import InputError
from .base import Embedder, needs

with needs("haystack-ai"):
    from haystack import Document, component, default_to_dict


@component
class EmbgemmaTextEmbedder(Embedder):
    """Embeds a query."""

    def to_dict(self) -> dict[str, Any]:
        """The component as Haystack stores it; see `Embedder.config`."""
        return default_to_dict(self, **self.config())  # type: ignore[no-any-return]

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, list[float]]:
        """The vector of a query."""
        return {"embedding": self.query_list(text)}

    @component.output_types(embedding=list[float])
    async def run_async(self, text: str) -> dict[str, list[float]]:
        """`run` in a thread."""
        return await asyncio.to_thread(self.run, text)


@component
class EmbgemmaDocumentEmbedder(Embedder):
    """Embeds documents: their content, after the values of the fields of `meta` that are named."""

    def __init__(
        self,
        model: str = IN_THE_BOX,
        *,
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
        **options: Any,
    ) -> None:
        if isinstance(meta_fields_to_embed, str):  # whose letters would be taken for names
            raise InputError(f"meta_fields_to_embed is {meta_fields_to_embed!r}; expected a list of names")
        Embedder.__init__(self, model, **options)  # not by super(): @component makes another class of this one
        self.meta_fields_to_embed = meta_fields_to_embed or []
        self.embedding_separator = embedding_separator

    def to_dict(self) -> dict[str, Any]:
        """The component as Haystack stores it; see `Embedder.config`."""
        own = {name: getattr(self, name) for name in ("meta_fields_to_embed", "embedding_separator")}
        return default_to_dict(self, **self.config(), **own)  # type: ignore[no-any-return]

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        """Copies of the documents with their vectors, in their order."""
        vectors = self.document_lists([self._text(i, document) for i, document in enumerate(documents)])
        pairs = zip(documents, vectors, strict=True)
        return {"documents": [replace(document, embedding=vector) for document, vector in pairs]}

    @component.output_types(documents=list[Document])
    async def run_async(self, documents: list[Document]) -> dict[str, list[Document]]:
        """`run` in a thread."""
        return await asyncio.to_thread(self.run, documents)

    def _text(self, i: int, document: Document) -> str:
        if not isinstance(document, Document):
            raise InputError(f"documents[{i}] is of type {type(document).__name__}; expected a Document")
        if document.content is None:
            raise InputError(f"documents[{i}] has no text: its content is None; leave it out")
        values = [document.meta.get(name) for name in self.meta_fields_to_embed]
        return self.embedding_separator.join([*(str(value) for value in values if value is not None), document.content])
