"""How the Numba backend compiles: when first called, without the GIL, and kept on disk."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numba

if TYPE_CHECKING:
    from collections.abc import Callable

Function = TypeVar("Function", bound="Callable[..., Any]")

# Division by zero gives inf, as in C; indices are in range by construction.
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "boundscheck": False}
_INNER: dict[str, Any] = {**_OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}  # a quarter less to compile


def _sources_digest() -> str:
    """Changes with any file of the Numba backend."""
    digest = 0
    for path in sorted(Path(__file__).parent.glob("numba_*.py")):
        digest = zlib.crc32(path.read_bytes(), digest)
    return f"{digest:08x}"


def jit(function: Function) -> Function:
    """Compiles `function` as part of those that call it; a call from Python would crash, for lack of a wrapper."""
    return cast("Function", numba.njit(**_INNER)(function))


def jit_reassociating(function: Function) -> Function:
    """As `jit`, but LLVM may add up in any order, which it needs to vectorise a sum.

    The order is fixed when the function is compiled and depends on the number of elements alone. That needs loops
    that do not store: for a loop that does, LLVM also compiles a scalar version, and picks by the addresses.
    """
    return cast("Function", numba.njit(**_INNER, fastmath={"reassoc", "nnan", "nsz"})(function))


def jit_cached(function: Function) -> Function:
    """Compiles a function that Python calls, and keeps the result on disk.

    It is kept in __pycache__ beside the source file, else in the user's cache folder, else for this process alone.
    Numba compiles again when the file of `function` changes, but not when one does that it calls into; so the name
    under which it looks has a digest of them all.
    """
    function.__qualname__ = f"{function.__qualname__}-{_sources_digest()}"
    try:
        return cast("Function", numba.njit(**_OPTIONS, cache=True)(function))
    except RuntimeError:  # "no locator available": nowhere to write
        return cast("Function", numba.njit(**_OPTIONS)(function))
