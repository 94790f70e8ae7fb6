"""ONNX Runtime on its CPU provider: the fused graph of onnx_graph.py in float32, int8 and blockwise int4."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np

from ...export.checkpoint.checkpoint import read_checkpoint
from ..harness.cache import cached
from . import Encoder, Variant

PACKAGES = {"onnxruntime": "onnxruntime", "onnx": "onnx"}
SOURCES = ("benchmarks/peers/onnx_graph.py", "export/onnx/*.py", "export/checkpoint/*.py")  # of what makes it


def prepare(checkpoint: Path, folder: Path) -> list[Variant]:
    """The graph in each precision."""
    from .onnx_graph import Precision, write_onnx

    source = read_checkpoint(checkpoint)

    def variant(precision: Precision) -> Variant:
        path = folder / f"onnx-{precision}" / "model.onnx"
        made = cached(path, lambda made: write_onnx(source, precision, made), SOURCES, ["onnx"])
        return Variant("onnxruntime", precision, made)

    return [variant(precision) for precision in get_args(Precision)]


def open_variant(variant: Variant, threads: int | None) -> Encoder:
    """A session on the CPU; its threads spin between operations, which is its default and its fastest."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(str(variant.path), options, providers=["CPUExecutionProvider"])
    return lambda ids: session.run(None, {"ids": ids.astype(np.int64)})[0]
