"""The forward pass of the Numba backend, in model order. Begin with `forward`, at the end.

Texts are laid end to end: matrix products see all tokens at once, attention works text by text. Each step is one
stage (numba_threads.py): its chunks are shared among the threads, and it ends when all of them are done.
"""

from __future__ import annotations

import numpy as np

from .layout import PANEL
from .numba_jit import jit, jit_cached
from .numba_products import BYTES, PAIR, multiply, multiply_floats
from .numba_rows import (
    ONE,
    SMALLEST_MAGNITUDE,
    ZERO,
    Scalar,
    add_normed,
    fill,
    geglu,
    inverse_rms,
    quantize,
    rotate,
    scale,
    softmax,
    sum_of_squares,
)
from .numba_state import (
    BLOCK_QUERIES,
    DOWN,
    FLOAT32,
    FULL,
    GATE_UP,
    INPUT_NORM,
    MATRICES,
    NORMS,
    OUT,
    POST_ATTENTION_NORM,
    POST_FFN_NORM,
    PRE_FFN_NORM,
    QKV,
    Batch,
    Model,
    Scratch,
)
from .numba_threads import Team, shared, shared_rows
from .numba_views import F32, Rows, f32, i8, i64_at, set_f32, set_i32

LINE = PANEL * BYTES  # one row of a float32 panel
STAGES_PER_LAYER, STAGES_AROUND = 10, 4  # calls of shared, shared_rows and multiply


@jit
def give(model: Model, matrix: int, scratch: Scratch, x: F32, multiplier: F32, factor: Scalar, token: int) -> None:
    """Makes x * multiplier * factor, the row of a token, the input of a matrix.

    factor is that of an RMSNorm, or 1. It cancels out of the int8 codes: only their scale needs it.
    """
    if i64_at(model.formats, matrix) == FLOAT32:
        scale(x, multiplier, factor, f32(scratch.inputs, token, 0, len(x)))
    else:
        rotated, codes = f32(scratch.inputs, token, 0, len(x)), i8(scratch.codes, token, len(x))
        scale_of_codes, sum_of_codes = quantize(x, multiplier, rotated, codes)
        set_f32(scratch.scales, token, scale_of_codes * factor)
        set_i32(scratch.sums, token, sum_of_codes)


@jit
def give_normed(model: Model, matrix: int, norm: int, scratch: Scratch, hidden: Rows, token: int) -> None:
    """Makes the RMSNorm of a row of hidden the input of a matrix."""
    x = f32(hidden, token, 0, model.hidden)
    give(model, matrix, scratch, x, f32(model.norms, norm, 0, model.hidden), inverse_rms(x, model.eps), token)


@jit
def add_output(model: Model, norm: int, scratch: Scratch, hidden: Rows, token: int) -> None:
    """Adds the RMSNorm of what a matrix gave to a row of hidden."""
    x = f32(scratch.product, token, 0, model.hidden)
    multiplier = f32(model.norms, norm, 0, model.hidden)
    add_normed(x, multiplier, inverse_rms(x, model.eps), f32(hidden, token, 0, model.hidden))


