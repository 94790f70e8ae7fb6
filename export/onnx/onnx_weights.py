"""What a format stores: norms, matrices and the embedding table, calibrated or rounded by themselves."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto, helper

from ...kernels.config import EncoderConfig
from ...kernels.layout import EMBEDDING_GROUP_GRAIN, PANEL, RowFormat, matrices
from ...kernels.model_file import EMBEDDING
from ...onnx.onnx_choices import Format
from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.checkpoint_tensors import Float32
from ..quantise.calibrate import calibrated_parts, plain_parts
from ..quantise.calibration import CalibrationBatch
from ..quantise.embedding import EmbeddingTable
from ..quantise.gptq import Float64
from .graph import Array, Constant
from .matrix import Matrix, int4_matrix, int8_matrix

# Columns of matrices that are rotated together: faster than blocks of 64, and as exact (../EXPERIMENTS.md).
MATRIX_ROTATION = 16

# Scales per row of the embedding table, where the width of a row allows; each takes 0.5 MB of the real file.
_TABLE_GROUPS: dict[Format, int] = {"int8": 4, "int4": 24}

_FIRST_INT8, _LAST_INT8 = 1 / 12, 1 / 4  # of the layers of an int4 model


@dataclass(frozen=True)
class Table:
    """The embedding table; rows are stored as in a model file (FORMAT.md, rule 16).

    Attributes:
        weight: (vocab, hidden) float32 or int8, (vocab, hidden / 2) uint8.
        scale: (vocab, groups) float16; None for float32.
    """

    weight: Constant
    scale: Constant | None = None


@dataclass(frozen=True)
class EncoderWeights:
    """All that a graph stores. Unless the format is float32, matrices have rotated columns, the table rotated rows, and
    values leave `qkv` rotated; see ../../kernels/rotation.py.

    Attributes:
        config: shapes and constants.
        format: of most of the matrices and of the table.
        norms: (length,) float32 by the names of a model file.
        matrices: by the names of a model file; the channels of `gate_up` are those of gate, then those of up.
        table: the embedding table.
    """

    config: EncoderConfig
    format: Format
    norms: Mapping[str, Array]
    matrices: Mapping[str, Matrix]
    table: Table

    @property
    def dim(self) -> int:
        """Size of the vectors."""
        return len(self.matrices["head"].values)

    def with_dim(self, dim: int) -> EncoderWeights:
        """The same with vectors of this size, the first numbers of the full ones."""
        head = self.matrices["head"].channels(np.arange(dim))
        return dataclasses.replace(self, matrices={**self.matrices, "head": head})


def read_weights(source: Checkpoint, weights_format: Format, batch: CalibrationBatch | None) -> EncoderWeights:
    """The weights of a checkpoint in a format, calibrated on a batch of texts or, without one, each rounded by itself.

    Calibration takes minutes. Raises CheckpointError for numbers that are not finite.
    """
    config, int8 = source.config, _int8_matrices(source.config, weights_format)

    def rounder(name: str, weights: Float32, gram: Float64) -> Matrix:
        return int8_matrix(weights, gram) if name in int8 else int4_matrix(weights, gram)

    def plain(name: str, weights: Float32) -> Matrix:
        if weights_format == "float32":
            return Matrix(weights, weights[:, :0], weights[:, :0])
        return rounder(name, weights, np.eye(weights.shape[1]))

    stored_table, parts = _float32_table(source), plain_parts(source, plain, block=None)
    if weights_format != "float32":
        groups = math.gcd(_TABLE_GROUPS[weights_format], config.hidden // EMBEDDING_GROUP_GRAIN)
        table = EmbeddingTable(source, RowFormat(weights_format, groups))
        if batch is not None:
            table.calibrate(batch)
        stored_table = _quantised_table(table)
        parts = (
            plain_parts(source, plain, block=MATRIX_ROTATION, rotated_values=True)
            if batch is None
            else calibrated_parts(source, batch, table, rounder, block=MATRIX_ROTATION, rotated_values=True)
        )
    norms: dict[str, Array] = {}
    stored: dict[str, Matrix] = {}
    for name, part in parts:
        if isinstance(part, Matrix):
            stored[name] = part
        else:
            norms[name] = part
    return EncoderWeights(config, weights_format, norms, _arranged(config, stored), stored_table)


def _int8_matrices(config: EncoderConfig, weights_format: Format) -> set[str]:
    """The matrices that have 8 bits: in int4 the head, and the layers where errors cost most (../scheme.py)."""
    names = {spec.name for spec in matrices(config)}
    if weights_format == "int8":
        return names
    first, last = round(config.layers * _FIRST_INT8), config.layers - round(config.layers * _LAST_INT8)
    layers = tuple(f"layers.{i}." for i in range(config.layers) if not first <= i < last)
    return {name for name in names if name == "head" or name.startswith(layers)}


def _arranged(config: EncoderConfig, stored: Mapping[str, Matrix]) -> dict[str, Matrix]:
    """The matrices with the channels of gate before those of up: in a model file a panel of each takes turns."""
    order = np.arange(2 * config.ffn).reshape(-1, 2, PANEL).transpose(1, 0, 2).reshape(-1)
    return {name: matrix.channels(order) if name.endswith(".gate_up") else matrix for name, matrix in stored.items()}


def _quantised_table(table: EmbeddingTable) -> Table:
    """The table with its scales."""
    tensors: dict[str, list[Array]] = {}
    for name, part in table.tensors():
        tensors.setdefault(name, []).append(part)
    return Table(*(_in_parts(f"{EMBEDDING}.{kind}", tensors[f"{EMBEDDING}.{kind}"]) for kind in ("weight", "scale")))


def _float32_table(source: Checkpoint) -> Table:
    """The table as published, read as it is written."""
    table, shape = EmbeddingTable(source, RowFormat("float32")), (source.config.vocab, source.config.hidden)
    size = 4 * math.prod(shape)

    def parts() -> Iterator[Array]:
        return (part for _, part in table.tensors())

    return Table(Constant(f"{EMBEDDING}.weight", TensorProto.FLOAT, shape, size, parts))


def _in_parts(name: str, parts: list[Array]) -> Constant:
    """A constant whose rows are in several arrays."""
    shape = (sum(map(len, parts)), *parts[0].shape[1:])
    onnx_type = helper.np_dtype_to_tensor_dtype(parts[0].dtype)
    return Constant(name, onnx_type, shape, sum(part.nbytes for part in parts), lambda: iter(parts))
