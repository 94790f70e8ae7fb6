"""The C engine through Python: found, faithful to the reference, and safe with threads, forks and wrong input."""

from __future__ import annotations

import gc
import importlib.metadata
import itertools
import os
import signal
import threading
import weakref
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from embgemma.kernels import Backend, available_backends, create_backend
from embgemma.kernels.config import EncoderConfig
from embgemma.kernels.errors import BackendError, InputError, ModelFileError
from embgemma.kernels.layout import Tensor
from embgemma.kernels.model_file import ModelFile, Scheme
from embgemma.kernels.native import NativeBackend, instruction_sets, library_problem, library_version

pytestmark = pytest.mark.skipif(library_problem() is not None, reason=str(library_problem()))

Model = Callable[[Scheme], ModelFile]
Batch = tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]

ALIGNMENT = 64
# Least cosine to the reference. On these weights a window off by one makes 0.998, swapped q_norms 0.9994; bfloat16
# attention, which some instruction sets have, and int8 codes at rounding ties make 0.9997 at worst.
LEAST_COSINE: dict[Scheme, float] = {"float32": 0.9999, "int8": 0.999, "mixed": 0.999, "int4": 0.999}
CHILD_DEADLINE = 60  # seconds: a child that waits for threads it does not have never ends


def batch_of(config: EncoderConfig, *lengths: int) -> Batch:
    """Random texts of these lengths in tokens."""
    random = np.random.default_rng(sum(lengths))
    ids = random.integers(0, config.vocab, sum(lengths)).astype(np.int32)
    return ids, np.cumsum([0, *lengths])