@jit
def prepare_heads(model: Model, layer: int, batch: Batch, scratch: Scratch, token: int) -> None:
    """RMSNorm and RoPE of the queries and keys of a token, in scratch.product; copies keys and values to panels."""
    heads, size, half = model.heads, model.head_dim, model.head_dim // 2
    angles = 2 * i64_at(batch.positions, token) + i64_at(model.kinds, layer)
    cos, sin = f32(batch.rope, angles, 0, half), f32(batch.rope, angles, half, half)
    for head in range(heads + model.kv_heads):
        start = head * size
        x = f32(scratch.product, token, start, size)
        multiplier = f32(model.head_norms, 2 * layer + (0 if head < heads else 1), 0, size)
        scale(x, multiplier, inverse_rms(x, model.eps), x)
        rotate(f32(scratch.product, token, start, half), f32(scratch.product, token, start + half, half), cos, sin)

    slot = i64_at(batch.key_slots, token)
    for head in range(model.kv_heads):
        start = (heads + head) * size
        key, value = f32(scratch.product, token, start, size), start + model.kv_heads * size
        panel = f32(scratch.keys, head * scratch.key_panels + slot // PANEL, slot % PANEL, size * PANEL)
        for i in range(size):
            panel[i * PANEL] = key[i]
        for column in range(0, size, PANEL):
            source = f32(scratch.product, token, value + column, PANEL)
            panel = f32(scratch.values, (head * size + column) // PANEL, token * PANEL, PANEL)
            for i in range(PANEL):
                panel[i] = source[i]


@jit
def attend(model: Model, layer: int, batch: Batch, scratch: Scratch, block: int, kv_head: int, thread: int) -> None:
    """Attention of a block of queries, for all heads that share a key/value head.

    The result takes the place of the queries in scratch.product. Keys and values that the window of no query reaches
    are not touched. For each head: queries (rows, head_dim) times keys gives scores (rows, keys); softmax over those
    keys that the query of the row sees; times values gives (rows, head_dim).
    """
    text, start = i64_at(batch.block_texts, block), i64_at(batch.block_starts, block)
    text_start = i64_at(batch.offsets, text)
    tokens = i64_at(batch.offsets, text + 1) - text_start
    reach = tokens if i64_at(model.kinds, layer) == FULL else model.window
    rows = min(BLOCK_QUERIES, tokens - start)
    first, last = max(start - reach, 0), min(start + rows + reach, tokens)  # keys that any query of the block sees

    size, sharing = model.head_dim, model.heads // model.kv_heads
    product, scores = scratch.product, scratch.scores
    queries = product.address + (text_start + start) * product.stride + kv_head * sharing * size * BYTES
    first_row = thread * sharing * BLOCK_QUERIES

    key_panel = kv_head * scratch.key_panels + i64_at(batch.key_slots, text_start) // PANEL
    keys = scratch.keys.address + key_panel * scratch.keys.stride
    for key in range(first // PAIR * PAIR, last, PAIR):
        panels = Rows(keys + key // PANEL * scratch.keys.stride, scratch.keys.stride)
        for head in range(sharing):
            x = Rows(queries + head * size * BYTES, product.stride)
            row = first_row + head * BLOCK_QUERIES
            out = Rows(scores.address + row * scores.stride + key * BYTES, scores.stride)
            multiply_floats(rows, x, panels, size, out, LINE)

    for head in range(sharing):
        for i in range(rows):
            row = first_row + head * BLOCK_QUERIES + i
            seen, end = max(start + i - reach, 0), min(start + i + reach + 1, tokens)
            fill(f32(scores, row, first, seen - first), ZERO)
            softmax(f32(scores, row, seen, end - seen))
            fill(f32(scores, row, end, last - end), ZERO)

    values = scratch.values.address + kv_head * (size // PANEL) * scratch.values.stride + (text_start + first) * LINE
    for column in range(0, size, PAIR):
        panels = Rows(values + column // PANEL * scratch.values.stride, scratch.values.stride)
        for head in range(sharing):
            row = first_row + head * BLOCK_QUERIES
            x = Rows(scores.address + row * scores.stride + first * BYTES, scores.stride)
            out = Rows(queries + (head * size + column) * BYTES, product.stride)
            multiply_floats(rows, x, panels, last - first, out, LINE)


@jit
def attention_block(model: Model, layer: int, batch: Batch, scratch: Scratch, hidden: Rows, team: Team) -> None:
    """Residual + attention. Begins with the input of qkv made, and ends with that of gate_up."""
    matrix, norm = MATRICES * layer, NORMS * layer
    q_width, qkv_width = model.heads * model.head_dim, (model.heads + 2 * model.kv_heads) * model.head_dim
    multiply(model, matrix + QKV, scratch, batch.tokens, qkv_width, model.hidden, False, team)
    for token in shared_rows(team, batch.tokens):
        prepare_heads(model, layer, batch, scratch, token)
    for chunk in shared(team, batch.blocks * model.kv_heads):
        attend(model, layer, batch, scratch, chunk // model.kv_heads, chunk % model.kv_heads, team.thread)
    for token in shared_rows(team, batch.tokens):
        attended = f32(scratch.product, token, 0, q_width)
        give(model, matrix + OUT, scratch, attended, f32(model.ones, 0, 0, q_width), ONE, token)
    multiply(model, matrix + OUT, scratch, batch.tokens, model.hidden, q_width, False, team)
    for token in shared_rows(team, batch.tokens):
        add_output(model, norm + POST_ATTENTION_NORM, scratch, hidden, token)
        give_normed(model, matrix + GATE_UP, norm + PRE_FFN_NORM, scratch, hidden, token)


@jit
def feed_forward_block(model: Model, layer: int, batch: Batch, scratch: Scratch, hidden: Rows, team: Team) -> None:
    """Residual + GeGLU. Ends with the input of the next layer's qkv made."""
    matrix, norm, ffn = MATRICES * layer, NORMS * layer, model.ffn
    multiply(model, matrix + GATE_UP, scratch, batch.tokens, 2 * ffn, model.hidden, True, team)
    for token in shared_rows(team, batch.tokens):
        gated = f32(scratch.inputs, token, 0, ffn)
        geglu(f32(scratch.product, token, 0, ffn), f32(scratch.product, token, ffn, ffn), gated)
        give(model, matrix + DOWN, scratch, gated, f32(model.ones, 0, 0, ffn), ONE, token)
    multiply(model, matrix + DOWN, scratch, batch.tokens, model.hidden, ffn, False, team)
    for token in shared_rows(team, batch.tokens):
        add_output(model, norm + POST_FFN_NORM, scratch, hidden, token)
        if layer + 1 < model.layers:
            give_normed(model, matrix + MATRICES + QKV, norm + NORMS + INPUT_NORM, scratch, hidden, token)


@jit
def pool(model: Model, batch: Batch, scratch: Scratch, hidden: Rows, text: int) -> None:
    """Makes the mean over all tokens of a text, after the final norm, the input of the head."""
    start, end = i64_at(batch.offsets, text), i64_at(batch.offsets, text + 1)
    multiplier, ones = f32(model.norms, NORMS * model.layers, 0, model.hidden), f32(model.ones, 0, 0, model.hidden)
    total = f32(scratch.inputs, text, 0, model.hidden)
    fill(total, ZERO)
    for token in range(start, end):
        x = f32(hidden, token, 0, model.hidden)
        add_normed(x, multiplier, inverse_rms(x, model.eps), total)
    scale(total, ones, ONE / np.float32(end - start), total)
    give(model, MATRICES * model.layers, scratch, total, ones, ONE, text)


@jit
def finish(x: F32, normalize: bool, out: F32) -> None:
    """out = x, scaled to unit length if normalize; zeros stay zeros."""
    length = max(np.sqrt(sum_of_squares(x)), SMALLEST_MAGNITUDE) if normalize else ONE
    for i in range(len(out)):
        out[i] = x[i] / length


@jit_cached
def forward(
    model: Model, batch: Batch, scratch: Scratch, team: Team, hidden: Rows, dim: int, normalize: bool, out: Rows
) -> None:
    """Embeds the texts of a batch; each thread of a team calls this once.

    hidden: float32 (tokens, hidden), the residual stream: the embedding rows, and afterwards of no meaning.
    out: float32 (texts, dim).
    """
    for token in shared_rows(team, batch.tokens):
        give_normed(model, QKV, INPUT_NORM, scratch, hidden, token)
    for layer in range(model.layers):
        attention_block(model, layer, batch, scratch, hidden, team)
        feed_forward_block(model, layer, batch, scratch, hidden, team)
    for text in shared_rows(team, batch.texts):
        pool(model, batch, scratch, hidden, text)
    multiply(model, MATRICES * model.layers, scratch, batch.texts, dim, model.hidden, False, team)
    for text in shared_rows(team, batch.texts):
        finish(f32(scratch.product, text, 0, dim), normalize, f32(out, text, 0, dim))
