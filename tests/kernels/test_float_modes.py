"""A program that rounds floats its own way gets the same vectors of the C engine, and an error of other backends."""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from embgemma.kernels import available_backends, create_backend
from embgemma.kernels.errors import BackendError
from embgemma.kernels.model_file import ModelFile, Scheme, read_model_file
from embgemma.kernels.native import instruction_sets, library_problem

X86 = platform.machine() == "x86_64"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the numbers of the modes are those of Linux")

NEAREST = 0
UNIT = 0x400 if X86 else 1 << 22  # of the two bits of the mode
MODES = {"upward": 2 * UNIT if X86 else UNIT, "downward": UNIT if X86 else 2 * UNIT, "to zero": 3 * UNIT}
TRAPS = 0x1 | 0x4 | 0x8 if X86 else 0x1 | 0x2 | 0x4  # invalid, division by zero, overflow
NATIVE = [] if library_problem() is not None else [isa.name for isa in instruction_sets() if isa.supported]

IDS, OFFSETS = np.arange(2, 62, dtype=np.int32), np.array([0, 3, 60])


@contextmanager
def rounding(mode: int) -> Iterator[None]:
    libm = ctypes.CDLL("libm.so.6")
    assert libm.fesetround(mode) == 0
    try:
        yield
        assert libm.fegetround() == mode
    finally:
        libm.fesetround(NEAREST)


@pytest.fixture
def model(small_model: Callable[[Scheme], ModelFile]) -> ModelFile:
    return small_model("balanced")


@pytest.mark.parametrize("isa", NATIVE)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("mode", MODES)
def test_the_engine_gives_the_same_bits(model: ModelFile, isa: str, threads: int, mode: str) -> None:
    expected = create_backend(model, backend="native", isa=isa).encode(IDS, OFFSETS, 64, True)
    with rounding(MODES[mode]):
        backend = create_backend(read_model_file(model.path), backend="native", isa=isa, threads=threads)
        found = [backend.encode(IDS, OFFSETS, 64, True) for _ in range(3)]
    found.append(backend.encode(IDS, OFFSETS, 64, True))
    assert all(np.array_equal(vectors, expected) for vectors in found)


@pytest.mark.parametrize("isa", NATIVE[:1])
def test_the_engine_raises_no_signal_where_exceptions_trap(model: ModelFile, isa: str) -> None:
    backend = create_backend(model, backend="native", isa=isa, threads=2)
    expected = backend.encode(IDS, OFFSETS, 64, True)
    libm = ctypes.CDLL("libm.so.6")
    before = libm.feenableexcept(TRAPS)
    try:
        found = backend.encode(IDS, OFFSETS, 64, True)
        assert libm.fegetexcept() == before | TRAPS
    finally:
        libm.fedisableexcept(TRAPS)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("backend", ["numba", "reference"])
@pytest.mark.parametrize("mode", MODES)
def test_other_backends_refuse(model: ModelFile, backend: str, mode: str) -> None:
    if backend not in available_backends():
        pytest.skip(f"backend {backend} is not available here")
    opened = create_backend(model, backend=backend, threads=1)
    expected = opened.encode(IDS, OFFSETS, 64, True)
    with rounding(MODES[mode]), pytest.raises(BackendError, match="does not round to the nearest"):
        opened.encode(IDS, OFFSETS, 64, True)
    assert np.array_equal(opened.encode(IDS, OFFSETS, 64, True), expected)
