"""What a format stores: norms, matrices and the embedding table, calibrated or rounded by themselves."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper

from ...kernels.config import EncoderConfig
from ...kernels.layout import EMBEDDING_GROUP_GRAIN, PANEL, MatrixFormat, matrices, pack_embedding, unpack_embedding
from ...kernels.layout import vectors as norm_vectors
from ...onnx_choices import Format
from ..calibration import CalibrationBatch
from ..checkpoint import Checkpoint
from ..folds import folded_embedding, folded_matrix, folded_norm
from ..quantize import GRIDS, quantize_rows
from ..weights import Float32
from .calibrate import quantised_parts
from .graph import Array, Constant
from .matrix import Matrix, float32_matrix, int4_matrix, int8_matrix

EMBEDDING = "embedding"

# Scales per row of the embedding table, where the width of a row allows: in int8 more do not help; in int4 a model that
# is float32 otherwise keeps cosine 0.9954 with 4 scales and 0.9974 with 24, one for 32 elements.
_TABLE_GROUPS: dict[Format, int] = {"int8": 1, "int4": 24}

_TABLE_ROWS = 8192  # rows of the table at a time: 25 MB in float32


@dataclass(frozen=True)
class Table:
    """The embedding table; rows lie as in a model file (FORMAT.md, rule 16).

    Attributes:
        weight: (vocab, hidden) float32 or int8, (vocab, hidden / 2) uint8.
        scale: (vocab, groups) float16; None for float32.
    """

    weight: Constant
    scale: Constant | None = None


@dataclass(frozen=True)
class EncoderWeights:
    """All that a graph stores.

    Attributes:
        config: shapes and constants.
        format: of the matrices and the table.
        norms: (length,) float32 by the names of a model file.
        matrices: by the names of a model file, but for qkv and gate_up, which are `q`, `k`, `v`, `gate` and `up`.
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
    config = source.config
    if weights_format == "float32":
        norms = {name: folded_norm(source, name) for name, _ in norm_vectors(config)}
        stored = {spec.name: float32_matrix(folded_matrix(source, spec.name)) for spec in matrices(config)}
        return EncoderWeights(config, "float32", norms, _split(config, stored), _float32_table(source))
    weight, scale = _quantised_table(source, weights_format)
    embedded = None if batch is None else _stored_rows(np.concatenate(weight), np.concatenate(scale), batch.ids)
    rounder = int8_matrix if weights_format == "int8" else int4_matrix
    norms, stored = {}, {}
    for name, part in quantised_parts(source, batch, rounder, embedded):
        if isinstance(part, Matrix):
            stored[name] = part
        else:
            norms[name] = part
    table = Table(_in_parts(f"{EMBEDDING}.weight", weight), _in_parts(f"{EMBEDDING}.scale", scale))
    return EncoderWeights(config, weights_format, norms, _split(config, stored), table)


def _split(config: EncoderConfig, stored: Mapping[str, Matrix]) -> dict[str, Matrix]:
    """The matrices of each product.

    Why not one product for q, k and v, and one for gate and up: taking its output apart copies it, which costs as much.
    """
    split = {"head": stored["head"]}
    pairs = np.arange(2 * config.ffn).reshape(-1, 2, PANEL)  # gate and up take turns, a panel each
    ends = np.cumsum([0, config.q_width, config.kv_width, config.kv_width])
    for name in (f"layers.{i}" for i in range(config.layers)):
        for kind, start, end in zip("qkv", ends, ends[1:], strict=False):
            split[f"{name}.{kind}"] = stored[f"{name}.qkv"].channels(np.arange(start, end))
        for half, kind in enumerate(("gate", "up")):
            split[f"{name}.{kind}"] = stored[f"{name}.gate_up"].channels(pairs[:, half].reshape(-1))
        split.update({f"{name}.{kind}": stored[f"{name}.{kind}"] for kind in ("o", "down")})
    return split


def _quantised_table(source: Checkpoint, weights_format: MatrixFormat) -> tuple[list[Array], list[Array]]:
    """The table in parts of rows: packed codes, and float16 scales (rows, groups)."""
    config = source.config
    groups = math.gcd(_TABLE_GROUPS[weights_format], config.hidden // EMBEDDING_GROUP_GRAIN)
    weights: list[Array] = []
    scales: list[Array] = []
    for rows in _table_parts(source):
        codes, scale = quantize_rows(rows.reshape(len(rows) * groups, -1), GRIDS[weights_format], np.float16)
        weights.append(pack_embedding(codes.reshape(rows.shape), weights_format))
        scales.append(scale.reshape(-1, groups))
    return weights, scales


def _stored_rows(weight: Array, scale: Array, ids: npt.NDArray[np.int32]) -> Float32:
    """Rows of the table for tokens ids (tokens,), as the model computes them: (tokens, hidden)."""
    scales = scale[ids].astype(np.float32)[:, :, None]
    return np.asarray((unpack_embedding(weight[ids]).reshape(*scales.shape[:2], -1) * scales).reshape(len(ids), -1))


def _float32_table(source: Checkpoint) -> Table:
    """The table as published, read as it is written."""
    shape = (source.config.vocab, source.config.hidden)
    size = 4 * math.prod(shape)
    return Table(Constant(f"{EMBEDDING}.weight", TensorProto.FLOAT, shape, size, lambda: _table_parts(source)))


def _table_parts(source: Checkpoint) -> Iterator[Float32]:
    vocab = source.config.vocab
    for start in range(0, vocab, _TABLE_ROWS):
        yield folded_embedding(source, start, min(start + _TABLE_ROWS, vocab))


def _in_parts(name: str, parts: list[Array]) -> Constant:
    """A constant of rows that lie in several arrays."""
    shape = (sum(map(len, parts)), *parts[0].shape[1:])
    onnx_type = helper.np_dtype_to_tensor_dtype(parts[0].dtype)
    return Constant(name, onnx_type, shape, sum(part.nbytes for part in parts), lambda: iter(parts))
