"""The operations of the forward pass between the matrix products: names and meaning as in isa/kernels.h.

An operation takes the items first … last - 1: rows, or blocks of attention. Loops are written so that LLVM vectorises
them: one that adds up does not store, and one runs through a whole view, whose indices LLVM knows to be in range.
`blocks` (blocks, 4) are of up to BLOCK_QUERIES tokens: first row, first slot of keys and length of their text, and the
position of the first token in it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..layout import PANEL
from ..rotation import ROTATION
from .numba_dot import LINE
from .numba_matmul import F32, WIDTH, matmul_float
from .numba_team import jit, jit_sum

I64 = npt.NDArray[np.int64]
Scalar = Any  # a float32 in compiled code

BLOCK_QUERIES = 16  # share one pass over keys and values; 32 take the same time, and leave short texts to one thread
KEY_GRAIN = 2 * PANEL  # the slots of a text are a multiple of it, since a product has no fewer channels

CODE_MAX = np.float32(127)  # codes are symmetric: -127 … 127
ROTATION_LENGTH = np.float32(np.sqrt(ROTATION))  # what the fast transform multiplies the length of a block by
SMALLEST_MAGNITUDE = np.float32(1e-36)  # a row below it counts as zero: 127 / magnitude would be infinite
SOFTMAX_LOWEST = np.float32(-64)  # no sum sees a weight of exp of it; 0 instead keeps denormals, which are slow, out
SIGN_MASK, SIGN_SHIFT = np.int32(0x7FFFFFFF), np.int32(31)  # all bits of a float32 but its sign, and where that is

# exp(x) = 2^n · exp(r), with n = round(x / ln 2) and |r| <= ln(2) / 2: Cephes, expf. Relative error below 2e-7.
EXP_LOWEST, LOG2_E = np.float32(-87), np.float32(1.44269504088896341)
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
EXP_5, EXP_4, EXP_3 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
EXP_2, EXP_1, EXP_0 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)

# gelu by tanh (arXiv 1606.08415): 0.5 x (1 + tanh u) = x / (1 + exp(-2u)), u = sqrt(2 / pi) (x + 0.044715 x³)
GELU_LINEAR, GELU_CUBIC = (np.float32(-2 * np.sqrt(2 / np.pi) * factor) for factor in (1, 0.044715))
ZERO, ONE = np.float32(0), np.float32(1)


@jit
def exp(x: Scalar) -> Scalar:
    """e^x; x is clipped to -87 … 87."""
    x = min(max(x, EXP_LOWEST), -EXP_LOWEST)
    n = np.rint(x * LOG2_E)
    r = x - n * LN2_HIGH - n * LN2_LOW
    tail = ((((EXP_5 * r + EXP_4) * r + EXP_3) * r + EXP_2) * r + EXP_1) * r + EXP_0
    power = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)  # 2^n: the exponent of a float32
    return (tail * r * r + r + ONE) * power


@jit_sum
def sum_of_squares(x: F32) -> Scalar:
    """Σ x²."""
    total = ZERO
    for i in range(len(x)):
        total += x[i] * x[i]
    return total


@jit
def inverse_rms(x: F32, eps: Scalar) -> Scalar:
    """1 / sqrt(mean of squares + eps): what RMSNorm (arXiv 1910.07467) multiplies by; NaN if that is not finite."""
    mean = sum_of_squares(x) / np.float32(len(x)) + eps
    return ONE / np.sqrt(mean) + (mean - mean)  # NaN unless it is finite: 0 would let the row vanish


@jit
def norm(x: F32, multiplier: F32, eps: Scalar, out: F32, first: int, last: int) -> None:
    """out = RMSNorm(x); both may be the same."""
    for r in range(first, last):
        row, to = x[r], out[r]
        factor = inverse_rms(row, eps)
        for i in range(len(row)):
            to[i] = row[i] * factor * multiplier[i]


@jit
def add_norm(hidden: F32, branch: F32, multiplier: F32, eps: Scalar, first: int, last: int) -> None:
    """hidden += RMSNorm(branch)."""
    for r in range(first, last):
        total, row = hidden[r], branch[r, : len(multiplier)]
        factor = inverse_rms(row, eps)
        for i in range(len(row)):
            total[i] += row[i] * factor * multiplier[i]


@jit
def pool(x: F32, offsets: I64, out: F32, first: int, last: int) -> None:
    """out = the mean of x over the tokens of each text."""
    for text in range(first, last):
        total, weight = out[text, : x.shape[1]], ONE / np.float32(offsets[text + 1] - offsets[text])
        total[:] = ZERO
        for token in range(offsets[text], offsets[text + 1]):
            row = x[token]
            for i in range(len(row)):
                total[i] += row[i] * weight


@jit
def butterflies(x: F32, out: F32) -> None:
    """A third of the fast Hadamard transform of each block of ROTATION: butterflies of neighbours, then of pairs.

    Elements 4i … 4i + 3 go to i, i + 16, i + 32 and i + 48, so that three rounds are butterflies 1, 2, 4 … 32 apart,
    in the order of rotation.py, and leave every element in its place.
    """
    quarter = ROTATION // 4
    for start in range(0, len(x), ROTATION):
        block, to = x[start : start + ROTATION], out[start : start + ROTATION]
        for i in range(quarter):
            a, b, c, d = block[4 * i], block[4 * i + 1], block[4 * i + 2], block[4 * i + 3]
            even, odd, even_pair, odd_pair = a + b, a - b, c + d, c - d
            to[i], to[i + quarter] = even + even_pair, odd + odd_pair
            to[i + 2 * quarter], to[i + 3 * quarter] = even - even_pair, odd - odd_pair


@jit
def quantize(x: F32, n: int, codes: Any, scales: F32, code_sums: Any, first: int, last: int) -> None:
    """Rotates the first n of each row, and rounds them: codes = round(127 · x / max |x|). Overwrites x."""
    rotated = np.empty(n, np.float32)
    for r in range(first, last):
        row, rounded, total, bits = x[r, :n], codes[r, :n], np.int32(0), np.int32(0)
        butterflies(row, rotated)
        butterflies(rotated, row)
        butterflies(row, rotated)
        for i in range(n):  # LLVM vectorises the maximum of integers: the bits of magnitudes have the same order
            bits = np.int32(max(bits, np.int32(np.float32(rotated[i]).view(np.int32) & SIGN_MASK)))
        largest = np.int32(bits).view(np.float32)
        factor = CODE_MAX / largest if largest >= SMALLEST_MAGNITUDE else ZERO
        for i in range(n):
            rounded[i] = np.int8(np.int32(np.rint(rotated[i] * factor)))
        for i in range(n):
            total = np.int32(total + rounded[i])
        scales[r], code_sums[r] = largest / (CODE_MAX * ROTATION_LENGTH), total


@jit
def geglu(gate_up: F32, n: int, out: F32, first: int, last: int) -> None:
    """out = gelu(gate) · up (arXiv 2002.05202); panels of PANEL channels of gate and of up take turns."""
    for r in range(first, last):
        for i in range(0, n, PANEL):
            gate, up = gate_up[r, 2 * i : 2 * i + PANEL], gate_up[r, 2 * i + PANEL : 2 * (i + PANEL)]
            gated = out[r, i : i + PANEL]
            for j in range(len(gated)):
                x = gate[j]
                gated[j] = x / (ONE + exp(x * (GELU_LINEAR + GELU_CUBIC * x * x))) * up[j]


@jit
def place_heads(
    qkv: F32, heads: int, norms: F32, rope: F32, blocks: I64, eps: Scalar, keys: F32, values: F32, first: int, last: int
) -> None:
    """RMSNorm and rotate-half RoPE (arXiv 2104.09864) of queries and keys, in place; keys and values to their panels.

    norms (2, head_dim) are of queries and of keys; rope (positions, head_dim) has cosines, then sines.
    """
    kv_heads, size, half = len(keys), norms.shape[1], norms.shape[1] // 2
    for block in range(first, last):
        text, text_slot, tokens, start = blocks[block, 0], blocks[block, 1], blocks[block, 2], blocks[block, 3]
        for position in range(start, min(start + BLOCK_QUERIES, tokens)):
            slot, cosine, sine = text_slot + position, rope[position, :half], rope[position, half:]
            x = qkv[text + position, : (heads + 2 * kv_heads) * size].reshape((-1, size))
            norm(x, norms[0], eps, x, 0, heads)
            norm(x, norms[1], eps, x, heads, heads + kv_heads)
            for head in range(heads + kv_heads):
                low, high = x[head, :half], x[head, half:]
                for i in range(half):
                    a, b = low[i], high[i]
                    low[i], high[i] = a * cosine[i] - b * sine[i], b * cosine[i] + a * sine[i]
            for head in range(kv_heads):
                key, value, panel = x[heads + head], x[heads + kv_heads + head], keys[head, slot // PANEL]
                for i in range(size):
                    panel[i, slot % PANEL] = key[i]
                    values[head, i // PANEL, slot, i % PANEL] = value[i]


@jit
def ordered(bits: Any) -> Any:
    """The bits of a float32 as an int32 with the same order, and back."""
    return np.int32(bits ^ (np.int32(bits >> SIGN_SHIFT) & SIGN_MASK))


@jit_sum
def sum_of(x: F32) -> Scalar:
    """Σ x."""
    total = ZERO
    for i in range(len(x)):
        total += x[i]
    return total


@jit
def softmax(x: F32) -> None:
    """x = exp(x) / sum of exp(x), in place."""
    bits = ordered(np.float32(x[0]).view(np.int32))
    for i in range(len(x)):
        bits = np.int32(max(bits, ordered(np.float32(x[i]).view(np.int32))))
    largest = np.int32(ordered(bits)).view(np.float32)
    for i in range(len(x)):
        power = exp(x[i] - largest)
        x[i] = ZERO if x[i] - largest <= SOFTMAX_LOWEST else power  # in this order, NaN stays
    inverse = ONE / sum_of(x)  # the largest score gives 1, so the sum is no less
    for i in range(len(x)):
        x[i] *= inverse


@jit
def attend(
    qkv: F32, keys: F32, values: F32, scores: F32, blocks: I64, reach: int, out: F32, first: int, last: int
) -> None:
    """out = softmax(Q · Kᵀ) · V, where a token sees those at most `reach` away. Items are block · kv_heads + kv_head.

    Keys and values that no query of a block sees are not touched. scores (sharing · BLOCK_QUERIES, slots of the longest
    text) is room for those of the query heads that share a head of keys and values.
    """
    kv_heads, size, sharing = len(keys), keys.shape[2], len(scores) // BLOCK_QUERIES
    for item in range(first, last):
        block, kv_head = blocks[item // kv_heads], item % kv_heads
        text, slot, tokens, start = block[0], block[1], block[2], block[3]
        rows, query = min(BLOCK_QUERIES, tokens - start), text + start
        low, high = max(start - reach, 0), min(start + rows + reach, tokens)  # keys that any query of the block sees
        for key in range(low // WIDTH * WIDTH, high, WIDTH):
            panels = keys[kv_head, (slot + key) // PANEL].ctypes.data
            for head in range(sharing):
                x, place = (query, (kv_head * sharing + head) * size), (head * BLOCK_QUERIES, key)
                matmul_float(qkv, x, rows, size, panels, size * LINE, scores, place)
        for head in range(sharing):
            for i in range(rows):
                row = scores[head * BLOCK_QUERIES + i]
                seen, end = max(start + i - reach, 0), min(start + i + reach + 1, tokens)
                row[low:seen] = row[end:high] = ZERO
                softmax(row[seen:end])
        for column in range(0, size, WIDTH):
            panels, stride = values[kv_head, column // PANEL, slot + low].ctypes.data, values.shape[2] * LINE
            for head in range(sharing):
                x, place = (head * BLOCK_QUERIES, low), (query, (kv_head * sharing + head) * size + column)
                matmul_float(scores, x, rows, high - low, panels, stride, out, place)
