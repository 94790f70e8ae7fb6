"""The Numba backend: its stages, memory, and compiled code that is kept."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from embgemma.kernels import create_backend
from embgemma.kernels.errors import InputError
from embgemma.kernels.model_file import ModelFile, Scheme
from tests.processes import PYTHON, run

pytest.importorskip("numba")

from embgemma.kernels.numba_engine import numba_backend
from embgemma.kernels.numba_engine.numba_backend import NumbaBackend
from embgemma.kernels.numba_engine.numba_team import COUNTER_BYTES, make_teams


@pytest.fixture
def model(small_model: Callable[[Scheme], ModelFile]) -> ModelFile:
    return small_model("balanced")


@pytest.fixture
def backend(model: ModelFile) -> NumbaBackend:
    return NumbaBackend(model.config, model.tensors, threads=2)


def batch_of(*lengths: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    random = np.random.default_rng(sum(lengths))
    return random.integers(0, 512, sum(lengths)).astype(np.int32), np.cumsum([0, *lengths])


def test_names(backend: NumbaBackend) -> None:
    assert (backend.name, backend.threads) == ("numba", 2)
    assert backend.isa.startswith("llvm ")


@pytest.mark.parametrize("threads", [0, 257])
def test_absurd_numbers_of_threads_are_refused(model: ModelFile, threads: int) -> None:
    with pytest.raises(InputError, match=f"threads={threads}"):
        create_backend(model, backend="numba", threads=threads)


def test_as_many_steps_as_there_are_counters(backend: NumbaBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, npt.NDArray[np.int64]]] = []

    def record(threads: int, steps: int) -> Any:
        teams, memory = make_teams(threads, steps)
        made.append((steps, memory))
        return teams, memory

    monkeypatch.setattr(numba_backend, "make_teams", record)
    backend.encode(*batch_of(40), 192, True)
    ((steps, memory),) = made
    assert memory[steps, 0] == memory.ctypes.data + steps * 2 * COUNTER_BYTES
    assert np.all(memory[:steps, [0, 8]] > 0)  # parts claimed, and items done


def test_texts_beyond_one_group_have_the_bits_they_have_alone(
    backend: NumbaBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, offsets = batch_of(*range(1, 60))
    expected = backend.encode(ids, offsets, 192, True)
    monkeypatch.setattr(numba_backend, "GROUP_TOKENS", 50)
    assert np.array_equal(backend.encode(ids, offsets, 192, True), expected)


def test_backend_keeps_its_tensors_alive_and_no_longer(model: ModelFile) -> None:
    copies = {name: tensor.copy() for name, tensor in model.tensors.items()}
    batch = batch_of(9)
    expected = NumbaBackend(model.config, model.tensors).encode(*batch, 64, True)
    watched = weakref.ref(copies["head.weight"])
    backend = NumbaBackend(model.config, copies)
    del copies
    gc.collect()
    assert np.array_equal(backend.encode(*batch, 64, True), expected)
    assert watched() is not None
    del backend
    gc.collect()
    assert watched() is None


def test_tensors_need_neither_alignment_nor_order(model: ModelFile, backend: NumbaBackend) -> None:
    def awkward(tensor: npt.NDArray[Any]) -> npt.NDArray[Any]:
        memory = np.empty(tensor.nbytes + 4, np.uint8)
        copy = memory[4:].view(tensor.dtype).reshape(tensor.shape)
        copy[...] = tensor
        return np.asfortranarray(copy) if tensor.dtype == np.float32 and tensor.ndim > 1 else copy

    awkward_tensors = {name: awkward(tensor) for name, tensor in model.tensors.items()}
    batch = batch_of(20, 41)
    found = NumbaBackend(model.config, awkward_tensors).encode(*batch, 192, True)
    assert np.array_equal(found, backend.encode(*batch, 192, True))


def test_compiled_code_is_kept_and_found_again(model: ModelFile, tmp_path: Path) -> None:
    script = (
        "import numpy, sys; from embgemma.kernels.model_file import read_model_file; "
        "from embgemma.kernels import create_backend; from embgemma.kernels.numba_engine import numba_forward; "
        "file = read_model_file(sys.argv[1]); backend = create_backend(file, backend='numba'); "
        "backend.encode(numpy.array([2, 1]), numpy.array([0, 2]), 64, True); "
        "print(sum(numba_forward.forward.stats.cache_hits.values()))"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    for hits in ("0", "1"):
        done = run(PYTHON, "-c", script, model.path, env=environment, capture_output=True, text=True)
        assert done.stdout.strip() == hits


def test_nothing_is_imported_until_it_is_asked_for() -> None:
    script = "import sys, embgemma, embgemma.kernels; sys.exit('numba' in sys.modules or 'llvmlite' in sys.modules)"
    run(PYTHON, "-c", script)
