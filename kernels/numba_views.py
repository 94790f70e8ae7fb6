"""Memory as compiled code sees it: addresses, and views of it that are as cheap as pointers in C.

Arrays that are passed to compiled functions, in tuples above all, have their references counted at every step (norm
and quantisation of a row took three times as long), and for x[row, start + i] LLVM cannot see that the index is not
negative, compiles Python's rule that x[-1] is the last element into every access, and gives up on vector code
(softmax took four times as long). So compiled code gets addresses, and makes a view where it needs one: an array that
counts nothing, and that a loop over range(len(view)) runs through. The caller of compiled code keeps the memory alive.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import carray
from numba.core import types
from numba.extending import intrinsic

from .numba_jit import jit

F32 = npt.NDArray[np.float32]
I8 = npt.NDArray[np.int8]
I64 = npt.NDArray[np.int64]


class Rows(NamedTuple):
    """Where the rows of a matrix lie; each is contiguous."""

    address: int
    stride: int  # bytes from one row to the next


def rows_of(array: npt.NDArray[Any]) -> Rows:
    """The rows along the first axis of an array, of which the others are contiguous."""
    return Rows(array.ctypes.data, array.strides[0])


def _pointer_to(element: types.Type) -> Any:
    """What an intrinsic that makes an address a pointer consists of: its signature and its code generator."""

    def generate(context: Any, b: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> ir.Value:
        return b.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    pointer: Any = types.CPointer(element)  # type: ignore[attr-defined]
    return pointer(types.intp), generate


@intrinsic  # type: ignore[misc]
def _pointer_f32(_typing: Any, _address: int) -> Any:
    return _pointer_to(types.float32)


@intrinsic  # type: ignore[misc]
def _pointer_i8(_typing: Any, _address: int) -> Any:
    return _pointer_to(types.int8)


@intrinsic  # type: ignore[misc]
def _pointer_i32(_typing: Any, _address: int) -> Any:
    return _pointer_to(types.int32)


@intrinsic  # type: ignore[misc]
def _pointer_i64(_typing: Any, _address: int) -> Any:
    return _pointer_to(types.int64)


@jit
def f32(rows: Rows, row: int, start: int, count: int) -> Any:
    """float32 numbers start … start + count - 1 of a row."""
    return carray(_pointer_f32(rows.address + row * rows.stride + 4 * start), (count,))


@jit
def i8(rows: Rows, row: int, count: int) -> Any:
    """The first `count` int8 numbers of a row."""
    return carray(_pointer_i8(rows.address + row * rows.stride), (count,))


@jit
def i64_at(address: int, i: int) -> Any:
    """Number i of the int64 numbers at an address."""
    return carray(_pointer_i64(address + 8 * i), (1,))[0]


@jit
def set_f32(address: int, i: int, value: Any) -> None:
    """Sets number i of the float32 numbers at an address."""
    carray(_pointer_f32(address + 4 * i), (1,))[0] = value


@jit
def set_i32(address: int, i: int, value: Any) -> None:
    """Sets number i of the int32 numbers at an address."""
    carray(_pointer_i32(address + 4 * i), (1,))[0] = value
