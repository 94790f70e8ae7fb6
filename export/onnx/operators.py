"""The same steps for two targets: in fused operators of ONNX Runtime, or in those of the ONNX standard alone."""

from __future__ import annotations

from dataclasses import dataclass

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


class Operators:
    """The steps in which the targets differ. All values are float32; tokens is the length of texts, a scalar."""

    def __init__(self, graph: Graph, target: Target, tokens: str) -> None:
        self._graph = graph
        self._fused = target == "onnxruntime"
        self._tokens = tokens
        self._tables: dict[str, tuple[str, str]] = {}

    def norm(self, x: str, multiplier: str, eps: float) -> str:
        """RMSNorm of x (rows, width) over the last axis."""
        graph = self._graph
        if self._fused:
            return graph.op("SimplifiedLayerNormalization", x, multiplier, axis=-1, epsilon=eps)
        square = graph.op("Pow", x, graph.number(2))
        mean = graph.op("ReduceMean", square, graph.integers(-1), keepdims=1)
        root = graph.op("Sqrt", graph.op("Add", mean, graph.number(eps)))
        return graph.op("Mul", graph.op("Div", x, root), multiplier)

    def rotate(self, x: str, heads: int, rotation: Rotation) -> str:
        """Rotary embedding, rotate-half, of x (batch, tokens, heads * head_dim)."""
        graph = self._graph
        if self._fused:
            inputs = x, graph.integers(0), *self._angles(rotation)  # 0: the first position
            return graph.op("RotaryEmbedding", *inputs, domain=CONTRIB, num_heads=heads, interleaved=0)
        cosines, sines = self._angles(rotation)
        half = rotation.cosines.shape[1]
        by_half = graph.op("Reshape", x, graph.integers(0, 0, heads, 2 * half))
        first, second = graph.ops("Split", 2, by_half, axis=-1, num_outputs=2)
        turned_first = graph.op("Sub", graph.op("Mul", first, cosines), graph.op("Mul", second, sines))
        turned_second = graph.op("Add", graph.op("Mul", second, cosines), graph.op("Mul", first, sines))
        turned = graph.op("Concat", turned_first, turned_second, axis=-1)
        return graph.op("Reshape", turned, graph.integers(0, 0, heads * 2 * half))

    def _angles(self, rotation: Rotation) -> tuple[str, str]:
        """The cosines and sines: of all positions, or (tokens, 1, head_dim / 2) of those that the texts have."""
        if rotation.name not in self._tables:
            graph, tables = self._graph, {"cos": rotation.cosines, "sin": rotation.sines}
            if self._fused:
                cosines, sines = (graph.constant(f"{rotation.name}.{kind}", table) for kind, table in tables.items())
            else:
                start, end = graph.integers(0), graph.vector(self._tokens)
                cosines, sines = (
                    graph.op("Slice", graph.constant(f"{rotation.name}.{kind}", table[:, None]), start, end, start)
                    for kind, table in tables.items()
                )
            self._tables[rotation.name] = cosines, sines
        return self._tables[rotation.name]

    def gelu(self, x: str) -> str:
        """GELU by its tanh approximation."""
        if self._fused:
            return self._graph.op("FastGelu", x, domain=CONTRIB)
        return self._graph.op("Gelu", x, approximate="tanh")

    def scores(self, query: str, key: str) -> str:
        """query (..., rows, head_dim) by key (..., keys, head_dim): (..., rows, keys)."""
        if self._fused:
            return self._graph.op("FusedMatMul", query, key, domain=CONTRIB, transB=1)
        return self._graph.op("MatMul", query, self._graph.op("Transpose", key, perm=[0, 1, 3, 2]))
