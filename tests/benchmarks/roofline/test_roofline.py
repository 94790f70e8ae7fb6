"""The roofline page: every operation has its work, and the parts make up the whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from embgemma.benchmarks.harness.operations import TITLES
from embgemma.benchmarks.harness.page import WIDTH
from embgemma.benchmarks.harness.workload import Shape, work_by_operation, work_of
from embgemma.benchmarks.roofline.roofline import IDLE_SECONDS
from embgemma.kernels.model_file import read_model_file
from embgemma.kernels.native import NativeBackend, library_problem

QUICK = ["--lengths", "8,33", "--repeats", "4"]

needs_native = pytest.mark.skipif(library_problem() is not None, reason=str(library_problem()))


@pytest.mark.parametrize("tokens", [1, 8, 100])
def test_operations_add_up_to_the_work_of_a_call(model_path: Path, tokens: int) -> None:
    model = read_model_file(model_path)
    works = work_by_operation(model.config, model.tensors, tokens)
    whole = work_of(model.config, model.tensors, Shape(1, tokens))
    norms = sum(tensor.nbytes for name, tensor in model.tensors.items() if name.endswith("norm"))
    assert sum(work.macs for work in works.values()) == whole.macs
    assert sum(work.weight_bytes for work in works.values()) + norms == whole.weight_bytes


@needs_native
def test_titles_are_of_what_the_engine_times(model_path: Path) -> None:
    model = read_model_file(model_path)
    backend = NativeBackend(model, threads=2)
    ids, offsets = np.arange(3, 43, dtype=np.int32), np.array([0, 40])
    with backend.profiled() as seconds:
        timed = backend.encode(ids, offsets, 8, True)
    assert list(seconds) == list(TITLES)
    assert all(threads.shape == (2,) and threads.min() >= 0 for threads in seconds.values())
    assert seconds["gate_up"].sum() > 0
    before = seconds["gate_up"].sum()
    np.testing.assert_array_equal(backend.encode(ids, offsets, 8, True), timed)
    assert seconds["gate_up"].sum() == before


@needs_native
def test_page(model_path: Path, bench: Callable[..., str]) -> None:
    text = bench("--model", model_path, "--threads", 2, "--roofline", "--lengths", "8,33", "--repeats", 2)
    assert "Operations at 33 tokens" in text
    assert all(title in text for title in TITLES.values())
    assert max(map(len, text.splitlines())) <= WIDTH


@needs_native
def test_parts_and_what_is_outside_are_the_call(model_path: Path, bench: Callable[..., str]) -> None:
    found = json.loads(bench("roofline", "--model", model_path, "--threads", 2, "--json", *QUICK))
    for length in found["lengths"]:
        parts = sum(part["seconds"] for part in length["parts"])
        assert parts + length["outside"] == pytest.approx(length["profiled"])
        assert 0 < parts <= length["profiled"]
        assert length["timing"]["calls"] == 4
        assert length["one_thread"]["median"] > 0
        assert length["idle"] < IDLE_SECONDS / 10  # a thread that spins would take all of it


def test_other_backends_say_why_not(model_path: Path, bench: Callable[..., str]) -> None:
    error = bench("--model", model_path, "--backend", "reference", "--roofline", *QUICK, fails=True)
    assert "the reference backend cannot, the native one can" in error
