"""The rotation of the inputs of integer matrices: Hadamard's matrix on each block of 64.

A row is rounded to int8 by its largest magnitude, and rows of a model have outliers. An orthogonal matrix spreads an
outlier evenly over its block. Applied to the inputs and to the columns of the matrix alike, it changes nothing else:
x · Wᵀ = (x · H) · (W · H)ᵀ. QuIP#, arXiv 2402.04396; QuaRot, arXiv 2404.00456.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

# The width of every matrix is a multiple. Blocks of 128 gain less than 5 %: see export/EXPERIMENTS.md.
ROTATION = 64

_Float = TypeVar("_Float", np.float32, np.float64)


def rotate_blocks(x: npt.NDArray[_Float], block: int = ROTATION) -> npt.NDArray[_Float]:
    """Multiplies each block of columns of x (rows, columns) by Hadamard's matrix. It is its own inverse.

    The fast transform: butterflies between elements 1, 2, 4 … apart, in this order, as in the engine. The bits of a row
    then do not depend on the number of rows, unlike those of a matrix product.
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
