"""How tensors lie in a model file: their names, shapes and panels. FORMAT.md in export/ is the prose of this file.

A matrix is stored transposed into panels of PANEL output channels so that one 64-byte line holds, for 16
channels, the 4 consecutive inputs that one VNNI, AMX or sdot instruction multiplies:

    float32  F32 [n/16][k][16]
    int8     I8  [n/16][k/4][16][4]
    int4     U8  [n/16][k/8][16][4]   low nibble: k-group 2j, high nibble: k-group 2j + 1

where n is the number of output channels and k of inputs. Each 16 consecutive inputs of a channel have one of four
codebooks of int4, which say what the codes stand for: U8 [n/16][k/64][16], two bits for each 16 of 64 inputs.

The embedding table is stored by rows, since rows are gathered: F32 or I8 [vocab][hidden], or int4 U8 [vocab][hidden/2]
in blocks of 64 elements, of which the first 32 are the low nibbles of 32 bytes and the last 32 the high ones. Behind
the codes of an int4 row may lie its codebooks, hidden/64 bytes; without them all codes are of codebook 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from .config import EncoderConfig
from .rotation import rotate_blocks

PANEL = 16  # output channels side by side: 16 int32 sums fill one AVX-512 register or one AMX tile row
K_GROUP = 4  # consecutive inputs that one 32-bit lane of vpdpbusd / tdpbssd / sdot multiplies and adds
# What the 16 codes of int4 stand for in each of the codebooks, of which every 16 inputs of a channel have the one that
# fits them best (LO-BCQ, arXiv 2502.05376, has this idea). Weights, rotated, are spread like a normal distribution, so
# levels lie closer together near 0. The squared error that they leave of such a distribution, as a share of its square:
# 0.0062, at 4.125 bits a weight; one codebook with the best 16 numbers 0.0095, with 16 even steps 0.0115. With numbers
# up to 127, four codebooks would leave 0.0060; up to 32, AVX2 can add up two pairs of products in int16. Four codebooks
# for every 32 or 64 inputs leave 0.0069 and 0.0076, two for every 16 0.0074. These were found by Lloyd's algorithm over
# blocks, then moved number by number as long as the error fell.
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
CODEBOOK_INPUTS = 16  # inputs, or elements of a row of the embedding table, that share a codebook
CODEBOOK_BYTE_INPUTS = 64  # a byte tells the codebooks of so many
_CODEBOOK_SHIFTS = np.arange(0, 8, 2, dtype=np.uint8)  # of the bits of each 16 of them
INT4_MAX = int(INT4_CODEBOOKS.max())
# The code of each level of a codebook, at its own place.
_INT4_CODES = np.stack([np.searchsorted(book, np.arange(-INT4_MAX, INT4_MAX + 1)) for book in INT4_CODEBOOKS])
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
    """Packs W (out_features, in_features), float32 weights, int8 codes or int4 levels, into its stored layout.

    codebooks (out_features, in_features / 16) are the numbers of the codebooks that the levels of int4 are of.
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
    """Packs the numbers of the codebooks of a matrix, (out_features, in_features / 16), into their stored layout."""
    by_byte = _codebook_bytes(codebooks)  # (out_features, in_features / 64)
    return np.ascontiguousarray(by_byte.reshape(-1, PANEL, by_byte.shape[1]).transpose(0, 2, 1))


def unpack_codebooks(stored: Tensor) -> Tensor:
    """The inverse of `pack_codebooks`."""
    by_channel = stored.transpose(0, 2, 1).reshape(-1, stored.shape[1])
    return _codebook_numbers(by_channel)


