"""What a format stores: norms, matrices and the embedding table, calibrated or rounded by themselves."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto, helper

from ...kernels.config import EncoderConfig
from ...kernels.layout import INT4_CODEBOOKS, PANEL, MatrixFormat, matrices
from ...kernels.model_file import EMBEDDING
from ...notices import Progress
from ...onnx.onnx_choices import Format
from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.checkpoint_tensors import Float32
from ..needs import Needs, conversion_needs
from ..part import Part
from ..quantise.calibrate import calibrated_parts, plain_parts
from ..quantise.calibration import CalibrationBatch
from ..quantise.embedding import EmbeddingTable, GridRows, int8_rows
from ..quantise.gptq import Float64
from ..quantise.quantize import Grid
from ..scheme import outer_matrices
from .graph import Array, Constant
from .matrix import Matrix, int4_matrix, int8_matrix

# Columns of matrices that are rotated together: faster than blocks of 64, and as exact (../EXPERIMENTS.md).
MATRIX_ROTATION = 16

# Scales per row of the embedding table, where the width of a row allows; each takes 0.5 MB of the real file.
_TABLE_GROUPS: dict[Format, int] = {"int8": 4, "int4": 24}
_TABLE_GRAIN = 32  # a scale covers a multiple of this many elements
EMBEDDING_BLOCK = 64  # elements of a row of int4 that are packed together

_FIRST_INT8, _LAST_INT8 = 1 / 12, 1 / 4  # of the layers: those of an int4 model with 8 bits, and so has the head


@dataclass(frozen=True)
class EncoderWeights:
    """All that a graph stores. Unless the format is float32, matrices have rotated columns, the table rotated rows, and
    values leave `qkv` rotated; see ../../kernels/rotation.py.

    Attributes:
        config: shapes and constants.
        format: of most of the matrices and of the table.
        norms: (length,) float32 by the names of a model file.
        matrices: by the names of a model file; the channels of `gate_up` are those of gate, then those of up.
        table: the rows of the embedding table: (vocab, hidden) float32 or int8, or (vocab, hidden / 2) uint8 of int4,
            the codes 0 … 15 of the first codebook of a model file. Of each EMBEDDING_BLOCK elements the first half is
            in the low nibbles.
        table_scale: (vocab, groups) float16; None for float32.
    """

    config: EncoderConfig
    format: Format
    norms: Mapping[str, Array]
    matrices: Mapping[str, Matrix]
    table: Constant
    table_scale: Constant | None

    @property
    def dim(self) -> int:
        """Size of the vectors."""
        return len(self.matrices["head"].values)

    def with_dim(self, dim: int) -> EncoderWeights:
        """The same with vectors of this size, the first numbers of the full ones."""
        head = self.matrices["head"].channels(np.arange(dim))
        return dataclasses.replace(self, matrices={**self.matrices, "head": head})

    def with_part(self, part: Part) -> EncoderWeights:
        """The same with the rows of a part of the vocabulary."""
        kept = part.kept
        if kept is None:
            return self

        def selected(whole: Constant) -> Constant:
            def parts() -> Iterator[Array]:
                return (rows for _, rows in kept.select((whole.name, rows) for rows in whole.parts()))

            shape, size = (len(kept.rows), *whole.shape[1:]), whole.size_bytes * len(kept.rows) // whole.shape[0]
            return dataclasses.replace(whole, shape=shape, size_bytes=size, parts=parts)

        scale = None if self.table_scale is None else selected(self.table_scale)
        return dataclasses.replace(self, config=part.config, table=selected(self.table), table_scale=scale)


def export_needs(config: EncoderConfig, weights_format: Format, batch: CalibrationBatch | None) -> Needs:
    """What an export will need, but for the room that scales and tokenizer take, and the time of checks."""
    int8 = outer_matrices(config, _FIRST_INT8, _LAST_INT8) if weights_format == "int4" else set()
    formats: dict[str, MatrixFormat] = {
        spec.name: "int8" if spec.name in int8 else weights_format for spec in matrices(config)
    }
    bits: dict[Format, int] = {"float32": 32, "int8": 8, "int4": 4}
    weights = sum(bits[formats[spec.name]] * spec.out_features * spec.in_features for spec in matrices(config))
    disk = (weights + bits[weights_format] * config.vocab * config.hidden) / 8
    return conversion_needs(config, formats, weights_format, batch, disk)


def read_weights(
    source: Checkpoint, weights_format: Format, batch: CalibrationBatch | None, progress: Progress
) -> EncoderWeights:
    """The weights of a checkpoint in a format, calibrated on a batch of texts or, without one, each rounded by itself.

    Calibration takes minutes. Raises CheckpointError for numbers that are not finite.
    """
    config, int8 = source.config, outer_matrices(source.config, _FIRST_INT8, _LAST_INT8)

    def rounder(name: str, weights: Float32, gram: Float64) -> Matrix:
        return int8_matrix(weights, gram) if weights_format == "int8" or name in int8 else int4_matrix(weights, gram)

    def plain(name: str, weights: Float32) -> Matrix:
        if weights_format == "float32":
            return Matrix(weights, weights[:, :0], weights[:, :0])
        return rounder(name, weights, np.eye(weights.shape[1]))

    groups = math.gcd(_TABLE_GROUPS.get(weights_format, 1), config.hidden // _TABLE_GRAIN)
    quantised = {"int8": int8_rows(groups), "int4": GridRows(Grid(INT4_CODEBOOKS[0]), groups)}
    table = EmbeddingTable(source, {0: quantised[weights_format]} if weights_format in quantised else None)
    parts: Iterable[tuple[str, Matrix | Float32]]
    if batch is not None:
        table.calibrate(batch, progress)
        parts = calibrated_parts(source, batch, table, rounder, progress, block=MATRIX_ROTATION, rotated_values=True)
    elif weights_format == "float32":
        parts = plain_parts(source, plain, progress, block=None)
    else:
        parts = plain_parts(source, plain, progress, block=MATRIX_ROTATION, rotated_values=True)
    rows, scale = _rows_and_scales(source, table, weights_format, progress)
    norms: dict[str, Array] = {}
    stored: dict[str, Matrix] = {}
    for name, part in parts:
        if isinstance(part, Matrix):
            stored[name] = part
        else:
            norms[name] = part
    return EncoderWeights(config, weights_format, norms, _arranged(config, stored), rows, scale)


def _arranged(config: EncoderConfig, stored: Mapping[str, Matrix]) -> dict[str, Matrix]:
    """The matrices with the channels of gate before those of up: in a model file a panel of each takes turns."""
    order = np.arange(2 * config.ffn).reshape(-1, 2, PANEL).transpose(1, 0, 2).reshape(-1)
    return {name: matrix.channels(order) if name.endswith(".gate_up") else matrix for name, matrix in stored.items()}


def _rows_and_scales(
    source: Checkpoint, table: EmbeddingTable, weights_format: Format, progress: Progress
) -> tuple[Constant, Constant | None]:
    """The embedding table; that of float32 is read as it is written."""
    name, hidden = f"{EMBEDDING}.weight", source.config.hidden
    if weights_format == "float32":
        shape = (source.config.vocab, hidden)
        silent = Progress(quiet=True)  # it is told of the bytes written
        size = 4 * math.prod(shape)
        return Constant(
            name, TensorProto.FLOAT, shape, size, lambda: (rows for _, rows, _ in table.parts(silent))
        ), None
    levels: list[Array] = []
    scales: list[Array] = []
    for _, part, part_scales in table.parts(progress):
        levels.append(part if weights_format == "int8" else _packed(part))
        scales += [] if part_scales is None else [part_scales]
    return _in_parts(name, levels), _in_parts(f"{EMBEDDING}.scale", scales)


def _packed(levels: Array) -> Array:
    """Rows of int4 levels (rows, hidden), two to a byte; see EncoderWeights.table."""
    codes = np.searchsorted(INT4_CODEBOOKS[0], levels).astype(np.uint8)
    halves = codes.reshape(len(levels), -1, 2, EMBEDDING_BLOCK // 2)
    return np.asarray(halves[:, :, 0] | halves[:, :, 1] << 4).reshape(len(levels), -1)


def _in_parts(name: str, parts: list[Array]) -> Constant:
    """A constant whose rows are in several arrays."""
    shape = (sum(map(len, parts)), *parts[0].shape[1:])
    onnx_type = helper.np_dtype_to_tensor_dtype(parts[0].dtype)
    return Constant(name, onnx_type, shape, sum(part.nbytes for part in parts), lambda: iter(parts))
