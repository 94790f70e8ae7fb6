"""Model files with other tensors: what a backend computes with, and a reader checks, is always a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embgemma.export.write import ModelFileWriter
from embgemma.kernels.model_file import TensorInfo

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from embgemma.kernels.layout import Tensor
    from embgemma.kernels.model_file import ModelFile


def write_changed(path: Path, model: ModelFile, changes: Mapping[str, Tensor | None]) -> Path:
    """Writes `model` with these tensors in place of its own, right or wrong; None leaves one out."""
    changed = {name: changes.get(name, tensor) for name, tensor in model.tensors.items()}
    tensors = {name: tensor for name, tensor in changed.items() if tensor is not None}
    infos = {name: TensorInfo(tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
    with ModelFileWriter.create(path, model.metadata, infos) as writer:
        for name, tensor in tensors.items():
            writer.write(name, tensor)
    return path
