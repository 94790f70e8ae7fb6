"""The two targets: the same steps in the fused operators of ONNX Runtime, and in those of the ONNX standard alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ...onnx.onnx_choices import Target
from .graph import CONTRIB, Array, Graph

# Of both targets. The first to have what `portable` needs: Gelu (20), four-bit integers and scales by blocks (21).
OPSET = 21


def opsets(target: Target) -> dict[str, int]:
    """Versions of the operator sets that a target uses, by domain."""
    return {"": OPSET, CONTRIB: 1} if target == "onnxruntime" else {"": OPSET}


@dataclass(frozen=True)
class Rotation:
    """The rotary angles of one kind of layer.

    Attributes:
        name: of its constants.
        cosines, sines: (positions, head_dim / 2).
    """

    name: str
    cosines: Array
    sines: Array


class Operators(Protocol):
    """What the targets say in different ways. All values are float32."""

    def norm(self, x: str, multiplier: str, eps: float) -> str:
        """RMSNorm of x (rows, width) over the last axis."""

    def rotate(self, x: str, heads: int, rotation: Rotation) -> str:
        """Rotary embedding, rotate-half, of x (batch, tokens, heads * head_dim)."""

    def gelu(self, x: str) -> str:
        """GELU by its tanh approximation."""

    def scores(self, query: str, key: str) -> str:
        """query (..., rows, head_dim) by key (..., keys, head_dim): (..., rows, keys)."""


class FusedOperators:
    """In the operators that ONNX Runtime is fastest with."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._tables: dict[str, tuple[str, str]] = {}

    def norm(self, x: str, multiplier: str, eps: float) -> str:
        """See `Operators.norm`.

        SkipSimplifiedLayerNormalization, which adds as well, takes as long as this and an Add (52 and 54 µs for 128
        tokens of 768), so both targets add by themselves.
        """
        return self._graph.op("SimplifiedLayerNormalization", x, multiplier, axis=-1, epsilon=eps)

    def rotate(self, x: str, heads: int, rotation: Rotation) -> str:
        """See `Operators.rotate`."""
        graph = self._graph
        if rotation.name not in self._tables:
            self._tables[rotation.name] = (
                graph.constant(f"{rotation.name}.cos", rotation.cosines),
                graph.constant(f"{rotation.name}.sin", rotation.sines),
            )
        first_position = graph.integers(0)
        tables = self._tables[rotation.name]
        return graph.op("RotaryEmbedding", x, first_position, *tables, domain=CONTRIB, num_heads=heads, interleaved=0)

    def gelu(self, x: str) -> str:
        """See `Operators.gelu`."""
        return self._graph.op("FastGelu", x, domain=CONTRIB)

    def scores(self, query: str, key: str) -> str:
        """See `Operators.scores`."""
        return self._graph.op("FusedMatMul", query, key, domain=CONTRIB, transB=1)


class StandardOperators:
    """In the operators of the ONNX standard."""

    def __init__(self, graph: Graph, tokens: str) -> None:
        self._graph = graph
        self._tokens = tokens
        self._tables: dict[str, tuple[str, str]] = {}

    def norm(self, x: str, multiplier: str, eps: float) -> str:
        """See `Operators.norm`."""
        graph = self._graph
        square = graph.op("Pow", x, graph.number(2))
        mean = graph.op("ReduceMean", square, graph.integers(-1), keepdims=1)
        root = graph.op("Sqrt", graph.op("Add", mean, graph.number(eps)))
        return graph.op("Mul", graph.op("Div", x, root), multiplier)

    def rotate(self, x: str, heads: int, rotation: Rotation) -> str:
        """See `Operators.rotate`."""
        graph = self._graph
        cosines, sines = self._first(rotation)
        half = rotation.cosines.shape[1]
        by_half = graph.op("Reshape", x, graph.integers(0, 0, heads, 2 * half))
        first, second = graph.ops("Split", 2, by_half, axis=-1, num_outputs=2)
        turned_first = graph.op("Sub", graph.op("Mul", first, cosines), graph.op("Mul", second, sines))
        turned_second = graph.op("Add", graph.op("Mul", second, cosines), graph.op("Mul", first, sines))
        turned = graph.op("Concat", turned_first, turned_second, axis=-1)
        return graph.op("Reshape", turned, graph.integers(0, 0, heads * 2 * half))

    def _first(self, rotation: Rotation) -> tuple[str, str]:
        """The cosines and sines of the positions that the texts have, (tokens, 1, head_dim / 2) each."""
        if rotation.name not in self._tables:
            graph = self._graph
            start, end, axis = graph.integers(0), graph.vector(self._tokens), graph.integers(0)
            cosines, sines = (
                graph.op("Slice", graph.constant(f"{rotation.name}.{kind}", table[:, None]), start, end, axis)
                for kind, table in (("cos", rotation.cosines), ("sin", rotation.sines))
            )
            self._tables[rotation.name] = cosines, sines
        return self._tables[rotation.name]

    def gelu(self, x: str) -> str:
        """See `Operators.gelu`."""
        return self._graph.op("Gelu", x, approximate="tanh")

    def scores(self, query: str, key: str) -> str:
        """See `Operators.scores`."""
        return self._graph.op("MatMul", query, self._graph.op("Transpose", key, perm=[0, 1, 3, 2]))
