"""A matrix as an ONNX model stores it, and how weights are rounded to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..gptq import Float64, OutputRounder, gptq
from ..quantize import GRIDS, Grid
from ..weights import Float32
from .graph import Array

BLOCK = 32  # inputs of an int4 matrix that share a scale: the finest that MatMulNBits has beside 16

_EVEN_STEPS = Grid(np.arange(-8, 8))  # which is all that MatMulNBits knows
_ZERO_POINT = 8  # codes are stored as 0 … 15


@dataclass(frozen=True)
class Matrix:
    """A matrix, of which a weight is a value, a code times a scale, or (code - zero point) times a scale.

    Attributes:
        values: (out_features, in_features) float32, int8, or uint8 0 … 15.
        scales: (out_features,) float32, (out_features, blocks) float32, or for float32 values (out_features, 0).
        zero_points: (out_features, blocks) uint8 0 … 15; blocks is 0 where codes are signed.
    """

    values: Array
    scales: Array
    zero_points: Array

    def channels(self, chosen: npt.NDArray[np.int64]) -> Matrix:
        """Some of the output channels."""
        return Matrix(self.values[chosen], self.scales[chosen], self.zero_points[chosen])

    def weights(self) -> Float32:
        """What it stands for: (out_features, in_features)."""
        if self.scales.ndim == 1:
            return np.asarray(self.values * self.scales[:, None])
        if not self.scales.size:
            return np.asarray(self.values)
        codes = self.values.reshape(*self.scales.shape, BLOCK) - self.zero_points[:, :, None].astype(np.float32)
        return np.asarray((codes * self.scales[:, :, None]).reshape(self.values.shape))


def float32_matrix(weights: Float32) -> Matrix:
    """Weights (out_features, in_features) as they are."""
    return Matrix(weights, weights[:, :0], weights[:, :0])


def int8_matrix(weights: Float32, gram: Float64) -> Matrix:
    """int8 with a scale for each output channel, for inputs with this Gram matrix."""
    codes, scales = gptq(weights, gram, GRIDS["int8"])
    return Matrix(codes, scales, codes[:, :0])


def int4_matrix(weights: Float32, gram: Float64) -> Matrix:
    """int4 with a scale for each block of inputs, for inputs with this Gram matrix.

    The sign of a scale is free, so that codes reach further to the side of a block's largest weight; their zero point
    is the same everywhere.
    """
    codes, scales = OutputRounder(gram, _EVEN_STEPS, groups=weights.shape[1] // BLOCK).round(weights)
    return Matrix((codes + _ZERO_POINT).astype(np.uint8), scales, np.full(scales.shape, _ZERO_POINT, np.uint8))
