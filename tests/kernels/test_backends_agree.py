"""Every backend, and every instruction set of the C engine that this CPU has, against the float64 reference."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from embgemma.kernels import Backend, available_backends, create_backend
from embgemma.kernels.errors import InputError
from embgemma.kernels.layout import matrices
from embgemma.kernels.model_file import SCHEMES, ModelFile, Scheme, read_model_file
from embgemma.kernels.native import instruction_sets, library_problem
from embgemma.kernels.reference import ReferenceBackend
from tests.conftest import SMALL_CONFIG, synthetic_models
from tests.kernels.changed_file import write_changed
from tests.processes import true_in_fork

# Three query heads to each of two key/value heads, and a window that most texts below are longer than.
CONFIG = replace(SMALL_CONFIG, heads=6, kv_heads=2, window=5, full_attention_layers=(1,))
# In tokens: within the window, at its edge and past it, and around the sizes of tiles and blocks.
LENGTHS = (1, 2, 5, 6, 7, 11, 12, 15, 16, 17, 31, 32, 33, 48, 64, 65, 127, 128)

# A sum of k products in float32 is off by k * eps at worst; the relative errors of matrices that follow each other add.
FLOAT_TOLERANCE = float(np.finfo(np.float32).eps) * sum(spec.in_features for spec in matrices(CONFIG))

# With integer matrices, float32 noise rounds some int8 codes the other way. That moves an embedding by no more than
# rounding to int8 itself does: a part of the codes is wrong by one step, where rounding has all wrong by up to a half.
# Most instruction sets have 16 bits in attention, which turns the codes behind it about as much once more.
ROUNDINGS = dict.fromkeys(("amx", "avx512vbmi", "avx512vnni", "avxvnni", "avx2", "i8mm", "neondot"), 2)

NATIVE = [] if library_problem() is not None else [isa.name for isa in instruction_sets() if isa.supported]
Choice = tuple[str, str | None]  # name and instruction set
CHOICES: list[Choice] = [("numba", None), *(("native", name) for name in NATIVE), ("reference", None)]

CHILD_LIMIT = 600  # seconds: a child that waits for threads it does not have never ends

Vectors = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Scheme], ModelFile]:
    return synthetic_models(tmp_path_factory.mktemp("models"), CONFIG)


@pytest.fixture(params=CHOICES, ids=lambda choice: "-".join(filter(None, choice)))
def choice(request: pytest.FixtureRequest) -> Choice:
    name, isa = request.param
    if name not in available_backends():
        pytest.skip(f"backend {name} is not available here")
    return name, isa


@pytest.fixture
def tested(choice: Choice) -> Choice:
    """Any but the reference."""
    if choice[0] == "reference":
        pytest.skip("the reference is what others are compared with")
    return choice


def bind(model: ModelFile, choice: Choice, threads: int = 2) -> Backend:
    name, isa = choice
    return create_backend(model, backend=name, isa=isa, threads=threads)


@cache
def texts() -> tuple[npt.NDArray[np.int32], ...]:
    random = np.random.default_rng(0)
    return tuple(random.integers(0, CONFIG.vocab, length).astype(np.int32) for length in LENGTHS)


def encode(backend: Backend, batch: Any, dim: int = CONFIG.hidden, normalize: bool = True) -> Vectors:
    offsets = np.cumsum([0, *map(len, batch)])
    return backend.encode(np.concatenate(batch), offsets, dim, normalize)


def distance(a: Vectors, b: Vectors) -> npt.NDArray[np.float64]:
    """Between vectors of length 1, of each text."""
    return np.asarray(np.linalg.norm(a.astype(np.float64) - b.astype(np.float64), axis=1))


@pytest.fixture(scope="module")
def expected(model: Callable[[Scheme], ModelFile]) -> Callable[[Scheme], tuple[Vectors, float]]:
    """What the reference gives in a scheme, and how far rounding activations to int8 moved it."""

    @cache
    def compute(scheme: Scheme) -> tuple[Vectors, float]:
        tensors = model(scheme).tensors
        vectors = encode(ReferenceBackend(CONFIG, tensors), texts())
        unrounded = encode(ReferenceBackend(CONFIG, tensors, quantize_activations=False), texts())
        return vectors, float(np.max(distance(vectors, unrounded)))

    return compute


@pytest.fixture(scope="module")
def together(model: Callable[[Scheme], ModelFile]) -> Callable[[Scheme, Choice], Vectors]:
    """What two threads of a backend give for all texts in one batch."""
    return cache(lambda scheme, choice: encode(bind(model(scheme), choice), texts()))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_embeddings_are_those_of_the_reference(
    together: Callable[[Scheme, Choice], Vectors],
    expected: Callable[[Scheme], tuple[Vectors, float]],
    scheme: Any,
    tested: Choice,
) -> None:
    vectors, rounding = expected(scheme)
    found = together(scheme, tested)
    assert np.allclose(np.linalg.norm(found.astype(np.float64), axis=1), 1, rtol=0, atol=1e-6)
    assert np.max(distance(found, vectors)) <= FLOAT_TOLERANCE + ROUNDINGS.get(tested[1] or "", 1) * rounding


def test_a_wrong_window_would_be_seen(model: Callable[[Scheme], ModelFile]) -> None:
    """The tolerance above is not so wide that it hides a mistake."""
    file = model("float32")
    wrong = replace(CONFIG, window=CONFIG.window + 1)
    long = [text for text in texts() if len(text) > CONFIG.window + 1]
    moved = distance(
        encode(ReferenceBackend(CONFIG, file.tensors), long), encode(ReferenceBackend(wrong, file.tensors), long)
    )
    assert np.min(moved) > FLOAT_TOLERANCE


@pytest.mark.parametrize("scheme", SCHEMES)
def test_same_bits_in_any_batch_order_and_number_of_threads(
    model: Callable[[Scheme], ModelFile], together: Callable[[Scheme, Choice], Vectors], scheme: Any, choice: Choice
) -> None:
    file, expected = model(scheme), together(scheme, choice)
    backend = bind(file, choice, threads=2)
    order = np.random.default_rng(1).permutation(len(LENGTHS))
    assert np.array_equal(encode(backend, [texts()[i] for i in order]), expected[order])
    assert np.array_equal(encode(bind(file, choice, threads=1), texts()), expected)
    for i in range(0, len(LENGTHS), 3):
        assert np.array_equal(encode(backend, texts()[i : i + 1])[0], expected[i])


def test_shorter_embeddings_are_the_first_values(model: Callable[[Scheme], ModelFile], choice: Choice) -> None:
    backend = bind(model("int8"), choice)
    some = texts()[3:8]
    full = encode(backend, some, normalize=False)
    for dim in (1, 15, 16, 17, 32, 33, 64, 191):
        short = encode(backend, some, dim, normalize=False)
        assert np.array_equal(short, full[:, :dim])
        unit = encode(backend, some, dim, normalize=True)
        # Two roundings a value; the length is a sum of dim squares, of which half the error stays.
        lengths = np.linalg.norm(short.astype(np.float64), axis=1, keepdims=True)
        assert np.allclose(unit, short / lengths, rtol=(dim / 2 + 2) * np.finfo(np.float32).eps, atol=0)


def test_vectors_are_made_of_the_states_of_tokens(model: Callable[[Scheme], ModelFile], choice: Choice) -> None:
    backend, head = bind(model("float32"), choice), ReferenceBackend(CONFIG, model("float32").tensors)
    states = backend.encode_tokens(np.concatenate(texts()), np.cumsum([0, *LENGTHS]))
    assert states.shape == (sum(LENGTHS), CONFIG.hidden)
    assert states.dtype == np.float32
    parts = np.split(states.astype(np.float64), np.cumsum(LENGTHS)[:-1])
    vectors = head.linear("head", np.stack([part.mean(axis=0) for part in parts]))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert np.max(distance(vectors.astype(np.float32), encode(backend, texts()))) <= FLOAT_TOLERANCE
    for text, part in list(zip(texts(), parts, strict=True))[::5]:
        assert np.array_equal(backend.encode_tokens(text, np.array([0, len(text)])), part)
    with pytest.raises(InputError, match="text 0 has 0 tokens"):
        backend.encode_tokens(text, np.array([0, 0, len(text)]))


WRONG_BATCHES: dict[str, tuple[Any, Any, int, str]] = {
    "id too large": ([2, CONFIG.vocab], [0, 2], 64, "text 0 has id 512 at token 1; expected 0 to 511"),
    "id negative": ([-1, 1], [0, 2], 64, "text 0 has id -1 at token 0"),
    "id beyond int32": ([2, 2**40, 1], [0, 3], 64, "text 0 has id 1099511627776 at token 1"),
    "empty text": ([2, 1], [0, 2, 2], 64, "text 1 has 0 tokens"),
    "offsets descend": ([2, 1], [0, 2, 1, 2], 64, "text 1 has -1 tokens"),
    "too long": ([1] * 129, [0, 129], 64, "text 0 has 129 tokens; expected 1 to 128"),
    "ids not integers": (np.array([2, 1], np.float32), [0, 2], 64, "type float32"),
    "offsets not integers": ([2, 1], [0.0, 2.0], 64, "type float64"),
    "ids not a row": ([[2, 1]], [0, 2], 64, "shape"),
    "ids left over": ([2, 1], [0, 1], 64, "offsets"),
    "ids too few": ([2, 1], [0, 3], 64, "end with 2"),
    "no offsets": ([2, 1], np.array([], np.int64), 64, "end with 2"),
    "size 0": ([2, 1], [0, 2], 0, "embedding size of 0"),
    "size too large": ([2, 1], [0, 2], 193, "embedding size of 193"),
}


@pytest.mark.parametrize("case", WRONG_BATCHES)
def test_wrong_batches_are_refused(model: Callable[[Scheme], ModelFile], choice: Choice, case: str) -> None:
    ids, offsets, dim, message = WRONG_BATCHES[case]
    with pytest.raises(InputError, match=message):
        bind(model("int8"), choice).encode(np.array(ids), np.array(offsets), dim, True)


def test_no_texts_give_no_vectors(model: Callable[[Scheme], ModelFile], choice: Choice) -> None:
    vectors = bind(model("int8"), choice).encode(np.empty(0, np.int32), np.zeros(1, np.int64), 128, True)
    assert vectors.shape == (0, 128)
    assert vectors.dtype == np.float32


def test_large_activations_do_no_harm(
    model: Callable[[Scheme], ModelFile],
    expected: Callable[[Scheme], tuple[Vectors, float]],
    tested: Choice,
    tmp_path: Path,
) -> None:
    """The residual stream of the real model reaches 1e6."""
    file, factor = model("int8"), np.float32(1e6)
    norms = {name: tensor * factor for name, tensor in file.tensors.items() if "post_" in name}
    large = read_model_file(write_changed(tmp_path / "large.safetensors", file, norms))
    found = encode(bind(large, tested), texts())
    vectors = encode(ReferenceBackend(CONFIG, large.tensors), texts())
    assert np.max(distance(found, vectors)) <= FLOAT_TOLERANCE + 2 * expected("int8")[1]


def test_calls_from_many_threads_do_not_disturb_each_other(
    model: Callable[[Scheme], ModelFile], tested: Choice
) -> None:
    backend = bind(model("balanced"), tested)
    pairs = [[texts()[-1][:length], texts()[-2][: length // 2]] for length in range(2, 34)]
    expected = [encode(backend, pair) for pair in pairs]
    with ThreadPoolExecutor(4) as callers:
        found = callers.map(lambda pair: encode(backend, pair), pairs)
        assert all(map(np.array_equal, found, expected))


@pytest.mark.parametrize("some", [slice(0, None, 3), slice(15, 0, -14)])
def test_a_crowd_of_threads_gives_the_same_bits(
    model: Callable[[Scheme], ModelFile], tested: Choice, some: slice
) -> None:
    batch = texts()[some]
    expected = encode(bind(model("balanced"), tested), batch)
    one_thread, crowd = (bind(model("balanced"), tested, threads) for threads in (1, 4 * (os.cpu_count() or 1)))
    for text, vector in zip(batch, expected, strict=True):
        assert np.array_equal(encode(one_thread, [text])[0], vector)
    for _ in range(3):
        assert np.array_equal(encode(crowd, batch), expected)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_encodes_and_ends(model: Callable[[Scheme], ModelFile], tested: Choice) -> None:
    backends = [bind(model("balanced"), tested)]
    expected = encode(backends[0], texts()[-3:])

    def work() -> bool:
        same = np.array_equal(encode(backends.pop(), texts()[-3:]), expected)
        gc.collect()  # the child can let go of it
        return same

    assert true_in_fork(work, CHILD_LIMIT)
    assert np.array_equal(encode(backends[0], texts()[-3:]), expected)
