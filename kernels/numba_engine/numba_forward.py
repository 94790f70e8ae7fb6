"""The forward pass of the Numba backend, in model order.

Texts are laid end to end: matrix products see all tokens at once, attention works text by text. Each `for` over parts
is one step, whose items are shared among the threads (numba_team.py), and so is each product.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from .numba_matmul import FLOAT32, Scratch, multiply
from .numba_ops import F32, I64, add_norm, attend, geglu, norm, place_heads, pool, quantize
from .numba_team import OPTIONS, Team, jit, parts

MATRICES = 4  # of a layer
INPUT_NORM, POST_ATTENTION_NORM, PRE_FFN_NORM, POST_FFN_NORM = 0, 1, 2, 3  # places in Model.norms
STEPS_PER_LAYER, STEPS_AROUND = 11, 3


class Model(NamedTuple):
    """Shapes and weights."""

    heads: int
    kv_heads: int
    window: int
    eps: np.float32
    matrices: Any  # MATRIX (MATRICES · layers + 1,): qkv, o, gate_up and down of each layer, then the head
    norms: F32  # (layers, 4, hidden) multipliers
    final_norm: F32  # (hidden,)
    head_norms: F32  # (layers, 2, head_dim) multipliers of queries and of keys
    full: npt.NDArray[np.int8]  # (layers,) 1 where every token attends to all others, 0 where the window limits it


class Batch(NamedTuple):
    """Texts laid end to end."""

    offsets: I64  # (texts + 1,): text i is tokens offsets[i] … offsets[i + 1] - 1
    blocks: I64  # (blocks, 4): see numba_ops.py
    rope: F32  # (2, positions, head_dim): cosines, then sines, of sliding and of full layers


@jit
def quantize_input(matrix: Any, scratch: Scratch, first: int, last: int) -> None:
    """Makes rows of scratch.x the input of a matrix."""
    if matrix.format != FLOAT32:
        quantize(scratch.x, matrix.k, scratch.codes, scratch.scales, scratch.code_sums, first, last)


@jit
def run_layer(model: Model, layer: int, batch: Batch, scratch: Scratch, hidden: F32, team: Team) -> None:
    """hidden += norm(attention(norm(hidden))), then hidden += norm(down(geglu(gate_up(norm(hidden)))))."""
    x, product, keys, values = scratch.x, scratch.product, scratch.keys, scratch.values
    tokens, blocks, eps, norms = len(hidden), batch.blocks, model.eps, model.norms[layer]
    matrices, full = model.matrices[MATRICES * layer : MATRICES * (layer + 1)], model.full[layer]
    qkv, out, gate_up, down = matrices[0], matrices[1], matrices[2], matrices[3]

    for first, last in parts(team, tokens):
        norm(hidden, norms[INPUT_NORM], eps, x, first, last)
        quantize_input(qkv, scratch, first, last)
    multiply(qkv, scratch, tokens, qkv.n, team)
    for first, last in parts(team, len(blocks)):
        norm_pair, rope = model.head_norms[layer], batch.rope[full]
        place_heads(product, model.heads, norm_pair, rope, blocks, eps, keys, values, first, last)
    for first, last in parts(team, len(blocks) * model.kv_heads):
        reach, scores = tokens if full else model.window, scratch.scores[team.thread]
        attend(product, keys, values, scores, blocks, reach, x, first, last)
    for first, last in parts(team, tokens):
        quantize_input(out, scratch, first, last)
    multiply(out, scratch, tokens, out.n, team)

    for first, last in parts(team, tokens):
        add_norm(hidden, product, norms[POST_ATTENTION_NORM], eps, first, last)
        norm(hidden, norms[PRE_FFN_NORM], eps, x, first, last)
        quantize_input(gate_up, scratch, first, last)
    multiply(gate_up, scratch, tokens, gate_up.n, team)
    for first, last in parts(team, tokens):
        geglu(product, down.k, x, first, last)
        quantize_input(down, scratch, first, last)
    multiply(down, scratch, tokens, down.n, team)
    for first, last in parts(team, tokens):
        add_norm(hidden, product, norms[POST_FFN_NORM], eps, first, last)


def cached(function: Any) -> Any:
    """Compiles a function that Python calls, and keeps the result in __pycache__, or in the user's cache folder.

    Numba compiles again when the file of `function` changes, but not when one does that it calls into; so the name
    under which it looks has a digest of them all.
    """
    sources = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    function.__qualname__ = f"{function.__qualname__}-{zlib.crc32(sources):08x}"
    try:
        return numba.njit(**OPTIONS, cache=True)(function)
    except RuntimeError:  # nowhere to write: for this process alone
        return numba.njit(**OPTIONS)(function)


@cached
def forward(model: Model, batch: Batch, scratch: Scratch, team: Team, hidden: F32, dim: int) -> None:
    """Embeds the texts of a batch, as the first rows of scratch.product; each thread of a team calls this once.

    hidden: (tokens, hidden), the residual stream: the embedding rows, and afterwards of no meaning.
    """
    for layer in range(len(model.full)):
        run_layer(model, layer, batch, scratch, hidden, team)
    texts, head = len(batch.offsets) - 1, model.matrices[-1]
    for first, last in parts(team, len(hidden)):
        norm(hidden, model.final_norm, model.eps, hidden, first, last)
    for first, last in parts(team, texts):
        pool(hidden, batch.offsets, scratch.x, first, last)
        quantize_input(head, scratch, first, last)
    multiply(head, scratch, texts, dim, team)
