"""Backends among threads and processes: the same bits with callers at once, in a forked child, and in any company."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from embgemma.kernels import Backend, available_backends, create_backend
from embgemma.kernels.model_file import ModelFile, Scheme
from tests.processes import true_in_fork

DIM = 192  # of the small model

Bind = Callable[[int], Backend]


@pytest.fixture(params=["native", "numba"])
def bind(request: pytest.FixtureRequest, small_model: Callable[[Scheme], ModelFile]) -> Bind:
    """Makes the backend, with this many threads."""
    if request.param not in available_backends():
        pytest.skip(f"backend {request.param} is not available here")
    model = small_model("mixed")
    return lambda threads: create_backend(model, backend=request.param, threads=threads)


def texts_of(*lengths: int) -> list[npt.NDArray[np.int32]]:
    """Random texts of these lengths in tokens."""
    random = np.random.default_rng(sum(lengths))
    return [random.integers(0, 512, length).astype(np.int32) for length in lengths]


def encode(backend: Backend, texts: Any) -> npt.NDArray[np.float32]:
    return backend.encode(np.concatenate(texts), np.cumsum([0, *map(len, texts)]), DIM, True)


def test_calls_from_many_threads_do_not_disturb_each_other(bind: Bind) -> None:
    backend = bind(2)
    batches = [texts_of(length, length // 2) for length in range(2, 34)]
    expected = [encode(backend, batch) for batch in batches]
    with ThreadPoolExecutor(4) as callers:
        found = list(callers.map(lambda batch: encode(backend, batch), batches))
    for vectors, others in zip(found, expected, strict=True):
        np.testing.assert_array_equal(vectors, others)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_encodes_and_ends(bind: Bind) -> None:
    backends = [bind(2)]
    batch = texts_of(30, 5)
    expected = encode(backends[0], batch)

    def work() -> bool:
        same = np.array_equal(encode(backends.pop(), batch), expected)
        gc.collect()
        return same

    assert true_in_fork(work)
    np.testing.assert_array_equal(encode(backends[0], batch), expected)


@pytest.mark.parametrize("lengths", [(1, 5, 16, 33, 64, 128), (60, 3)])
def test_same_bits_in_any_company_of_texts_and_threads(bind: Bind, lengths: tuple[int, ...]) -> None:
    texts = texts_of(*lengths)
    expected = encode(bind(2), texts)
    one_thread, crowd = bind(1), bind(4 * (os.cpu_count() or 1))
    for text, vector in zip(texts, expected, strict=True):
        np.testing.assert_array_equal(encode(one_thread, [text])[0], vector)
    for _ in range(3):
        np.testing.assert_array_equal(encode(crowd, texts), expected)
