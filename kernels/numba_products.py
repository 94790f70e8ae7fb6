"""Matrix products of the Numba backend: pairs of panels times blocks of rows, tile by tile."""

from __future__ import annotations

from .layout import CODEBOOK_BYTE_INPUTS, PANEL
from .numba_jit import jit
from .numba_state import FLOAT32, INT4, Model, Scratch
from .numba_threads import CHUNKS_PER_THREAD, Team, shared
from .numba_tiles import FLOAT_TILE, INTEGER_TILE, LINE, float_tile, integer_tile, unpack_int4
from .numba_views import Rows, i64_at

PAIR = 2 * PANEL  # channels; every tile is one or two panels wide, and every matrix a whole number of pairs
BLOCK_ROWS = 256  # rows whose codes (200 to 300 kB) stay in a second-level cache while all weights pass
BYTES = 4  # of a float32, and of an int32


@jit
def divide_up(a: int, b: int) -> int:
    """a / b, rounded up."""
    return (a + b - 1) // b


@jit
def even_height(rows: int, most: int) -> int:
    """The height of the fewest tiles of at most `most` rows that cover `rows` rows, made about equal."""
    return divide_up(rows, divide_up(rows, most))


@jit
def multiply_floats(rows: int, x: Rows, panels: Rows, k: int, out: Rows, panel_bytes: int) -> None:
    """Rows of k float32 times a pair of float32 panels (k, 16), of which the second goes panel_bytes further right."""
    most_rows, width = FLOAT_TILE
    height = even_height(rows, most_rows)
    for panel in range(0, 2, width):
        for row in range(0, rows, height):
            float_tile(
                min(height, rows - row),
                x.address + row * x.stride,
                x.stride,
                panels.address + panel * panels.stride,
                panels.stride,
                k,
                out.address + row * out.stride + panel * panel_bytes,
                out.stride,
                panel_bytes,
            )


@jit
def multiply_codes(
    rows: int,
    x: Rows,
    row_scales: int,
    row_sums: int,
    panels: Rows,
    stored: Rows,
    channel_scales: int,
    out: Rows,
    panel_bytes: int,
) -> None:
    """Rows of int8 codes times a pair of int8 panels, times scales, as in multiply_floats.

    stored: the same panels as the matrix has them, int4 or int8; what lies behind them is prefetched.
    """
    most_rows, width = INTEGER_TILE
    height = even_height(rows, most_rows)
    steps = panels.stride // LINE
    for panel in range(0, 2, width):
        for row in range(0, rows, height):
            integer_tile(
                min(height, rows - row),
                x.address + row * x.stride,
                x.stride,
                panels.address + panel * panels.stride,
                panels.stride,
                steps,
                stored.address + (2 + panel) * stored.stride,
                stored.stride // steps,
                out.address + row * out.stride + panel * panel_bytes,
                out.stride,
                panel_bytes,
                row_scales + row * BYTES,
                row_sums + row * BYTES,
                channel_scales + panel * PANEL * BYTES,
            )


@jit
def panel_stride(matrix_format: int, k: int) -> int:
    """Bytes of a panel of 16 channels of k weights."""
    if matrix_format == FLOAT32:
        return PANEL * k * BYTES
    return PANEL * k // (2 if matrix_format == INT4 else 1)


@jit
def unpacked(model: Model, matrix: int, pair: int, stored: Rows, scratch: Scratch, thread: int) -> Rows:
    """A pair of panels of an integer matrix as int8 panels: those of an int4 matrix in memory of this thread."""
    if i64_at(model.formats, matrix) != INT4:
        return stored
    panels = Rows(scratch.levels.address + thread * scratch.levels.stride, 2 * stored.stride)
    blocks = 2 * panels.stride // (PANEL * CODEBOOK_BYTE_INPUTS)  # of both panels
    codebooks = i64_at(model.codebooks, matrix) + pair * blocks * PANEL
    unpack_int4(stored.address, codebooks, blocks, panels.address)
    return panels


@jit
def multiply(model: Model, matrix: int, scratch: Scratch, rows: int, n: int, k: int, halves: bool, team: Team) -> None:
    """scratch.product = the input (rows, k) times n channels of a matrix; one stage.

    The input is scratch.inputs for a float32 matrix, else scratch.codes. n is rounded up to whole pairs of panels.
    Where halves, the first panel of each pair (a gate) goes to the first half of the output, the second to the second.
    """
    matrix_format = i64_at(model.formats, matrix)
    weights, scales = i64_at(model.weights, matrix), i64_at(model.scales, matrix)
    stride = panel_stride(matrix_format, k)
    out_stride = scratch.product.stride
    between = (n // 2 if halves else PANEL) * BYTES

    pairs = divide_up(n, PAIR)
    block_rows = even_height(rows, BLOCK_ROWS)
    blocks = divide_up(rows, block_rows)
    pairs_in_chunk = max(1, pairs * blocks // (CHUNKS_PER_THREAD * team.threads))
    chunks_in_block = divide_up(pairs, pairs_in_chunk)
    for chunk in shared(team, blocks * chunks_in_block):
        start = chunk // chunks_in_block * block_rows
        height = min(block_rows, rows - start)
        first = chunk % chunks_in_block * pairs_in_chunk
        for pair in range(first, min(first + pairs_in_chunk, pairs)):
            stored = Rows(weights + 2 * pair * stride, stride)
            column = pair * (PANEL if halves else PAIR)
            out = Rows(scratch.product.address + start * out_stride + column * BYTES, out_stride)
            if matrix_format == FLOAT32:
                x = Rows(scratch.inputs.address + start * scratch.inputs.stride, scratch.inputs.stride)
                multiply_floats(height, x, stored, k, out, between)
            else:
                x = Rows(scratch.codes.address + start * scratch.codes.stride, scratch.codes.stride)
                row_scales, row_sums = scratch.scales + start * BYTES, scratch.sums + start * BYTES
                panels = unpacked(model, matrix, pair, stored, scratch, team.thread)
                channel_scales = scales + pair * PAIR * BYTES
                multiply_codes(height, x, row_scales, row_sums, panels, stored, channel_scales, out, between)