def aligned_copy(tensor: Tensor) -> Tensor:
    """A copy at a 64-byte boundary, where the engine wants tensors."""
    memory = np.empty(tensor.nbytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    copy = memory[start : start + tensor.nbytes].view(tensor.dtype).reshape(tensor.shape)
    copy[...] = tensor
    return copy


@pytest.fixture
def model(small_model: Model) -> ModelFile:
    return small_model("mixed")


@pytest.fixture
def backend(model: ModelFile) -> NativeBackend:
    return NativeBackend(model.config, model.tensors, threads=2)


def test_auto_is_native_without_a_warning(model: ModelFile) -> None:
    backend = create_backend(model.config, model.tensors, threads=2)
    assert (backend.name, backend.threads) == ("native", 2)
    assert available_backends()[0] == "native"


def test_version_is_that_of_the_package() -> None:
    assert library_version() == importlib.metadata.version("embgemma")


def test_default_instruction_set_is_the_best_that_is_supported(
    model: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EMBGEMMA_ISA", raising=False)
    supported = [isa.name for isa in instruction_sets() if isa.supported]
    assert supported[-1] == "scalar"
    assert NativeBackend(model.config, model.tensors).isa == supported[0]
    monkeypatch.setenv("EMBGEMMA_ISA", "scalar")
    assert NativeBackend(model.config, model.tensors).isa == "scalar"


def test_default_threads_are_cores_that_this_process_may_use(model: ModelFile) -> None:
    assert 1 <= NativeBackend(model.config, model.tensors).threads <= (os.cpu_count() or 1)


@pytest.mark.parametrize("name", ["avx1024", "scalar "])
def test_unknown_instruction_set_is_refused(model: ModelFile, name: str) -> None:
    with pytest.raises(BackendError, match="instruction set"):
        create_backend(model.config, model.tensors, isa=name)


@pytest.mark.parametrize("isa", [isa.name for isa in instruction_sets()] if library_problem() is None else [])
@pytest.mark.parametrize("scheme", LEAST_COSINE)
def test_agrees_with_the_reference(small_model: Model, scheme: Scheme, isa: str) -> None:
    model = small_model(scheme)
    if isa not in {entry.name for entry in instruction_sets() if entry.supported}:
        with pytest.raises(BackendError, match=isa):
            NativeBackend(model.config, model.tensors, isa=isa)
        pytest.skip(f"this CPU lacks {isa}")
    ids, offsets = batch_of(model.config, 1, 17, 40, model.config.max_tokens)
    expected = create_backend(model.config, model.tensors, backend="reference").encode(ids, offsets, 64, True)
    found = NativeBackend(model.config, model.tensors, isa=isa).encode(ids, offsets, 64, True)
    assert np.min(np.sum(expected * found, axis=1)) > LEAST_COSINE[scheme]


def test_no_texts_give_no_vectors(backend: NativeBackend) -> None:
    vectors = backend.encode(np.empty(0, np.int32), np.zeros(1, np.int64), 128, True)
    assert vectors.shape == (0, 128)
    assert vectors.dtype == np.float32


@pytest.mark.parametrize(
    ("ids", "offsets", "dim", "message"),
    [
        ([2, 600, 1], [0, 3], 64, "token 1 has id 600; expected 0 to 511"),
        ([2, -1, 1], [0, 3], 64, "token 1 has id -1"),
        ([2, 2**40, 1], [0, 3], 64, "token 1 has id 1099511627776"),
        ([2] * 129, [0, 129], 64, "text 0 has 129 tokens; expected 1 to 128"),
        ([2, 1], [0, 2, 2], 64, "text 1 has 0 tokens"),
        ([2, 1], [0, 2, 1, 2], 64, "text 1 has -1 tokens"),
        ([2, 1], [0, 3], 64, "end with 2"),
        ([2, 1], [], 64, "end with 2"),
        ([[2, 1]], [0, 2], 64, r"shape \(1, 2\)"),
        ([2.0, 1.0], [0, 2], 64, "type float64"),
        ([2, 1], [0, 2], 0, "an embedding size of 0"),
        ([2, 1], [0, 2], 193, "an embedding size of 193 was asked for; expected 1 to 192"),
    ],
)
def test_wrong_batches_are_refused(
    backend: NativeBackend, ids: list[int], offsets: list[int], dim: int, message: str
) -> None:
    starts = np.array(offsets, np.int64)
    with pytest.raises(InputError, match=message):
        backend.encode(np.array(ids), starts, dim, True)


def test_wrong_tensors_are_refused(model: ModelFile) -> None:
    name = "layers.1.down.weight"
    good = model.tensors[name]
    wrong: dict[str, Tensor] = {
        "type float64": good.astype(np.float64),
        "strides": np.asfortranarray(good),
        "down": good[:-1],
    }
    for message, tensor in wrong.items():
        with pytest.raises(ModelFileError, match=message):
            NativeBackend(model.config, {**model.tensors, name: tensor})
    with pytest.raises(ModelFileError, match=name):
        NativeBackend(model.config, {key: value for key, value in model.tensors.items() if key != name})


def test_too_many_threads_are_refused(model: ModelFile) -> None:
    with pytest.raises(InputError, match="threads"):
        create_backend(model.config, model.tensors, threads=100_000)
    with pytest.raises(InputError, match="threads=0; expected an integer"):
        create_backend(model.config, model.tensors, threads=0)


def test_backend_keeps_its_tensors_alive_and_no_longer(model: ModelFile) -> None:
    copies = {name: aligned_copy(tensor) for name, tensor in model.tensors.items()}
    batch = batch_of(model.config, 9)
    expected = NativeBackend(model.config, model.tensors).encode(*batch, 64, True)
    watched = weakref.ref(copies["head.weight"])
    backend = NativeBackend(model.config, copies)
    del copies
    gc.collect()
    assert np.array_equal(backend.encode(*batch, 64, True), expected)
    assert watched() is not None
    del backend
    gc.collect()
    assert watched() is None


def test_calls_from_many_threads_do_not_disturb_each_other(backend: NativeBackend) -> None:
    config = backend._config
    batches = [batch_of(config, length, length // 2) for length in range(2, 34)]
    expected = [backend.encode(*batch, 192, True) for batch in batches]
    found: dict[int, npt.NDArray[np.float32]] = {}

    def encode(start: int) -> None:
        for i in range(start, len(batches), 4):
            found[i] = backend.encode(*batches[i], 192, True)

    threads = [threading.Thread(target=encode, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(found[i], vectors) for i, vectors in enumerate(expected))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_encodes_and_ends(backend: NativeBackend) -> None:
    batch = batch_of(backend._config, 30, 5)
    expected = backend.encode(*batch, 192, True)
    child = os.fork()
    if child == 0:
        signal.alarm(CHILD_DEADLINE)
        same = False
        try:
            same = np.array_equal(backend.encode(*batch, 192, True), expected)
            del backend
            gc.collect()
        finally:
            os._exit(0 if same else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert np.array_equal(backend.encode(*batch, 192, True), expected)


def test_machine_limits_are_positive(backend: NativeBackend) -> None:
    assert backend.measure_multiply_rate(0.01) > 0
    assert backend.measure_read_rate(1 << 20, 0.01) > 0


def test_scratch_memory_grows_with_the_batch(backend: NativeBackend) -> None:
    backend.encode(*batch_of(backend._config, 4), 64, True)
    small = backend.scratch_bytes
    backend.encode(*batch_of(backend._config, 100, 100), 64, True)
    assert 0 < small < backend.scratch_bytes


def test_same_bits_in_any_company(backend: Backend, model: ModelFile) -> None:
    lengths = (1, 5, 16, 33, 64, 128)
    ids, offsets = batch_of(model.config, *lengths)
    together = backend.encode(ids, offsets, 192, True)
    texts = [ids[start:end] for start, end in itertools.pairwise(offsets)]
    one_thread = NativeBackend(model.config, model.tensors, threads=1)
    for text, expected in zip(texts, together, strict=True):
        alone = one_thread.encode(text, np.array([0, len(text)]), 192, True)
        assert np.array_equal(alone[0], expected)
