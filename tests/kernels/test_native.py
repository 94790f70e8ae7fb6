"""The C engine through Python: found, chosen, and let go. What it computes is in test_backends_agree.py."""

from __future__ import annotations

import gc
import importlib.metadata
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from embgemma.kernels import available_backends, create_backend
from embgemma.kernels.errors import BackendError, InputError, ModelFileError
from embgemma.kernels.model_file import ModelFile, Scheme, read_model_file
from embgemma.kernels.native import NativeBackend, instruction_sets, library_problem, load_library
from tests.kernels.changed_file import write_changed

pytestmark = pytest.mark.skipif(library_problem() is not None, reason=str(library_problem()))


@pytest.fixture
def model(small_model: Callable[[Scheme], ModelFile]) -> ModelFile:
    return small_model("balanced")


@pytest.fixture
def backend(model: ModelFile) -> NativeBackend:
    return NativeBackend(model, threads=2)


def encode(backend: NativeBackend, *lengths: int) -> np.ndarray:
    """The vectors of texts of so many tokens."""
    return backend.encode(np.arange(sum(lengths)), np.cumsum([0, *lengths]), 64, True)


def test_auto_is_native_without_a_warning(model: ModelFile) -> None:
    backend = create_backend(model, threads=2)
    assert (backend.name, backend.threads) == ("native", 2)
    assert available_backends()[0] == "native"


def test_version_is_that_of_the_package() -> None:
    library = load_library()
    assert library.text(library.c.eg_version()) == importlib.metadata.version("embgemma")


def test_default_instruction_set_is_the_best_that_is_supported(
    model: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EMBGEMMA_ISA", raising=False)
    supported = [isa.name for isa in instruction_sets() if isa.supported]
    assert supported[-1] == "scalar"
    assert NativeBackend(model).isa == supported[0]
    monkeypatch.setenv("EMBGEMMA_ISA", "scalar")
    assert NativeBackend(model).isa == "scalar"


def test_default_threads_are_cores_that_this_process_may_use(model: ModelFile) -> None:
    assert 1 <= NativeBackend(model).threads <= (os.cpu_count() or 1)


@pytest.mark.parametrize("name", ["avx1024", "scalar "])
def test_unknown_instruction_set_is_refused(model: ModelFile, name: str) -> None:
    with pytest.raises(BackendError, match="instruction set"):
        create_backend(model, isa=name)


def test_instruction_sets_that_this_cpu_lacks_are_refused(model: ModelFile) -> None:
    for isa in instruction_sets():
        if isa.supported:
            assert NativeBackend(model, isa=isa.name).isa == isa.name
        else:
            with pytest.raises(BackendError, match=isa.name):
                NativeBackend(model, isa=isa.name)


def test_too_many_threads_are_refused(model: ModelFile) -> None:
    with pytest.raises(InputError, match="threads"):
        create_backend(model, threads=100_000)
    with pytest.raises(InputError, match="threads=0; expected an integer"):
        create_backend(model, threads=0)


def test_a_file_that_changed_since_it_was_read_is_refused(model: ModelFile, tmp_path: Path) -> None:
    path = write_changed(tmp_path / "model.safetensors", model, {})
    copy = read_model_file(path)
    path.unlink()
    write_changed(path, model, {"head.scale": None})
    with pytest.raises(ModelFileError, match=r"head\.scale"):
        create_backend(copy)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists what a process has mapped")
def test_backend_keeps_the_file_and_no_longer(model: ModelFile, tmp_path: Path) -> None:
    path = write_changed(tmp_path / "model.safetensors", model, {})
    backend = NativeBackend(read_model_file(path))
    path.unlink()
    gc.collect()
    assert np.array_equal(encode(backend, 9), encode(NativeBackend(model), 9))
    assert str(path) in Path("/proc/self/maps").read_text()
    del backend
    gc.collect()
    assert str(path) not in Path("/proc/self/maps").read_text()


def test_machine_limits_are_positive(backend: NativeBackend) -> None:
    assert backend.measure_multiply_rate(0.01) > 0
    assert backend.measure_read_rate(1 << 20, 0.01) > 0


def test_scratch_memory_grows_with_the_batch(backend: NativeBackend) -> None:
    encode(backend, 4)
    small = backend.scratch_bytes
    encode(backend, 100, 100)
    assert 0 < small < backend.scratch_bytes
