"""A matrix as an ONNX model stores it, and how weights are rounded to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..checkpoint.checkpoint_tensors import Float32
from ..quantise.gptq import Float64, OutputRounder, gptq
from ..quantise.quantize import GRIDS, Grid
from .graph import Array

BLOCK = 32  # inputs of an int4 matrix that share a scale: MatMulNBits has only one finer, 16

_EVEN_STEPS = Grid(np.arange(-8, 8))  # MatMulNBits has no others
_OFFSET, _LARGEST_CODE = 8, 15  # codes are stored as 0 … 15
_CLIP_RATIOS = (1.0, 0.9, 0.8, 0.7, 0.6)  # shares of a block's largest and of its smallest weight that are tried


@dataclass(frozen=True)
class Matrix:
    """A matrix. A weight is a value, a code times a scale, or (code - zero point) times a scale.

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
        """The weights as float32: (out_features, in_features)."""
        if self.scales.ndim == 1:
            return np.asarray(self.values * self.scales[:, None])
        if not self.scales.size:
            return np.asarray(self.values)
        codes = self.values.reshape(*self.scales.shape, BLOCK) - self.zero_points[:, :, None].astype(np.float32)
        return np.asarray((codes * self.scales[:, :, None]).reshape(self.values.shape))


def int8_matrix(weights: Float32, gram: Float64) -> Matrix:
    """int8 with a scale for each output channel, for inputs with this Gram matrix."""
    rows = gptq(weights, gram, GRIDS["int8"])
    return Matrix(rows.codes, rows.scales[:, 0].astype(np.float32), rows.codes[:, :0])


def int4_matrix(weights: Float32, gram: Float64) -> Matrix:
    """int4 with a scale and a zero point for each block of inputs, for inputs with this Gram matrix."""
    rounder = OutputRounder(gram, _EVEN_STEPS, groups=weights.shape[1] // BLOCK)
    scales, zero_points = _best_ranges(weights, rounder.importance)
    # (code - zero point) * scale = (code - 8) * scale + shift. Without the shift, codes are around zero.
    shifts = (_OFFSET - zero_points) * scales
    codes, _ = rounder.codes(weights - np.repeat(shifts, BLOCK, axis=1), scales)
    return Matrix((codes + _OFFSET).astype(np.uint8), scales, zero_points.astype(np.uint8))


def _best_ranges(weights: Float32, importance: Float32) -> tuple[Float32, Float32]:
    """Scales and zero points (out_features, blocks) with the least error; importance (in_features,) is its cost."""
    blocks = weights.reshape(-1, BLOCK)
    important = np.tile(importance.reshape(-1, BLOCK), (len(weights), 1))
    weighted = blocks * important
    low, high = np.minimum(blocks.min(axis=1), 0), np.maximum(blocks.max(axis=1), 0)
    least_gain = np.zeros(len(blocks), np.float32)
    best_scales, best_points = np.zeros_like(least_gain), np.zeros_like(least_gain)
    for low_share in _CLIP_RATIOS:
        for high_share in _CLIP_RATIOS:
            step = (high * np.float32(high_share) - low * np.float32(low_share)) / np.float32(_LARGEST_CODE)
            inverse = np.divide(1, step, out=np.zeros_like(step), where=step > 0)
            points = np.clip(np.rint(-low * np.float32(low_share) * inverse), 0, _LARGEST_CODE)
            codes = blocks * inverse[:, None]
            np.rint(codes, out=codes)
            np.clip(codes, -points[:, None], _LARGEST_CODE - points[:, None], out=codes)
            # As in ../quantise/quantize.py: the best scale of codes q is w·q / q·q; a larger (w·q)² / q·q is better.
            dot, norm = np.einsum("bc,bc->b", weighted, codes), np.einsum("bc,bc,bc->b", codes, codes, important)
            scales = np.divide(dot, norm, out=np.zeros_like(dot), where=norm > 0)
            better = dot * scales > least_gain
            least_gain[better] = (dot * scales)[better]
            best_scales[better], best_points[better] = scales[better], points[better]
    shape = (len(weights), -1)
    return best_scales.reshape(shape), best_points.reshape(shape)
