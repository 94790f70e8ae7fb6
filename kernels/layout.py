"""How a model file stores tensors: their names, shapes and panels. FORMAT.md in export/ says the same in prose.

Words of this project, in Python and C:

    level         an integer weight: what a weight is, divided by the scale of its channel
    code          how a level is stored: itself in int8; in int4 a number 0 … 15, the place of the level in a codebook
    codebook_ids  which of the four codebooks of int4 each 16 consecutive inputs of a channel use
    panel         16 output channels of a matrix, which the file stores together
    tile          the part of a matrix product that a kernel keeps in registers
    chunk         the tokens that one thread takes through a step
    task          a chunk, or a share of one, that a thread takes next

A matrix of n output channels and k inputs is stored transposed into panels, so that one 64-byte line holds, for 16
channels, the 4 consecutive inputs that one VNNI, AMX or sdot instruction multiplies:

    float32  F32 [n/16][k][16]
    int8     I8  [n/16][k/4][16][4]
    int4     U8  [n/16][k/8][16][4]   low nibble: k-group 2j, high nibble: k-group 2j + 1
             U8  [n/16][k/64][16]     codebook_ids: two bits for each 16 of 64 inputs
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from .config import EncoderConfig

PANEL = 16  # output channels side by side: 16 int32 sums fill one AVX-512 register or one AMX tile row
K_GROUP = 4  # consecutive inputs that one 32-bit lane of vpdpbusd / tdpbssd / sdot multiplies and adds
# The levels of int4, by codebook and code (LO-BCQ, arXiv 2502.05376). They end at 32, so that AVX2 can add two pairs of
# products in int16. How they were found, and what others lose: export/EXPERIMENTS.md.
INT4_CODEBOOKS = np.array(
    [
        [-level for level in reversed(positive)] + positive
        for positive in (
            [1, 3, 5, 7, 10, 13, 16, 21],  # the best alone
            [1, 3, 5, 7, 9, 11, 14, 18],
            [1, 3, 6, 9, 12, 15, 19, 25],
            [1, 4, 7, 10, 13, 17, 23, 30],
        )
    ],
    np.int8,
)
CODEBOOK_INPUTS = 16  # inputs that share a codebook
CODEBOOK_BYTE_INPUTS = 64  # inputs whose codebook_ids share a byte
_CODEBOOK_SHIFTS = np.arange(0, 8, 2, dtype=np.uint8)  # of the bits in that byte, for each 16 inputs
INT4_MAX = int(INT4_CODEBOOKS.max())
# [codebook, level + INT4_MAX]: the code of a level.
_INT4_CODES = np.stack([np.searchsorted(book, np.arange(-INT4_MAX, INT4_MAX + 1)) for book in INT4_CODEBOOKS])
ALIGNMENT = 64  # bytes: a cache line, the widest vector load, and a row of an AMX tile

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


class NormSpec(NamedTuple):
    """Float32 weights of a norm, stored as the multiplier itself (1 + w, folds applied)."""

    name: str
    length: int


def weights(config: EncoderConfig) -> Iterator[MatrixSpec | NormSpec]:
    """Matrices and norms in the order in which a token meets them, which is that of the file, after the embedding."""
    hidden = config.hidden
    for i in range(config.layers):
        yield NormSpec(f"layers.{i}.input_norm", hidden)
        yield MatrixSpec(f"layers.{i}.qkv", config.qkv_width, hidden)
        yield NormSpec(f"layers.{i}.q_norm", config.head_dim)
        yield NormSpec(f"layers.{i}.k_norm", config.head_dim)
        yield MatrixSpec(f"layers.{i}.o", hidden, config.q_width)
        yield NormSpec(f"layers.{i}.post_attention_norm", hidden)
        yield NormSpec(f"layers.{i}.pre_ffn_norm", hidden)
        yield MatrixSpec(f"layers.{i}.gate_up", 2 * config.ffn, hidden)
        yield MatrixSpec(f"layers.{i}.down", hidden, config.ffn)
        yield NormSpec(f"layers.{i}.post_ffn_norm", hidden)
    yield NormSpec("final_norm", hidden)
    yield MatrixSpec("head", hidden, hidden)


def matrices(config: EncoderConfig) -> Iterator[MatrixSpec]:
    """The matrices among `weights`; `NAME.weight` and `NAME.scale` store them."""
    return (spec for spec in weights(config) if isinstance(spec, MatrixSpec))


def vectors(config: EncoderConfig) -> Iterator[NormSpec]:
    """The norms among `weights`."""
    return (spec for spec in weights(config) if isinstance(spec, NormSpec))


def panel_shape(matrix_format: MatrixFormat, out_features: int, in_features: int) -> tuple[int, ...]:
    """Shape of the stored tensor of an (out_features, in_features) matrix."""
    panels = out_features // PANEL
    if matrix_format == "float32":
        return (panels, in_features, PANEL)
    codes_per_byte = 2 if matrix_format == "int4" else 1
    return (panels, in_features // (K_GROUP * codes_per_byte), PANEL, K_GROUP)


def codebook_shape(out_features: int, in_features: int) -> tuple[int, ...]:
    """Shape of the stored codebooks of an int4 matrix."""
    return (out_features // PANEL, in_features // CODEBOOK_BYTE_INPUTS, PANEL)


def pack_panels(matrix: Tensor, matrix_format: MatrixFormat, codebooks: Tensor | None = None) -> Tensor:
    """Packs W (out_features, in_features), float32 weights or levels of int8 or int4, into its stored layout.

    codebooks: the codebook_ids (out_features, in_features / 16) of int4.
    """
    _, in_features = matrix.shape
    if matrix_format == "float32":
        panels = matrix.reshape(-1, PANEL, in_features).transpose(0, 2, 1)
        return np.ascontiguousarray(panels, np.float32)
    codes = matrix.astype(np.int8) if codebooks is None else _int4_codes(matrix, codebooks)
    # (panel, channel, k-group, 4) -> (panel, k-group, channel, 4)
    grouped = codes.reshape(-1, PANEL, in_features // K_GROUP, K_GROUP).transpose(0, 2, 1, 3)
    if matrix_format == "int8":
        return np.ascontiguousarray(grouped)
    return np.ascontiguousarray(grouped[:, 0::2] | grouped[:, 1::2] << 4)


def pack_codebooks(codebooks: Tensor) -> Tensor:
    """Packs codebook_ids (out_features, in_features / 16) into their stored layout."""
    by_byte = _codebook_bytes(codebooks)  # (out_features, in_features / 64)
    return np.ascontiguousarray(by_byte.reshape(-1, PANEL, by_byte.shape[1]).transpose(0, 2, 1))


def unpack_codebooks(stored: Tensor) -> Tensor:
    """The inverse of `pack_codebooks`."""
    by_channel = stored.transpose(0, 2, 1).reshape(-1, stored.shape[1])
    return _codebook_ids(by_channel)


def unpack_panels(stored: Tensor, stored_codebooks: Tensor | None = None) -> Tensor:
    """The inverse of `pack_panels`: W (out_features, in_features), float32 weights or levels of int8 or int4.

    stored_codebooks: of an int4 matrix, as `pack_codebooks` gives them.
    """
    matrix_format = DTYPE_FORMATS[stored.dtype]
    if matrix_format == "float32":
        panels, in_features, _ = stored.shape
        return np.ascontiguousarray(stored.transpose(0, 2, 1)).reshape(panels * PANEL, in_features)
    grouped = stored
    if matrix_format == "int4":
        panels, half_groups = stored.shape[:2]
        both = np.stack([stored & 0xF, stored >> 4], axis=2)  # (panel, k-group / 2, 2, 16, 4)
        grouped = both.reshape(panels, 2 * half_groups, PANEL, K_GROUP)
    panels, groups = grouped.shape[:2]
    codes = np.ascontiguousarray(grouped.transpose(0, 2, 1, 3)).reshape(panels * PANEL, groups * K_GROUP)
    return codes if stored_codebooks is None else _int4_levels(codes, unpack_codebooks(stored_codebooks))


def unpack_matrix(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    """W (out_features, in_features) of a matrix among the tensors of a model file, without its scales."""
    return unpack_panels(tensors[f"{name}.weight"], tensors.get(f"{name}.codebook"))


def _int4_codes(levels: Tensor, codebooks: Tensor) -> npt.NDArray[np.uint8]:
    """The codes 0 … 15 of levels (rows, columns), given their codebook_ids (rows, columns / 16)."""
    by_book = levels.astype(np.int8).reshape(*codebooks.shape, CODEBOOK_INPUTS)
    return _INT4_CODES[codebooks[..., None], by_book + INT4_MAX].reshape(levels.shape).astype(np.uint8)


def _int4_levels(codes: Tensor, codebooks: Tensor) -> npt.NDArray[np.int8]:
    """The inverse of `_int4_codes`."""
    by_book = codes.reshape(*codebooks.shape, CODEBOOK_INPUTS)
    return INT4_CODEBOOKS[codebooks[..., None], by_book].reshape(codes.shape)


def _codebook_bytes(codebooks: Tensor) -> npt.NDArray[np.uint8]:
    """codebook_ids (rows, columns / 16), four to a byte, the first in its lowest bits: (rows, columns / 64)."""
    four = codebooks.astype(np.uint8).reshape(len(codebooks), -1, len(_CODEBOOK_SHIFTS))
    return np.asarray(np.bitwise_or.reduce(four << _CODEBOOK_SHIFTS, axis=2), np.uint8)


def _codebook_ids(by_byte: Tensor) -> npt.NDArray[np.uint8]:
    """The inverse of `_codebook_bytes`."""
    numbers = by_byte[:, :, None] >> _CODEBOOK_SHIFTS & (len(INT4_CODEBOOKS) - 1)
    return np.asarray(numbers.reshape(len(by_byte), -1), np.uint8)


def interleave_gate_up(gate: Tensor, up: Tensor) -> Tensor:
    """Rows of gate and up (ffn, hidden each) in alternating panels of 16: GeGLU then finds the two side by side."""
    ffn, hidden = gate.shape
    pairs = np.stack([gate.reshape(-1, PANEL, hidden), up.reshape(-1, PANEL, hidden)], axis=1)
    return pairs.reshape(2 * ffn, hidden)