def unpack_panels(stored: Tensor, stored_codebooks: Tensor | None = None) -> Tensor:
    """The inverse of `pack_panels`: W (out_features, in_features), float32 weights, int8 codes or int4 levels.

    stored_codebooks are those of an int4 matrix, as `pack_codebooks` gives them.
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
    """The codes 0 … 15 of levels (rows, columns), each one of its codebook, of codebooks (rows, columns / 16)."""
    by_book = levels.astype(np.int8).reshape(*codebooks.shape, CODEBOOK_INPUTS)
    return _INT4_CODES[codebooks[..., None], by_book + INT4_MAX].reshape(levels.shape).astype(np.uint8)


def _int4_levels(codes: Tensor, codebooks: Tensor) -> npt.NDArray[np.int8]:
    """The inverse of `_int4_codes`."""
    by_book = codes.reshape(*codebooks.shape, CODEBOOK_INPUTS)
    return INT4_CODEBOOKS[codebooks[..., None], by_book].reshape(codes.shape)


def _codebook_bytes(codebooks: Tensor) -> npt.NDArray[np.uint8]:
    """Numbers of codebooks (rows, columns / 16), four to a byte, the first in its lowest bits: (rows, columns / 64)."""
    four = codebooks.astype(np.uint8).reshape(len(codebooks), -1, len(_CODEBOOK_SHIFTS))
    return np.asarray(np.bitwise_or.reduce(four << _CODEBOOK_SHIFTS, axis=2), np.uint8)


def _codebook_numbers(by_byte: Tensor) -> npt.NDArray[np.uint8]:
    """The inverse of `_codebook_bytes`."""
    numbers = by_byte[:, :, None] >> _CODEBOOK_SHIFTS & (len(INT4_CODEBOOKS) - 1)
    return np.asarray(numbers.reshape(len(by_byte), -1), np.uint8)


def interleave_gate_up(gate: Tensor, up: Tensor) -> Tensor:
    """Rows of gate and up (ffn, hidden each) in alternating panels of 16, so that GeGLU finds its pair next door."""
    ffn, hidden = gate.shape
    pairs = np.stack([gate.reshape(-1, PANEL, hidden), up.reshape(-1, PANEL, hidden)], axis=1)
    return pairs.reshape(2 * ffn, hidden)


@dataclass(frozen=True)
class RowFormat:
    """How the rows of the embedding table are stored.

    Attributes:
        format: of the elements.
        groups: scales of a row, each for hidden / groups elements; 0 for float32.
        codebooks: whether an int4 row has its codebooks behind its codes. Without them, all are of codebook 0.
    """

    format: MatrixFormat
    groups: int = 0
    codebooks: bool = False


def embedding_shape(row: RowFormat, vocab: int, hidden: int) -> tuple[int, int]:
    """Shape of the stored embedding table."""
    if row.format != "int4":
        return (vocab, hidden)
    return (vocab, hidden // 2 + (hidden // CODEBOOK_BYTE_INPUTS if row.codebooks else 0))


def pack_embedding(codes: Tensor, matrix_format: MatrixFormat, codebooks: Tensor | None = None) -> Tensor:
    """Packs rows (rows, hidden), float32 values, int8 codes or int4 levels, into their stored layout.

    codebooks (rows, hidden / 16) are the numbers of the codebooks of an int4 table; without them all levels are of the
    first.
    """
    if matrix_format != "int4":
        return np.ascontiguousarray(codes, FORMAT_DTYPES[matrix_format])
    rows, hidden = codes.shape
    numbers = np.zeros((rows, hidden // CODEBOOK_INPUTS), np.uint8) if codebooks is None else codebooks
    blocks = _int4_codes(codes, numbers).reshape(rows, -1, 2, EMBEDDING_BLOCK // 2)
    packed = (blocks[:, :, 0] | blocks[:, :, 1] << 4).reshape(rows, -1)
    return packed if codebooks is None else np.concatenate([packed, _codebook_bytes(codebooks)], axis=1)


def unpack_embedding(stored: Tensor, hidden: int) -> Tensor:
    """The inverse of `pack_embedding` for rows (rows, …): float32 values, int8 codes or int4 levels (rows, hidden)."""
    if DTYPE_FORMATS[stored.dtype] != "int4":
        return stored
    packed, by_byte = np.split(stored, [hidden // 2], axis=1)
    if by_byte.shape[1] == 0:
        by_byte = np.zeros((len(stored), hidden // CODEBOOK_BYTE_INPUTS), np.uint8)
    blocks = packed.reshape(len(stored), -1, EMBEDDING_BLOCK // 2)
    codes = np.stack([blocks & 0xF, blocks >> 4], axis=2).reshape(len(stored), hidden)
    return _int4_levels(codes, _codebook_numbers(by_byte))


def embedding_rows(
    weight: Tensor, scale: Tensor | None, hidden: int, ids: npt.NDArray[np.int32]
) -> npt.NDArray[np.float32]:
    """Rows `ids` of the table as float32 (len(ids), hidden), sqrt(hidden) included.

    weight is the stored table and scale its float16 (vocab, groups), None for a float32 table.
    """
    rows = unpack_embedding(weight[ids], hidden)
    if scale is None:
        return np.asarray(rows, np.float32)
    scales = scale[ids].astype(np.float32)[:, :, None]  # (tokens, groups, 1)
    grouped = rows.astype(np.float32).reshape(len(ids), scales.shape[1], -1)
    return rotate_blocks((grouped * scales).reshape(len(ids), -1))
