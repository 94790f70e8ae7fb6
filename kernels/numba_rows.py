"""Operations on one row (one token) for the Numba backend: everything between the matrix products.

Loops are written so that LLVM vectorises them: a loop that adds up does not store and the other way round, and the
largest magnitude is found on the bits of the floats, whose order as integers is that of the magnitudes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .numba_jit import jit, jit_reassociating
from .numba_views import F32, I8
from .rotation import ROTATION

Scalar = Any  # a float32 in compiled code

INT8_MAX = np.float32(127)  # codes are symmetric: -127 … 127
SIGN_MASK = np.int32(0x7FFFFFFF)  # all bits of a float32 but its sign

ROTATION_LENGTH = np.float32(np.sqrt(ROTATION))  # what the fast transform multiplies the length of a block by

# A row whose largest magnitude is below this counts as zero: 127 / magnitude would be infinite.
SMALLEST_MAGNITUDE = np.float32(1e-36)

# exp(x) = 2^n * exp(r), with n = round(x / ln 2) and |r| <= ln(2) / 2: Cephes, expf. ln 2 is taken off in two parts,
# the first of which times n is exact. Relative error below 2e-7 from EXP_LOWEST to -EXP_LOWEST.
EXP_LOWEST = np.float32(-87)  # exp of it is the smallest normal float32, about
LOG2_E = np.float32(1.44269504088896341)
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
EXP_5, EXP_4, EXP_3 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
EXP_2, EXP_1, EXP_0 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)
EXPONENT_BIAS, MANTISSA_BITS = np.int32(127), np.int32(23)

# A score this far below the largest weighs 2e-28, which no float32 sum sees; 0 keeps denormal numbers, which are slow,
# out of the products with the values.
SOFTMAX_LOWEST = np.float32(-64)

# gelu by tanh (arXiv 1606.08415): 0.5 x (1 + tanh u) = x / (1 + exp(-2u)), u = sqrt(2 / pi) (x + 0.044715 x^3)
GELU_LINEAR = np.float32(-2 * np.sqrt(2 / np.pi))
GELU_CUBIC = np.float32(-2 * np.sqrt(2 / np.pi) * 0.044715)
ZERO, ONE = np.float32(0), np.float32(1)


# ---- scalars ----------------------------------------------------------------------------------------------


def _reinterpret(kind: ir.Type) -> Any:
    """The code generator of an intrinsic that reads the 32 bits of its argument as another type."""

    def generate(_context: Any, b: ir.IRBuilder, _signature: Any, arguments: list[ir.Value]) -> ir.Value:
        return b.bitcast(arguments[0], kind)

    return generate


@intrinsic  # type: ignore[misc]
def _float_of_bits(_typing: Any, _bits: Any) -> Any:
    """The float32 that the bits of an int32 are."""
    return types.float32(types.int32), _reinterpret(ir.FloatType())


@intrinsic  # type: ignore[misc]
def _bits_of_float(_typing: Any, _number: Any) -> Any:
    """The int32 that the bits of a float32 are."""
    return types.int32(types.float32), _reinterpret(ir.IntType(32))


@jit
def exp(x: Scalar) -> Scalar:
    """e^x; x is clipped to -87 … 87."""
    x = min(max(x, EXP_LOWEST), -EXP_LOWEST)
    n = np.rint(x * LOG2_E)
    r = x - n * LN2_HIGH - n * LN2_LOW
    tail = ((((EXP_5 * r + EXP_4) * r + EXP_3) * r + EXP_2) * r + EXP_1) * r + EXP_0
    power = _float_of_bits((np.int32(n) + EXPONENT_BIAS) << MANTISSA_BITS)  # 2^n
    return (tail * r * r + r + ONE) * power


@jit
def gelu(x: Scalar) -> Scalar:
    """GELU by its tanh approximation."""
    return x / (ONE + exp(x * (GELU_LINEAR + GELU_CUBIC * x * x)))


# ---- rows: every argument is a contiguous row, or a part of one ---------------------------------------------


@jit
def fill(x: Any, value: Any) -> None:
    """Sets all of x; x[:] = value would take Numba a second to compile."""
    for i in range(len(x)):
        x[i] = value


@jit_reassociating
def sum_of_squares(x: F32) -> Scalar:
    """x . x."""
    total = ZERO
    for i in range(len(x)):
        total += x[i] * x[i]
    return total


@jit
def inverse_rms(x: F32, eps: Scalar) -> Scalar:
    """1 / sqrt(mean of squares + eps): what RMSNorm (arXiv 1910.07467) multiplies by."""
    return ONE / np.sqrt(sum_of_squares(x) / np.float32(len(x)) + eps)


@jit
def rotate_blocks(x: F32) -> None:
    """Hadamard's matrix times each block of ROTATION, in place, and times 8, the square root of ROTATION.

    The fast transform, with butterflies 1, 2, 4 … 32 apart in this order, as in vector_ops.h.
    """
    for i in range(0, len(x), 4):
        a, b, c, d = x[i] + x[i + 1], x[i] - x[i + 1], x[i + 2] + x[i + 3], x[i + 2] - x[i + 3]
        x[i], x[i + 1], x[i + 2], x[i + 3] = a + c, b + d, a - c, b - d
    for start in range(0, len(x), ROTATION):
        stride = 4
        while stride < ROTATION:
            for pair in range(start, start + ROTATION, 2 * stride):
                for i in range(pair, pair + stride):
                    first, second = x[i], x[i + stride]
                    x[i], x[i + stride] = first + second, first - second
            stride *= 2


@jit
def quantize(x: F32, multiplier: F32, rotated: F32, out: I8) -> tuple[Scalar, int]:
    """out = x * multiplier, rotated, in int8; returns the scale and the sum of the codes. rotated is room for a row."""
    for i in range(len(multiplier)):
        rotated[i] = x[i] * multiplier[i]
    rotate_blocks(rotated)
    largest_bits = np.int32(0)
    for i in range(len(multiplier)):
        # Numba computes with int64 unless told at each step, and half as fast.
        largest_bits = max(largest_bits, np.int32(_bits_of_float(rotated[i]) & SIGN_MASK))
    largest = _float_of_bits(largest_bits)
    if largest < SMALLEST_MAGNITUDE:
        fill(out, np.int8(0))
        return ZERO, np.int32(0)
    inverse = INT8_MAX / largest
    for i in range(len(multiplier)):
        code = np.rint(rotated[i] * inverse)
        out[i] = np.int8(min(max(code, -INT8_MAX), INT8_MAX))
    total = np.int32(0)
    for i in range(len(multiplier)):
        total = np.int32(total + out[i])
    return largest / (INT8_MAX * ROTATION_LENGTH), total


@jit
def scale(x: F32, multiplier: F32, factor: Scalar, out: F32) -> None:
    """out = x * multiplier * factor."""
    for i in range(len(multiplier)):
        out[i] = x[i] * multiplier[i] * factor


@jit
def add_normed(x: F32, multiplier: F32, factor: Scalar, hidden: F32) -> None:
    """hidden += x * factor * multiplier: the RMSNorm of x, if factor is its inverse_rms."""
    for i in range(len(multiplier)):
        hidden[i] += x[i] * factor * multiplier[i]


@jit
def rotate(first: F32, second: F32, cos: F32, sin: F32) -> None:
    """RoPE (rotate-half, arXiv 2104.09864) of the halves of a head, in place."""
    for i in range(len(cos)):
        a, b = first[i], second[i]
        first[i] = a * cos[i] - b * sin[i]
        second[i] = b * cos[i] + a * sin[i]


@jit
def geglu(gate: F32, up: F32, out: F32) -> None:
    """out = gelu(gate) * up (arXiv 2002.05202)."""
    for i in range(len(gate)):
        out[i] = gelu(gate[i]) * up[i]


@jit_reassociating
def _largest(x: F32) -> Scalar:
    largest = x[0]
    for i in range(len(x)):
        largest = max(largest, x[i])
    return largest


@jit_reassociating
def _sum(x: F32) -> Scalar:
    total = ZERO
    for i in range(len(x)):
        total += x[i]
    return total


@jit
def softmax(x: F32) -> None:
    """x = exp(x) / sum of exp(x), in place."""
    largest = _largest(x)
    for i in range(len(x)):
        below = x[i] - largest
        power = exp(below)
        x[i] = power if below > SOFTMAX_LOWEST else ZERO
    inverse = ONE / _sum(x)  # the largest score gives 1, so the sum is no less
    for i in range(len(x)):
        x[i] *= inverse
