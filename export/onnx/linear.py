"""Products with weight matrices, in each format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...onnx.onnx_choices import Target
from .graph import CONTRIB, FLOAT, Array, Graph, packed_nibbles
from .matrix import BLOCK, Matrix

_INT8_MAX = 127
_ZERO_POINT = 128  # of activations, which are stored as uint8: code + 128. Integer products want one signed operand

_ACCURACY_LEVEL = 4  # of MatMulNBits: activations are rounded to int8, in blocks of a row


@dataclass(frozen=True)
class Rows:
    """Rows of activations (rows, in_features), prepared for a product.

    Attributes:
        values: float32, or codes.
        scale: multiplies products of codes, (rows,) float32; None where values are float32.
    """

    values: str
    scale: str | None = None

    def scaled(self, graph: Graph, product: str, shape: str) -> str:
        """A product of the values, scaled to one of the activations; shape is its shape, with -1 for the channels."""
        if self.scale is None:
            return product
        return graph.op("Mul", product, graph.op("Reshape", self.scale, shape))

    def scaled_by(self, graph: Graph, other: Rows) -> Rows:
        """The rows with the scales of other rows as well."""
        if self.scale is None or other.scale is None:
            return self
        return Rows(self.values, graph.op("Mul", self.scale, other.scale))


class Linear:
    """Products with all matrices, each in its own format.

    int8 weights have a scale per output channel, and activations are rounded to int8 with a scale per row. int4 weights
    have a scale and a zero point for every block of inputs of an output channel; activations are rounded inside of the
    product.

    Why not DynamicQuantizeMatMul or DynamicQuantizeLinear: their scale is that of the whole tensor, so that a text's
    vector depends on what else is in the batch. Why not MatMulNBits with 8 bits: it is slower (../EXPERIMENTS.md).
    """

    def __init__(self, graph: Graph, matrices: Mapping[str, Matrix], target: Target) -> None:
        self._graph = graph
        self._matrices = matrices
        self._fused = target == "onnxruntime"
        self._zero_points: dict[str, str] = {}  # by the count of rows: one for each row
        self._products: dict[np.dtype[Any], Callable[[str, Matrix, Rows], str]] = {
            np.dtype(np.float32): self._float32,
            np.dtype(np.int8): self._int8,
            np.dtype(np.uint8): self._int4_fused if self._fused else self._int4,
        }

    def rows(self, name: str, x: str, count: str) -> Rows:
        """Prepares x (rows, in_features) float32 for the matrix `name`; count is the number of rows, a scalar."""
        if self._matrices[name].values.dtype != np.int8:
            return Rows(x)
        graph = self._graph
        largest = graph.op("ReduceMax", graph.op("Abs", x), graph.integers(1), keepdims=0)
        scale = graph.op("Mul", largest, graph.number(1 / _INT8_MAX))
        if count not in self._zero_points:
            self._zero_points[count] = graph.op("Expand", self._zero_point(), graph.vector(count))
        return Rows(graph.op("QuantizeLinear", x, scale, self._zero_points[count], axis=0), scale)

    def product(self, name: str, rows: Rows) -> str:
        """The values of the rows times the matrix `name`: (rows, out_features)."""
        matrix = self._matrices[name]
        return self._products[matrix.values.dtype](name, matrix, rows)

    def _float32(self, name: str, matrix: Matrix, rows: Rows) -> str:
        return self._graph.op("MatMul", rows.values, self._graph.constant(name, matrix.values.T))

    def _int8(self, name: str, matrix: Matrix, rows: Rows) -> str:
        graph = self._graph
        codes = graph.constant(name, matrix.values.T)
        scales = graph.constant(f"{name}.scale", matrix.scales)
        if self._fused:
            inputs = rows.values, codes, graph.number(1), scales, self._zero_point()
            return graph.op("MatMulIntegerToFloat", *inputs, domain=CONTRIB)
        sums = graph.op("MatMulInteger", rows.values, codes, self._zero_point())
        return graph.op("Mul", graph.cast(sums, FLOAT), scales)

    def _int4(self, name: str, matrix: Matrix, rows: Rows) -> str:
        graph = self._graph
        codes = graph.nibbles(name, matrix.values.T)
        zero_points = graph.nibbles(f"{name}.zero_point", matrix.zero_points.T)
        scales = graph.constant(f"{name}.scale", matrix.scales.T)
        weights = graph.op("DequantizeLinear", codes, scales, zero_points, axis=0, block_size=BLOCK)
        return graph.op("MatMul", rows.values, weights)

    def _int4_fused(self, name: str, matrix: Matrix, rows: Rows) -> str:
        graph = self._graph
        out_features, in_features = matrix.values.shape
        constants = (
            graph.constant(name, packed_nibbles(matrix.values).reshape(out_features, -1, BLOCK // 2)),
            graph.constant(f"{name}.scale", matrix.scales),
            graph.constant(f"{name}.zero_point", packed_nibbles(_even(matrix.zero_points))),
        )
        shape = {"K": in_features, "N": out_features, "bits": 4, "block_size": BLOCK}
        return graph.op("MatMulNBits", rows.values, *constants, domain=CONTRIB, accuracy_level=_ACCURACY_LEVEL, **shape)

    def _zero_point(self) -> str:
        return self._graph.small(_ZERO_POINT, np.uint8)


def _even(codes: Array) -> Array:
    """Codes (rows, n) with a column of zeros if n is odd, so that every row starts with a byte."""
    return np.pad(codes, ((0, 0), (0, codes.shape[1] % 2)))
