"""Matrix products of the Numba backend: groups of panels times blocks of rows, tile by tile."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..layout import CODEBOOK_BYTE_INPUTS, PANEL
from .numba_dot import LINE, TILE_PANELS, TILE_ROWS, float_tile, int4_tile, int8_tile, unpack_int4
from .numba_team import Team, jit, parts

F32 = npt.NDArray[np.float32]
Place = tuple[int, int]  # a row and a column
WIDTH = TILE_PANELS * PANEL  # channels of a tile; every matrix has a whole number of tiles
BLOCK_ROWS = 256  # rows whose codes (200 to 300 kB) stay in a second-level cache while all weights pass
FORMATS = {"float32": 0, "int8": 1, "int4": 2}  # of a matrix (n, k)
FLOAT32, INT4 = FORMATS["float32"], FORMATS["int4"]
# Weights stay where the model file has them: a matrix has their addresses, for numba_dot.py.
MATRIX = np.dtype([(name, np.int64) for name in ("format", "n", "k", "weights", "codebooks", "scales")])


class Scratch(NamedTuple):
    """Intermediate values."""

    x: F32  # (tokens, widest input): input of a matrix
    codes: npt.NDArray[np.int8]  # (tokens, widest input): the same for an integer matrix
    scales: F32  # (tokens,) of the codes
    code_sums: npt.NDArray[np.int32]  # (tokens,)
    levels: npt.NDArray[np.int8]  # (threads, WIDTH · widest input): panels of int4, unpacked
    product: F32  # (tokens, widest output): what a matrix gave
    keys: F32  # (kv_heads, slots / 16, head_dim, 16)
    values: F32  # (kv_heads, head_dim / 16, slots, 16)
    scores: F32  # (threads, query heads that share keys · BLOCK_QUERIES, slots of the longest text)


@jit
def even_height(rows: int, most: int) -> int:
    """The height of the fewest tiles of at most `most` rows that cover `rows` rows, made about equal."""
    return -(-rows // -(-rows // most))


@jit
def matmul_float(x: F32, start: Place, rows: int, k: int, panels: int, stride: int, out: F32, to: Place) -> None:
    """out[to] and on = x[start] and on (rows, k) times float32 panels, `stride` bytes apart."""
    height = even_height(rows, TILE_ROWS)
    for i in range(0, rows, height):
        read, written, size = (start[0] + i, start[1]), (to[0] + i, to[1]), min(height, rows - i)
        float_tile(x, read, size, k, panels, stride, out, written, ())


@jit
def matmul_codes(matrix: Any, scratch: Scratch, group: int, row: int, rows: int, thread: int) -> None:
    """The same for channels WIDTH · group and on of an integer matrix, and the codes of some rows."""
    k, column, is_int4 = matrix.k, WIDTH * group, matrix.format == INT4
    stored = WIDTH * k // 2 if is_int4 else WIDTH * k  # bytes of a group
    panels = matrix.weights + group * stored
    upcoming, channel_scales = panels + stored, matrix.scales + group * TILE_PANELS * LINE
    if is_int4:
        blocks, levels = TILE_PANELS * k // CODEBOOK_BYTE_INPUTS, scratch.levels[thread].ctypes.data
        unpack_int4(panels, matrix.codebooks + group * blocks * PANEL, blocks, levels)
        panels = levels
    codes, code_sums, scales = scratch.codes, scratch.code_sums.ctypes.data, scratch.scales.ctypes.data
    height = even_height(rows, TILE_ROWS)
    for i in range(row, row + rows, height):
        size, place = min(height, row + rows - i), (i, column)
        scaling = upcoming, code_sums + 4 * i, scales + 4 * i, channel_scales
        if is_int4:
            int4_tile(codes, (i, 0), size, k, panels, PANEL * k, scratch.product, place, scaling)
        else:
            int8_tile(codes, (i, 0), size, k, panels, PANEL * k, scratch.product, place, scaling)


@jit
def multiply(matrix: Any, scratch: Scratch, rows: int, n: int, team: Team) -> None:
    """scratch.product = x · Wᵀ for n channels, rounded up to a multiple of WIDTH. x is scratch.x, or its codes."""
    groups, block_rows = -(-n // WIDTH), even_height(rows, BLOCK_ROWS)
    for first, last in parts(team, -(-rows // block_rows) * groups):
        for item in range(first, last):
            group, row = item % groups, item // groups * block_rows
            height, stride = min(block_rows, rows - row), matrix.k * LINE
            if matrix.format == FLOAT32:
                panels, place = matrix.weights + group * TILE_PANELS * stride, (row, WIDTH * group)
                matmul_float(scratch.x, (row, 0), height, matrix.k, panels, stride, scratch.product, place)
            else:
                matmul_codes(matrix, scratch, group, row, height, team[1])
