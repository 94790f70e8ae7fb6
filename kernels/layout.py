"""How tensors lie in a model file: their names, shapes and panels. FORMAT.md in export/ is the prose of this file.

A matrix is stored transposed into panels of PANEL output channels so that one 64-byte line holds, for 16
channels, the 4 consecutive inputs that one VNNI, AMX or sdot instruction multiplies:

    float32  F32 [n/16][k][16]
    int8     I8  [n/16][k/4][16][4]
    int4     U8  [n/16][k/8][16][4]   low nibble: k-group 2j, high nibble: k-group 2j + 1

where n is the number of output channels and k of inputs. The embedding table is stored by rows, since rows
are gathered: F32 or I8 [vocab][hidden], or int4 U8 [vocab][hidden/2] in blocks of 64 elements, of which the
first 32 are the low nibbles of 32 bytes and the last 32 the high ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .config import EncoderConfig
from .rotation import rotate_blocks

PANEL = 16  # output channels side by side: 16 int32 sums fill one AVX-512 register or one AMX tile row
K_GROUP = 4  # consecutive inputs that one 32-bit lane of vpdpbusd / tdpbssd / sdot multiplies and adds
# What the 16 codes of int4 stand for. Weights, rotated, are spread like a normal distribution, so levels lie closer
# together near 0. Of such a distribution, with the best scale, they keep 20.0 dB; 16 even steps keep 19.3 (a squared
# error larger by 17 %), the best 16 numbers 20.2. So small a range lets AVX2 add up two products in int16.
INT4_LEVELS = np.array([-19, -15, -12, -9, -7, -5, -3, -1, 1, 3, 5, 7, 9, 12, 15, 19], np.int8)
_INT4_CODES = np.searchsorted(INT4_LEVELS, np.arange(-19, 20)).astype(np.uint8)  # of each level, at its own place
EMBEDDING_BLOCK = 64  # elements of an int4 embedding row that share 32 bytes
EMBEDDING_GROUP_GRAIN = 32  # a scale of the embedding table covers a multiple of this many elements

MatrixFormat = Literal["float32", "int8", "int4"]
FORMAT_DTYPES: dict[MatrixFormat, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "int8": np.dtype(np.int8),
    "int4": np.dtype(np.uint8),
}
DTYPE_FORMATS: dict[np.dtype[Any], MatrixFormat] = {dtype: name for name, dtype in FORMAT_DTYPES.items()}

Tensor = npt.NDArray[Any]


@dataclass(frozen=True)
class MatrixSpec:
    """A weight matrix of the model: `out = in @ W.T` with W of shape (out_features, in_features)."""

    name: str
    out_features: int
    in_features: int


def matrices(config: EncoderConfig) -> Iterator[MatrixSpec]:
    """The weight matrices in the order in which a token meets them; `NAME.weight` and `NAME.scale` store them."""
    for i in range(config.layers):
        yield MatrixSpec(f"layers.{i}.qkv", config.qkv_width, config.hidden)
        yield MatrixSpec(f"layers.{i}.o", config.hidden, config.q_width)
        yield MatrixSpec(f"layers.{i}.gate_up", 2 * config.ffn, config.hidden)
        yield MatrixSpec(f"layers.{i}.down", config.hidden, config.ffn)
    yield MatrixSpec("head", config.hidden, config.hidden)


def vectors(config: EncoderConfig) -> Iterator[tuple[str, int]]:
    """(name, length) of the float32 norm weights, each stored as the multiplier itself (1 + w, folds applied)."""
    for i in range(config.layers):
        yield f"layers.{i}.input_norm", config.hidden
        yield f"layers.{i}.q_norm", config.head_dim
        yield f"layers.{i}.k_norm", config.head_dim
        yield f"layers.{i}.post_attention_norm", config.hidden
        yield f"layers.{i}.pre_ffn_norm", config.hidden
        yield f"layers.{i}.post_ffn_norm", config.hidden
    yield "final_norm", config.hidden


def panel_shape(matrix_format: MatrixFormat, out_features: int, in_features: int) -> tuple[int, ...]:
    """Shape of the stored tensor of an (out_features, in_features) matrix."""
    panels = out_features // PANEL
    if matrix_format == "float32":
        return (panels, in_features, PANEL)
    codes_per_byte = 2 if matrix_format == "int4" else 1
    return (panels, in_features // (K_GROUP * codes_per_byte), PANEL, K_GROUP)


def pack_panels(matrix: Tensor, matrix_format: MatrixFormat) -> Tensor:
    """Packs W (out_features, in_features), float32 weights, int8 codes or int4 levels, into its stored layout."""
    _, in_features = matrix.shape
    if matrix_format == "float32":
        panels = matrix.reshape(-1, PANEL, in_features).transpose(0, 2, 1)
        return np.ascontiguousarray(panels, np.float32)
    # (panel, channel, k-group, 4) -> (panel, k-group, channel, 4)
    grouped = matrix.astype(np.int8).reshape(-1, PANEL, in_features // K_GROUP, K_GROUP).transpose(0, 2, 1, 3)
    if matrix_format == "int8":
        return np.ascontiguousarray(grouped)
    codes = _int4_codes(grouped)
    return np.ascontiguousarray(codes[:, 0::2] | codes[:, 1::2] << 4)


def unpack_panels(stored: Tensor) -> Tensor:
    """The inverse of `pack_panels`: W (out_features, in_features), float32 weights, int8 codes or int4 levels."""
    matrix_format = DTYPE_FORMATS[stored.dtype]
    if matrix_format == "float32":
        panels, in_features, _ = stored.shape
        return np.ascontiguousarray(stored.transpose(0, 2, 1)).reshape(panels * PANEL, in_features)
    grouped = stored
    if matrix_format == "int4":
        panels, half_groups = stored.shape[:2]
        both = np.stack([stored & 0xF, stored >> 4], axis=2)  # (panel, k-group / 2, 2, 16, 4)
        grouped = INT4_LEVELS[both.reshape(panels, 2 * half_groups, PANEL, K_GROUP)]
    panels, groups = grouped.shape[:2]
    return np.ascontiguousarray(grouped.transpose(0, 2, 1, 3)).reshape(panels * PANEL, groups * K_GROUP)


def _int4_codes(levels: Tensor) -> npt.NDArray[np.uint8]:
    """The codes 0 … 15 of levels, each one of INT4_LEVELS, in the same shape."""
    return np.asarray(_INT4_CODES[levels.astype(np.int8) - INT4_LEVELS[0]])


def interleave_gate_up(gate: Tensor, up: Tensor) -> Tensor:
    """Rows of gate and up (ffn, hidden each) in alternating panels of 16, so that GeGLU finds its pair next door."""
    ffn, hidden = gate.shape
    pairs = np.stack([gate.reshape(-1, PANEL, hidden), up.reshape(-1, PANEL, hidden)], axis=1)
    return pairs.reshape(2 * ffn, hidden)


def embedding_shape(matrix_format: MatrixFormat, vocab: int, hidden: int) -> tuple[int, int]:
    """Shape of the stored embedding table."""
    return (vocab, hidden // 2) if matrix_format == "int4" else (vocab, hidden)


def pack_embedding(codes: Tensor, matrix_format: MatrixFormat) -> Tensor:
    """Packs rows (rows, hidden), float32 values, int8 codes or int4 levels, into their stored layout."""
    if matrix_format != "int4":
        return np.ascontiguousarray(codes, FORMAT_DTYPES[matrix_format])
    blocks = _int4_codes(codes).reshape(len(codes), -1, 2, EMBEDDING_BLOCK // 2)
    return (blocks[:, :, 0] | blocks[:, :, 1] << 4).reshape(len(codes), -1)


def unpack_embedding(stored: Tensor) -> Tensor:
    """The inverse of `pack_embedding` for rows (rows, …): float32 values, int8 codes or int4 levels (rows, hidden)."""
    if DTYPE_FORMATS[stored.dtype] != "int4":
        return stored
    blocks = stored.reshape(len(stored), -1, EMBEDDING_BLOCK // 2)
    levels = INT4_LEVELS[np.stack([blocks & 0xF, blocks >> 4], axis=2)]
    return np.asarray(levels.reshape(len(stored), -1))


def embedding_rows(weight: Tensor, scale: Tensor | None, ids: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """Rows `ids` of the table as float32 (len(ids), hidden), sqrt(hidden) included.

    weight is the stored table and scale its float16 (vocab, groups), None for a float32 table.
    """
    rows = unpack_embedding(weight[ids])
    if scale is None:
        return np.asarray(rows, np.float32)
    scales = scale[ids].astype(np.float32)[:, :, None]  # (tokens, groups, 1)
    grouped = rows.astype(np.float32).reshape(len(ids), scales.shape[1], -1)
    return rotate_blocks((grouped * scales).reshape(len(ids), -1))
