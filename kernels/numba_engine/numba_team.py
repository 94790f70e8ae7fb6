"""How the Numba backend is compiled, and how threads share the work of one forward pass inside compiled code.

Every thread runs the whole program; the work of each step is cut into parts, which threads claim one by one. So a late
thread finds nothing left to do, a missing one is not waited for, and who computes a part does not change its result.
numba.prange aborts when two Python threads enter it, or after a fork, depending on its threading layer.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

# Without the GIL; division by zero gives inf, as in C; indices are in range by construction.
OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "boundscheck": False}
# For calls from compiled code alone, which takes a quarter less to compile.
jit = numba.njit(**OPTIONS, no_cpython_wrapper=True, no_cfunc_wrapper=True)
# As jit, for sums, which LLVM vectorises only if it may add up in any order. The order depends on the number of terms
# alone, if no loop stores: for one that does, LLVM also compiles a scalar version, and picks by the addresses.
jit_sum = numba.njit(**OPTIONS, no_cpython_wrapper=True, no_cfunc_wrapper=True, fastmath={"reassoc", "nsz"})

COUNTER_BYTES = 64  # a cache line for each of the two counters of a step: parts claimed, items done
PARTS_PER_THREAD = 4  # enough that a thread that is held up does not hold up the others for long
SPINS = 2000  # looks at a counter, about 20 microseconds, before the waiting thread offers its core to others
# In every C runtime, or in kernel32: lets the operating system run another thread on this core.
yield_core = types.ExternalFunction("SwitchToThread" if sys.platform == "win32" else "sched_yield", types.int32())

# What a thread knows of those it works with: how many they are, its own number, and the address of an int64 of its own,
# which is the address of the counters of its next step. A compiled generator would never free arrays.
Team = tuple[int, int, int]


def make_teams(threads: int, steps: int) -> tuple[list[Team], npt.NDArray[np.int64]]:
    """A team for each thread of a forward pass of that many steps, and the memory that they point into."""
    memory = np.zeros((steps + threads, 2 * COUNTER_BYTES // 8), np.int64)  # counters of the steps, then cursors
    memory[steps:, 0] = memory.ctypes.data
    return [(threads, i, memory[steps + i :].ctypes.data) for i in range(threads)], memory


@intrinsic  # type: ignore[misc]
def fetch_add(_typing: Any, _address: int, _amount: int) -> Any:
    """Adds to the int64 at an address, as one step; returns what it was. Who sees the sum sees all written before."""

    def generate(_context: Any, b: ir.IRBuilder, _signature: Any, arguments: list[ir.Value]) -> ir.Value:
        return b.atomic_rmw("add", b.inttoptr(arguments[0], arguments[1].type.as_pointer()), arguments[1], "acq_rel")

    return types.int64(types.int64, types.int64), generate


@jit
def parts(team: Team, count: int) -> Iterator[tuple[int, int]]:
    """A step over 0 … count - 1: gives (first, last) of the parts that this thread claims; ends when all are done."""
    threads, _thread, cursor = team
    size = -(-count // (PARTS_PER_THREAD * threads))
    claimed = fetch_add(cursor, 2 * COUNTER_BYTES)
    done = claimed + COUNTER_BYTES
    first = size * fetch_add(claimed, 1)
    while first < count:
        yield first, min(first + size, count)
        fetch_add(done, size)
        first = size * fetch_add(claimed, 1)
    spins = 0
    while fetch_add(done, 0) < count:
        spins += 1
        if spins > SPINS:
            yield_core()
