"""Our own ONNX models, as `embgemma export-onnx` makes them, in ONNX Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...onnx.onnx_backend import open_onnx_model
from ...onnx.onnx_choices import FORMATS, Format
from ..harness.cache import cached
from . import Variant, Vectors

if TYPE_CHECKING:
    from pathlib import Path

    from ..harness.workload import Ids

PACKAGES = {"onnxruntime": "onnxruntime", "onnx": "onnx"}
MODEL_FILE = "model.onnx"
SOURCES = ("export/**/*.py",)  # of the code that makes it


def prepare(checkpoint: Path, folder: Path) -> list[Variant]:
    """A model in each format, for ONNX Runtime."""
    from ...export.onnx.export import export_onnx

    def variant(weights_format: Format) -> Variant:
        path = cached(
            folder / f"ours-onnx-{weights_format}",
            lambda made: export_onnx(checkpoint, made / MODEL_FILE, weights_format),
            SOURCES,
            ["onnx"],
        )
        return Variant("embgemma-onnx", weights_format, path / MODEL_FILE)

    return [variant(weights_format) for weights_format in FORMATS]


class OurOnnxEncoder:
    """An ONNX model, opened as `embgemma.load` does."""

    def __init__(self, variant: Variant, threads: int | None) -> None:
        self._backend = open_onnx_model(variant.path, threads)[1]

    def encode(self, ids: Ids) -> Vectors:
        """Unit vectors (texts, hidden) of ids (texts, tokens)."""
        return self._backend.run(list(ids.astype(np.int32)))


open_variant = OurOnnxEncoder
