"""Checks tensors against the config before a Python backend reads them: compiled loops do not check indices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import ModelFileError
from .layout import (
    DTYPE_FORMATS,
    EMBEDDING_GROUP_GRAIN,
    RowFormat,
    codebook_shape,
    embedding_shape,
    matrices,
    panel_shape,
    vectors,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .config import EncoderConfig
    from .layout import MatrixFormat, Tensor


def check_tensors(config: EncoderConfig, tensors: Mapping[str, Tensor]) -> None:
    """Raises ModelFileError, naming the tensor, unless all that the config asks for are there as layout.py says."""
    config.validate()
    for name, length in vectors(config):
        _check(tensors, name, np.dtype(np.float32), (length,))
    for spec in matrices(config):
        matrix_format = _format(tensors, f"{spec.name}.weight")
        _check(tensors, f"{spec.name}.weight", None, panel_shape(matrix_format, spec.out_features, spec.in_features))
        if matrix_format == "int4":
            shape = codebook_shape(spec.out_features, spec.in_features)
            _check(tensors, f"{spec.name}.codebook", np.dtype(np.uint8), shape)
        if matrix_format != "float32":
            _check(tensors, f"{spec.name}.scale", np.dtype(np.float32), (spec.out_features,))
    table_format = _format(tensors, "embedding.weight")
    shapes = [
        embedding_shape(RowFormat(table_format, codebooks=codebooks), config.vocab, config.hidden)
        for codebooks in (False, True)
    ]
    _check(tensors, "embedding.weight", None, shapes[tensors["embedding.weight"].shape == shapes[1]])
    if table_format != "float32":
        scale = _get(tensors, "embedding.scale")
        groups = scale.shape[-1] if scale.ndim else 0
        if groups == 0 or config.hidden % (groups * EMBEDDING_GROUP_GRAIN):
            raise ModelFileError(
                f"tensor 'embedding.scale' has {groups} scales a row; expected them to share {config.hidden} values "
                f"in equal groups, each a multiple of {EMBEDDING_GROUP_GRAIN}"
            )
        _check(tensors, "embedding.scale", np.dtype(np.float16), (config.vocab, groups))


def _get(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise ModelFileError(f"tensor {name!r} is missing; convert the checkpoint again")
    return tensors[name]


def _format(tensors: Mapping[str, Tensor], name: str) -> MatrixFormat:
    """How the codes of a matrix are stored, which its type tells."""
    dtype = _get(tensors, name).dtype
    if dtype not in DTYPE_FORMATS:
        raise ModelFileError(f"tensor {name!r} has type {dtype}; expected float32, int8 or uint8")
    return DTYPE_FORMATS[dtype]


def _check(tensors: Mapping[str, Tensor], name: str, dtype: np.dtype[Any] | None, shape: tuple[int, ...]) -> None:
    """dtype None stands for any."""
    tensor = _get(tensors, name)
    if tensor.shape != shape or (dtype is not None and tensor.dtype != dtype):
        expected = f"{shape} and type {dtype or tensor.dtype}"
        raise ModelFileError(f"tensor {name!r} has shape {tensor.shape} and type {tensor.dtype}; expected {expected}")
