"""A graph under construction: operations and constants, added in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper

Array: TypeAlias = npt.NDArray[Any]

CONTRIB = "com.microsoft"  # the domain of ONNX Runtime's own operators

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL

_SMALL_CONSTANT = 64  # elements up to which equal constants are stored once


@dataclass(frozen=True)
class Constant:
    """A tensor of the file; `parts` gives its rows from the first to the last, in one piece or in several.

    Attributes:
        name: of the value in the graph.
        onnx_type: one of TensorProto's.
        shape: as the graph sees it.
        size_bytes: of all parts together.
        parts: gives the bytes, anew each time.
    """

    name: str
    onnx_type: int
    shape: tuple[int, ...]
    size_bytes: int
    parts: Callable[[], Iterator[Array]]


@dataclass
class Graph:
    """Operations and constants so far. Values are known by their names, which begin with the prefix."""

    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, Constant] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)
    prefix: str = ""
    _small: dict[tuple[Any, ...], str] = field(default_factory=dict)

    def op(self, kind: str, *inputs: str, name: str = "", domain: str = "", **attributes: Any) -> str:
        """Adds an operation with one output, whose name it gives. An input that is left out is ""."""
        return self.ops(kind, 1, *inputs, name=name, domain=domain, **attributes)[0]

    def ops(
        self, kind: str, outputs: int, *inputs: str, name: str = "", domain: str = "", **attributes: Any
    ) -> list[str]:
        """Adds an operation with several outputs, whose names it gives; its own is of its kind unless one is given."""
        name = self.prefix + (name or f"{kind}_{len(self.nodes)}")
        values = [name if outputs == 1 else f"{name}.{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), values, name=name, domain=domain, **attributes))
        return values

    def name_output(self, value: str, output: str) -> None:
        """Makes a value an output of the model."""
        self.outputs.append(output)
        self.nodes.append(helper.make_node("Identity", [value], [output], name=f"{self.prefix}{output}"))

    def constant(self, name: str, value: Array) -> str:
        """Adds a constant under this name, and gives the name."""
        value = np.ascontiguousarray(value).reshape(value.shape)  # the former makes a scalar a vector
        onnx_type = helper.np_dtype_to_tensor_dtype(value.dtype)
        return self.add(Constant(name, onnx_type, value.shape, value.nbytes, lambda: iter([value])))

    def nibbles(self, name: str, codes: Array) -> str:
        """Adds codes 0 … 15, an even number of them in each row, as a constant of four-bit integers."""
        packed = packed_nibbles(codes)
        return self.add(Constant(name, TensorProto.UINT4, codes.shape, packed.nbytes, lambda: iter([packed])))

    def add(self, constant: Constant) -> str:
        """Adds a constant, and gives its name."""
        if constant.name in self.constants:
            raise ValueError(f"constant {constant.name!r} is there already")
        self.constants[constant.name] = constant
        return constant.name

    def small(self, value: Any, dtype: npt.DTypeLike) -> str:
        """A scalar or short vector, stored once however often it is asked for."""
        array = np.asarray(value, dtype)
        if array.size > _SMALL_CONSTANT:
            raise ValueError(f"a constant of shape {array.shape} is not small")
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._small:
            self._small[key] = self.constant(f"{self.prefix}constant_{len(self._small)}", array)
        return self._small[key]

    def integer(self, value: int) -> str:
        """An int64 scalar."""
        return self.small(value, np.int64)

    def integers(self, *values: int) -> str:
        """An int64 vector."""
        return self.small(values, np.int64)

    def number(self, value: float) -> str:
        """A float32 scalar."""
        return self.small(value, np.float32)

    def cast(self, value: str, onnx_type: int) -> str:
        """The value converted, element by element."""
        return self.op("Cast", value, to=onnx_type)

    def vector(self, *scalars: str) -> str:
        """An int64 vector of int64 scalars or vectors of one element: a shape."""
        parts = [self.op("Reshape", scalar, self.integers(1)) for scalar in scalars]
        return self.op("Concat", *parts, axis=0)


def packed_nibbles(codes: Array) -> Array:
    """Codes 0 … 15 (..., n), n even, two in a byte, the first in the low half: (..., n / 2) uint8."""
    return np.asarray(codes[..., 0::2] | codes[..., 1::2] << 4)
