"""What the compiled code of the Numba backend works on. All tuples hold numbers and addresses: see numba_views.py."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .numba_views import Rows

FLOAT32, INT8, INT4 = 0, 1, 2  # formats of a matrix
SLIDING, FULL = 0, 1  # kinds of layer

# Matrix m of layer i is number MATRICES * i + m, and the head comes last; norms likewise, with the final norm last.
QKV, OUT, GATE_UP, DOWN, MATRICES = 0, 1, 2, 3, 4
INPUT_NORM, POST_ATTENTION_NORM, PRE_FFN_NORM, POST_FFN_NORM, NORMS = 0, 1, 2, 3, 4

# Tokens that share one pass over the keys and values. 32 take the same time, at 2,048 tokens too, and leave nothing to
# a second thread in a text of 32.
BLOCK_QUERIES = 16


class Model(NamedTuple):
    """Shapes and weights."""

    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    window: int
    eps: np.float32
    kinds: int  # int64 (layers,): FULL where every token attends to all others, else SLIDING
    formats: int  # int64 (matrices,): FLOAT32, INT8 or INT4
    weights: int  # int64 (matrices,): address of the panels
    codebooks: int  # int64 (matrices,): address of the codebooks, as layout.py says; of nothing unless INT4
    scales: int  # int64 (matrices,): address of the float32 scales of the output channels; 0 for FLOAT32
    norms: Rows  # float32 (norms, hidden): multipliers
    head_norms: Rows  # float32 (2 * layers, head_dim): multipliers of queries, then of keys, of each layer
    ones: Rows  # float32 (1, widest input of a matrix): the multiplier where there is no norm


class Batch(NamedTuple):
    """Texts laid end to end, and how attention over them is cut up."""

    tokens: int
    texts: int
    offsets: int  # int64 (texts + 1,): text i is tokens offsets[i] … offsets[i + 1] - 1
    positions: int  # int64 (tokens,): place in its text
    key_slots: int  # int64 (tokens,): place among the keys, where each text begins with a pair of panels of its own
    blocks: int
    block_texts: int  # int64 (blocks,): the text that a block of up to BLOCK_QUERIES queries is from
    block_starts: int  # int64 (blocks,): the position of its first query
    rope: Rows  # float32 (2 * positions, head_dim): row 2 * position + kind: cosines, then sines


class Scratch(NamedTuple):
    """Intermediate values, which mean nothing between two calls."""

    codes: Rows  # int8 (tokens, widest input): input of an integer matrix
    scales: int  # float32 (tokens,): of the rows of codes
    sums: int  # int32 (tokens,): of the rows of codes
    inputs: Rows  # float32 (tokens, widest input): input of a float32 matrix, or what is rounded to codes
    levels: Rows  # int8 (threads, 2 * 16 * widest input): a pair of int4 panels, unpacked to int8 panels
    product: Rows  # float32 (tokens, widest output): what a matrix gave
    keys: Rows  # float32 (kv_heads * key_panels, head_dim * 16): panels of 16 keys of one text
    key_panels: int
    values: Rows  # float32 (kv_heads * head_dim / 16, tokens * 16): panels of 16 columns
    scores: Rows  # float32 (threads * heads that share keys * BLOCK_QUERIES, most key slots of a text)
