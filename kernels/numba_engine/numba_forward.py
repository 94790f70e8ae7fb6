"""The forward pass of the Numba backend, in model order, of texts laid end to end.

Each `for` over parts is one step, whose items are shared among the threads (numba_team.py), and so is each product.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from .numba_matmul import F32, FLOAT32, Scratch, multiply
from .numba_ops import I64, add_norm, attend, geglu, norm, place_heads, pool, quantize
from .numba_team import OPTIONS, Team, jit, parts

INPUT_NORM, POST_ATTENTION_NORM, PRE_FFN_NORM, POST_FFN_NORM = 0, 1, 2, 3  # places in Model.norms
STEPS_PER_LAYER, STEPS_AROUND = 14, 4  # at most


class Model(NamedTuple):
    """Shapes and weights."""

    heads: int
    kv_heads: int
    window: int
    eps: np.float32
    matrices: Any  # MATRIX (4 · layers + 1,): qkv, o, gate_up and down of each layer, then the head
    norms: F32  # (layers, 4, hidden) multipliers
    final_norm: F32  # (hidden,)
    head_norms: F32  # (layers, 2, head_dim) multipliers of queries and of keys
    full: npt.NDArray[np.int8]  # (layers,) 1 where every token attends to all others, 0 where the window limits it


@jit
def linear(matrix: Any, scratch: Scratch, rows: int, n: int, team: Team) -> None:
    """scratch.product = x · Wᵀ for n channels, of x = scratch.x, which it overwrites."""
    if matrix.format != FLOAT32:
        for first, last in parts(team, rows):
            quantize(scratch.x, matrix.k, scratch.codes, scratch.scales, scratch.code_sums, first, last)
    multiply(matrix, scratch, rows, n, team)


@jit
def run_layer(model: Model, layer: int, blocks: I64, rope: F32, scratch: Scratch, hidden: F32, team: Team) -> None:
    """hidden += norm(attention(norm(hidden))), then hidden += norm(down(geglu(gate_up(norm(hidden)))))."""
    x, product, keys, values = scratch.x, scratch.product, scratch.keys, scratch.values
    tokens, eps, norms, head_norms = len(hidden), model.eps, model.norms[layer], model.head_norms[layer]
    matrices, full = model.matrices[4 * layer : 4 * layer + 4], model.full[layer]
    qkv, out, gate_up, down = matrices[0], matrices[1], matrices[2], matrices[3]

    for first, last in parts(team, tokens):
        norm(hidden, norms[INPUT_NORM], eps, x, first, last)
    linear(qkv, scratch, tokens, qkv.n, team)
    for first, last in parts(team, len(blocks)):
        place_heads(product, model.heads, head_norms, rope[full], blocks, eps, keys, values, first, last)
    reach, scores = tokens if full else model.window, scratch.scores[team[1]]
    for first, last in parts(team, len(blocks) * model.kv_heads):
        attend(product, keys, values, scores, blocks, reach, x, first, last)
    linear(out, scratch, tokens, out.n, team)

    for first, last in parts(team, tokens):
        add_norm(hidden, product, norms[POST_ATTENTION_NORM], eps, first, last)
        norm(hidden, norms[PRE_FFN_NORM], eps, x, first, last)
    linear(gate_up, scratch, tokens, gate_up.n, team)
    for first, last in parts(team, tokens):
        geglu(product, down.k, x, first, last)
    linear(down, scratch, tokens, down.n, team)
    for first, last in parts(team, tokens):
        add_norm(hidden, product, norms[POST_FFN_NORM], eps, first, last)


def cached(function: Any) -> Any:
    """Compiles a function that Python calls, and keeps the result in __pycache__, or in the user's cache folder."""
    # Numba looks whether this file has changed, but not those that it calls into; so the name has a digest of them all.
    sources = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    function.__qualname__ = f"{function.__qualname__}-{zlib.crc32(sources):08x}"
    try:
        return numba.njit(**OPTIONS, cache=True)(function)
    except RuntimeError:  # nowhere to write: for this process alone
        return numba.njit(**OPTIONS)(function)


@cached
def forward(
    model: Model, offsets: I64, blocks: I64, rope: F32, scratch: Scratch, hidden: F32, dim: int, team: Team
) -> None:
    """Embeds texts, as the first rows of scratch.product; each thread of a team calls this once.

    Args:
        offsets: (texts + 1,) text i is tokens offsets[i] … offsets[i + 1] - 1.
        blocks: (blocks, 4) see numba_ops.py.
        rope: (2, positions, head_dim) cosines, then sines, of sliding and of full layers.
        hidden: (tokens, hidden) the residual stream: the embedding rows, and after the call their final norm.
    """
    for layer in range(len(model.full)):
        run_layer(model, layer, blocks, rope, scratch, hidden, team)
    texts, head = len(offsets) - 1, model.matrices[-1]
    for first, last in parts(team, len(hidden)):
        norm(hidden, model.final_norm, model.eps, hidden, first, last)
    for first, last in parts(team, texts):
        pool(hidden, offsets, scratch.x, first, last)
    linear(head, scratch, texts, dim, team)
