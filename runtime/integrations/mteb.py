"""MTEB: `EmbgemmaEncoder` is an encoder that `mteb.evaluate` takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..find import IN_THE_BOX
from .base import Embedder, needs

with needs("mteb-core"):
    from mteb.models import ModelMeta
    from mteb.models.abs_encoder import AbsEncoder
    from mteb.types import PromptType

if TYPE_CHECKING:
    from collections.abc import Iterable


class EmbgemmaEncoder(AbsEncoder):
    """Embeds each task's texts with the model's prompt for it: of its name, its type, or for queries or documents.

    The revision in its metadata is the fingerprint, so results of a model that was changed are not taken for its own.
    """

    def __init__(
        self, model_name: str = IN_THE_BOX, revision: str | None = None, device: Any = None, **options: Any
    ) -> None:
        embedder = Embedder(model_name, revision=revision, device=device, **options)
        self.model = embedder.embedding_model
        self.model_prompts = self.model.prompts
        self.mteb_model_meta = ModelMeta.create_empty(
            overwrites={
                "name": model_name if "/" in model_name else f"embgemma/{self.model.path.stem}",
                "revision": embedder.fingerprint,
                "embed_dim": embedder.dim,
                "max_tokens": self.model.max_seq_length,
                "use_instructions": True,
            }
        )

    def encode(
        self, inputs: Iterable[dict[str, Any]], *, task_metadata: Any, prompt_type: Any = None, **options: Any
    ) -> Any:
        """Vectors (texts, dim) float32 of all batches, in their order."""
        for name in ("hf_split", "hf_subset"):
            options.pop(name, None)
        name = self.get_prompt_name(task_metadata, prompt_type)
        if prompt_type == PromptType.document and name != f"{task_metadata.type}-document":
            name = "document"  # the prompt of a type alone, such as Reranking, is that of its queries
        return self.model.encode(
            [text for batch in inputs for text in batch["text"]],
            prompt_name=name,
            normalize_embeddings=True,
            **options,
        )
