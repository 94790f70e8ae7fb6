"""The rotation of the inputs of integer matrices: Hadamard's matrix on each block of 64.

Rounding a row to int8 goes by its largest magnitude, and rows of a model have outliers. An orthogonal matrix that
mixes a block spreads an outlier evenly over it; applied to the inputs and to the columns of the matrix alike, it
changes nothing else: x · Wᵀ = (x · H) · (W · H)ᵀ. QuIP#, arXiv 2402.04396; QuaRot, arXiv 2404.00456.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

# The width of every matrix is a multiple of it. Larger blocks gain little: the relative error of outputs on
# calibration texts that were held out, rms over 3 layers, for blocks of 16 / 32 / 64 / 128 and without a rotation, but
# with channels smoothed instead (SmoothQuant, arXiv 2211.10438): down in int8 0.0097 / 0.0085 / 0.0078 / 0.0074 and
# 0.0209, gate_up in int8 0.0083 / 0.0079 / 0.0077 / 0.0076 and 0.0095; in int4 down 0.0654 / 0.0645 / 0.0644 / 0.0638
# and 0.0823, qkv 0.0470 / 0.0467 / 0.0466 / 0.0466 and 0.0551. Smoothing and rotation together: as rotation alone.
# int4 had even steps then.
ROTATION = 64

_Float = TypeVar("_Float", np.float32, np.float64)


def rotate_blocks(x: npt.NDArray[_Float], block: int = ROTATION) -> npt.NDArray[_Float]:
    """x (rows, columns) with each block of so many columns multiplied by Hadamard's matrix; its own inverse.

    The fast transform: butterflies between elements 1, 2, 4 … apart, in this order, as in the engine. So a row's bits
    do not depend on how many there are, as those of a product of matrices may.
    """
    rotated = x / x.dtype.type(np.sqrt(block))
    stride = 1
    while stride < block:
        pairs = rotated.reshape(-1, 2, stride)
        first, second = pairs[:, 0].copy(), pairs[:, 1]
        pairs[:, 0] += second
        np.subtract(first, second, out=pairs[:, 1])
        stride *= 2
    return np.asarray(rotated)
