"""ONNX Runtime on its CPU provider: the fused graph of onnx_graph.py in float32, int8 and blockwise int4."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import numpy as np

from ...export.checkpoint.checkpoint import read_checkpoint
from ..harness.cache import cached
from . import Variant, Vectors

if TYPE_CHECKING:
    from pathlib import Path

    from ..harness.workload import Ids

PACKAGES = {"onnxruntime": "onnxruntime", "onnx": "onnx"}
MODEL_FILE = "model.onnx"
SOURCES = ("benchmarks/peers/onnx_graph.py", "export/onnx/*.py", "export/checkpoint/*.py")  # of what makes it


def prepare(checkpoint: Path, folder: Path) -> list[Variant]:
    """The graph in each precision."""
    from .onnx_graph import Precision, write_onnx

    source = read_checkpoint(checkpoint)

    def variant(precision: Precision) -> Variant:
        path = cached(
            folder / f"onnx-{precision}",
            lambda made: write_onnx(source, precision, made / MODEL_FILE),
            SOURCES,
            ["onnx"],
        )
        return Variant("onnxruntime", precision, path / MODEL_FILE)

    return [variant(precision) for precision in get_args(Precision)]


class OnnxRuntimeEncoder:
    """A session on the CPU; its threads spin between operations, which is its default and its fastest."""

    def __init__(self, variant: Variant, threads: int | None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3  # errors
        self._session = onnxruntime.InferenceSession(str(variant.path), options, providers=["CPUExecutionProvider"])

    def encode(self, ids: Ids) -> Vectors:
        """Unit vectors (texts, hidden) of ids (texts, tokens)."""
        vectors: Vectors = self._session.run(None, {"ids": ids.astype(np.int64)})[0]
        return vectors


open_variant = OnnxRuntimeEncoder
