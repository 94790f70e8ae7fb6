"""What a format stores: norms, matrices and the embedding table, calibrated or rounded by themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper

from ...kernels.config import EncoderConfig
from ...kernels.layout import PANEL, MatrixFormat, Tensor, matrices, unpack_panels, vectors
from ...model_file import EMBEDDING, expected_tensors
from ..calibration import CalibrationBatch
from ..checkpoint import Checkpoint
from ..convert import stored_tensors
from ..folds import folded_embedding, folded_matrix, folded_norm
from ..scheme import embedding_groups, scheme_formats
from .graph import Array, Constant

Format = Literal["float32", "int8", "int4"]

BLOCK = 32  # inputs of an int4 matrix that share a scale

_TABLE_ROWS = 8192  # rows of a float32 table read at a time: 25 MB


@dataclass(frozen=True)
class Matrix:
    """A matrix, of which a weight is a value, a code times a scale, or (code - zero point) times a scale.

    Attributes:
        values: (out_features, in_features) float32, int8, or uint8 0 … 15.
        scales: (out_features,) float32, (out_features, blocks) float32, or for float32 values (out_features, 0).
        zero_points: (out_features, blocks) uint8 0 … 15; blocks is 0 where codes are signed.
    """

    values: Array
    scales: Array
    zero_points: Array

    def channels(self, chosen: npt.NDArray[np.int64]) -> Matrix:
        """Some of the output channels."""
        return Matrix(self.values[chosen], self.scales[chosen], self.zero_points[chosen])


@dataclass(frozen=True)
class Table:
    """The embedding table; rows of four bits lie as in a model file (FORMAT.md, rule 16).

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
        norms = {name: folded_norm(source, name) for name, _ in vectors(config)}
        stored = {spec.name: _unscaled(folded_matrix(source, spec.name)) for spec in matrices(config)}
        return EncoderWeights(config, "float32", norms, _split(config, stored), _float32_table(source))
    parts = _stored_parts(source, weights_format, batch)
    norms = {name: parts[name][0] for name, _ in vectors(config)}
    stored = {}
    for spec in matrices(config):
        codes = unpack_panels(parts[f"{spec.name}.weight"][0])
        stored[spec.name] = Matrix(codes, parts[f"{spec.name}.scale"][0], codes[:, :0])
    if weights_format == "int4":
        stored = {name: _blockwise(folded_matrix(source, name)) for name in stored}
    table = Table(*(_in_parts(f"{EMBEDDING}.{kind}", parts[f"{EMBEDDING}.{kind}"]) for kind in ("weight", "scale")))
    return EncoderWeights(config, weights_format, norms, _split(config, stored), table)


def _stored_parts(
    source: Checkpoint, weights_format: MatrixFormat, batch: CalibrationBatch | None
) -> dict[str, list[Tensor]]:
    """What a model file would store, by name, in the parts in which it comes."""
    formats = scheme_formats(source.config, weights_format)
    groups = embedding_groups(source.config, weights_format)
    names = list(expected_tensors(source.config, formats, groups, 0))
    parts: dict[str, list[Tensor]] = {}
    for name, part in stored_tensors(source, names, formats, groups, batch):
        parts.setdefault(name, []).append(part)
    return parts


def _split(config: EncoderConfig, stored: Mapping[str, Matrix]) -> dict[str, Matrix]:
    """The matrices of each product.

    Why not one product for q, k and v, and one for gate and up: taking its output apart copies it, which costs more.
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


def _unscaled(weights: Array) -> Matrix:
    """float32 weights as they are."""
    return Matrix(weights, weights[:, :0], weights[:, :0])


def _blockwise(weights: Array) -> Matrix:
    """Weights (out_features, in_features) in four bits, each rounded by itself."""
    blocks = weights.reshape(len(weights), -1, BLOCK)
    low, high = np.minimum(blocks.min(axis=2), 0), np.maximum(blocks.max(axis=2), 0)
    scales = np.maximum((high - low) / 15, np.finfo(np.float32).tiny).astype(np.float32)
    zero_points = np.rint(-low / scales).astype(np.uint8)
    codes = np.clip(np.rint(blocks / scales[:, :, None]) + zero_points[:, :, None], 0, 15).astype(np.uint8)
    return Matrix(codes.reshape(weights.shape), scales, zero_points)


def _float32_table(source: Checkpoint) -> Table:
    """The table as published, read as it is written."""
    config = source.config

    def parts() -> Iterator[Array]:
        for start in range(0, config.vocab, _TABLE_ROWS):
            yield folded_embedding(source, start, min(start + _TABLE_ROWS, config.vocab))

    shape = (config.vocab, config.hidden)
    return Table(Constant(f"{EMBEDDING}.weight", TensorProto.FLOAT, shape, 4 * config.vocab * config.hidden, parts))


def _in_parts(name: str, parts: list[Array]) -> Constant:
    """A constant of rows that lie in several arrays."""
    shape = (sum(map(len, parts)), *parts[0].shape[1:])
    onnx_type = helper.np_dtype_to_tensor_dtype(parts[0].dtype)
    return Constant(name, onnx_type, shape, sum(part.nbytes for part in parts), lambda: iter(parts))
