"""sentence-transformers, which is where most users come from: PyTorch in float32 and bfloat16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..harness.workload import Ids
from . import Encoder, Variant, Vectors

PACKAGES = {"sentence-transformers": "sentence_transformers"}
DTYPES = ("float32", "bfloat16")


def prepare(checkpoint: Path, folder: Path) -> list[Variant]:  # noqa: ARG001 - it reads the checkpoint itself
    """The checkpoint as it is, in each type."""
    return [Variant("sentence-transformers", dtype, checkpoint) for dtype in DTYPES]


def open_variant(variant: Variant, threads: int | None) -> Encoder:
    """All modules of the model but the tokenizer's part."""
    import torch
    from sentence_transformers import SentenceTransformer

    if threads is not None:
        torch.set_num_threads(threads)
    model: Any = SentenceTransformer(
        str(variant.path), device="cpu", local_files_only=True, model_kwargs={"dtype": variant.name}
    )

    def encode(ids: Ids) -> Vectors:
        inputs = torch.from_numpy(ids.astype(np.int64))
        with torch.inference_mode():
            features = model({"input_ids": inputs, "attention_mask": torch.ones_like(inputs)})
            vectors: Vectors = features["sentence_embedding"].float().numpy()
        return vectors

    return encode
