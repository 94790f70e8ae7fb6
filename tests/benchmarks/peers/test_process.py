"""Runtimes in processes of their own: results, errors and sudden deaths reach the parent."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from embgemma.benchmarks.harness.workload import Shape, make_ids
from embgemma.benchmarks.peers import OURS, Variant
from embgemma.benchmarks.peers.process import Process, WorkerError
from embgemma.kernels.backend import create_backend
from embgemma.kernels.model_file import read_model_file


def test_vectors_come_back_as_the_backend_made_them(model_path: Path) -> None:
    model = read_model_file(model_path)
    ids = make_ids(model.config, Shape(3, 9))
    with Process(Variant(OURS, "mixed", model_path, {"backend": "reference"}), threads=1) as process:
        vectors = process.ask.encode(ids)
        assert len(process.ask.time_calls(ids, 4)) == 4
        assert process.loaded.facts["backend"] == "reference"
    backend = create_backend(model, backend="reference")
    offsets = np.arange(4, dtype=np.int64) * 9
    assert np.array_equal(vectors, backend.encode(ids.reshape(-1), offsets, model.config.hidden, True))


def test_an_error_in_the_process_names_the_runtime(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"^/.*none.safetensors: cannot open the file"):
        Process(Variant(OURS, "int8", tmp_path / "none.safetensors"), threads=None)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are not of this system")
def test_a_process_that_dies_is_reported(model_path: Path) -> None:
    with Process(Variant(OURS, "mixed", model_path, {"backend": "reference"}), threads=1) as process:
        process._child.kill()
        with pytest.raises(WorkerError, match="ended by signal 9 during `encode`"):
            process.ask.encode(np.zeros((1, 2), np.int32))
