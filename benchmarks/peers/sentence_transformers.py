"""sentence-transformers, which is where most users come from: PyTorch in float32 and bfloat16."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import Variant, Vectors

if TYPE_CHECKING:
    from pathlib import Path

    from ..harness.workload import Ids

PACKAGES = {"sentence-transformers": "sentence_transformers"}
DTYPES = ("float32", "bfloat16")


def prepare(checkpoint: Path, folder: Path) -> list[Variant]:  # noqa: ARG001 - it reads the checkpoint itself
    """The checkpoint as it is, in each type."""
    return [Variant("sentence-transformers", dtype, checkpoint) for dtype in DTYPES]


class SentenceTransformersEncoder:
    """All modules of the model but the tokenizer's part."""

    def __init__(self, variant: Variant, threads: int | None) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        if threads is not None:
            torch.set_num_threads(threads)
        self._torch: Any = torch
        self._model: Any = SentenceTransformer(
            str(variant.path), device="cpu", local_files_only=True, model_kwargs={"dtype": variant.name}
        )

    def encode(self, ids: Ids) -> Vectors:
        """Unit vectors (texts, hidden) of ids (texts, tokens)."""
        inputs = self._torch.from_numpy(ids.astype(np.int64))
        with self._torch.inference_mode():
            features = self._model({"input_ids": inputs, "attention_mask": self._torch.ones_like(inputs)})
            vectors: Vectors = features["sentence_embedding"].float().numpy()
        return vectors


open_variant = SentenceTransformersEncoder
