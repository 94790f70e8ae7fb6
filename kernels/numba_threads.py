"""Sharing the work of one forward pass among threads, inside compiled code.

Every thread runs the whole program; the work of each stage is cut into chunks, which threads claim one by one. So
a thread that comes late finds nothing left to do and catches up, one that never comes is not missed, and no thread
waits for another but to finish a chunk that it has claimed. Who computes a chunk does not change its result.

Why not numba.prange: its workqueue layer aborts when two Python threads enter it, its OpenMP layer after a fork, and
every parallel loop costs about a second to compile.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .numba_jit import jit

if TYPE_CHECKING:
    from collections.abc import Iterator

LINE_BYTES = 64  # of a cache line: each of the two counters of a stage has one of its own
STAGE_BYTES = 2 * LINE_BYTES  # chunks claimed, chunks done

CHUNKS_PER_THREAD = 4  # enough that a thread that is held up does not hold up the others for long
SPINS = 2000  # looks at a counter, about 20 microseconds, before the waiting thread offers its core to others
YIELD = "SwitchToThread" if sys.platform == "win32" else "sched_yield"  # in every C runtime, or in kernel32


class Team(NamedTuple):
    """What a thread knows of those it works with on one forward pass.

    Numbers alone: a generator that Numba compiled never gives up the arrays that it was called with.
    """

    threads: int
    thread: int  # its number
    cursor: int  # address of an int64 of its own, which is the address of the counters of its next stage


def make_teams(threads: int, stages: int) -> tuple[list[Team], npt.NDArray[np.int64]]:
    """A team for each thread of a forward pass of that many stages, and the memory that they point into."""
    words = STAGE_BYTES // 8
    memory = np.zeros((stages + threads, words), np.int64)  # the counters of all stages, then the cursors
    memory[stages:, 0] = memory.ctypes.data
    return [Team(threads, i, memory[stages + i :].ctypes.data) for i in range(threads)], memory


@intrinsic  # type: ignore[misc]
def _fetch_add(_typing: Any, _address: int, _amount: int) -> Any:
    """Adds to the int64 at an address, as one step; returns what it was.

    A thread that sees the sum sees all that this one wrote before.
    """

    def generate(_context: Any, b: ir.IRBuilder, _signature: Any, arguments: list[ir.Value]) -> ir.Value:
        pointer = b.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return b.atomic_rmw("add", pointer, arguments[1], "acq_rel")

    return types.int64(types.int64, types.int64), generate


@intrinsic  # type: ignore[misc]
def _load(_typing: Any, _address: int) -> Any:
    """The int64 at an address; what was written before it became so is then seen, too."""

    def generate(_context: Any, b: ir.IRBuilder, _signature: Any, arguments: list[ir.Value]) -> ir.Value:
        return b.load_atomic(b.inttoptr(arguments[0], ir.IntType(64).as_pointer()), "acquire", align=8)

    return types.int64(types.int64), generate


@intrinsic  # type: ignore[misc]
def _yield_core(_typing: Any) -> Any:
    """Lets the operating system run another thread on this core."""

    def generate(_context: Any, b: ir.IRBuilder, _signature: Any, _arguments: list[ir.Value]) -> ir.Value:
        function = cgutils.get_or_insert_function(b.module, ir.FunctionType(ir.IntType(32), []), YIELD)
        return b.call(function, [])

    return types.int32(), generate


@jit
def shared(team: Team, chunks: int) -> Iterator[int]:
    """Begins a stage: gives the chunks that fall to this thread, and ends when those of all threads are done."""
    claimed = _fetch_add(team.cursor, STAGE_BYTES)
    done = claimed + LINE_BYTES
    chunk = _fetch_add(claimed, 1)
    while chunk < chunks:
        yield chunk
        _fetch_add(done, 1)
        chunk = _fetch_add(claimed, 1)
    spins = 0
    while _load(done) < chunks:
        spins += 1
        if spins > SPINS:
            _yield_core()


@jit
def shared_rows(team: Team, rows: int) -> Iterator[int]:
    """As `shared`, for rows that each are little work: a thread claims several at a time."""
    height = (rows + CHUNKS_PER_THREAD * team.threads - 1) // (CHUNKS_PER_THREAD * team.threads)
    for chunk in shared(team, (rows + height - 1) // height):
        for row in range(chunk * height, min(rows, (chunk + 1) * height)):  # noqa: UP028, Numba has no `yield from`
            yield row
