"""txtai: `Embeddings(method="embgemma.integrations.txtai.EmbgemmaVectors", path=MODEL)`."""

from __future__ import annotations

from typing import Any

from .base import Embedder, needs

with needs("txtai"):
    from txtai.vectors import Vectors


class EmbgemmaVectors(Vectors):
    """Embeds queries and documents, each with its prompt; `vectors` in the configuration has options of `load`."""

    def loadmodel(self, path: str) -> Embedder:
        """Opens the model. A stored index has the fingerprint of its vectors among the options, and refuses others."""
        options = self.config.get("vectors", {})
        embedder = Embedder(path, **options)
        self.config["vectors"] = {**options, "fingerprint": embedder.fingerprint}
        return embedder

    def encode(self, data: list[str], category: str | None = None) -> Any:
        """Vectors of documents, if that is the category ("data"), or of queries: (texts, dim) float32, in order."""
        return self.model.documents(data) if category == "data" else self.model.queries(data)
