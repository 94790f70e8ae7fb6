"""Our own ONNX models, as `embgemma export-onnx` makes them, in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...notices import Progress
from ...onnx.onnx_backend import open_onnx_model
from ...onnx.onnx_choices import FORMATS, Format
from ..harness.cache import cached
from ..harness.command import PROGRAM
from . import Encoder, Variant

PACKAGES = {"onnxruntime": "onnxruntime", "onnx": "onnx"}
SOURCES = ("export/**/*.py",)  # of the code that makes it


def prepare(checkpoint: Path, folder: Path) -> list[Variant]:
    """A model in each format, for ONNX Runtime."""
    from ...export.onnx.export import export_onnx

    def variant(weights_format: Format) -> Variant:
        path = folder / f"ours-onnx-{weights_format}" / "model.onnx"
        with Progress(PROGRAM) as progress:
            made = cached(
                path, lambda made: export_onnx(checkpoint, made, weights_format, progress=progress), SOURCES, ["onnx"]
            )
        return Variant("embgemma-onnx", weights_format, made)

    return [variant(weights_format) for weights_format in FORMATS]


def open_variant(variant: Variant, threads: int | None) -> Encoder:
    """An ONNX model, opened as `embgemma.load` does."""
    backend = open_onnx_model(variant.path, threads)[1]
    return lambda ids: backend.run(list(ids.astype(np.int32)))
