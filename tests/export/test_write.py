"""The writer keeps its promise: the tensors announced in the header, in that order, or no file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from embgemma.export.write import ModelFileWriter
from embgemma.kernels.model_file import TensorInfo

if TYPE_CHECKING:
    from pathlib import Path

A = np.arange(128, dtype=np.float32).reshape(8, 16)
B = np.arange(64, dtype=np.int8)
INFOS = {"a": TensorInfo(A.dtype, A.shape), "b": TensorInfo(B.dtype, B.shape)}
METADATA = {"what": "ä test"}


def test_tensors_in_parts_become_a_file_that_the_published_library_reads(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with ModelFileWriter.create(path, METADATA, INFOS) as writer:
        writer.write("a", A[:3])
        writer.write("a", A[3:])
        assert not path.exists()
        writer.write("b", B)
    tensors = load_file(path)
    np.testing.assert_array_equal(tensors["a"], A)
    np.testing.assert_array_equal(tensors["b"], B)
    data_start = path.stat().st_size - A.nbytes - B.nbytes
    assert data_start % 64 == 0


def test_an_array_with_gaps_is_written_as_its_values(tmp_path: Path) -> None:
    with ModelFileWriter.create(tmp_path / "x.safetensors", METADATA, {"a": INFOS["a"]}) as writer:
        writer.write("a", np.asfortranarray(A))
    np.testing.assert_array_equal(load_file(tmp_path / "x.safetensors")["a"], A)


@pytest.mark.parametrize(
    "tensors",
    [
        [("b", B)],
        [("a", A[:, :8])],
        [("a", A.astype(np.float64))],
        [("a", A[:5]), ("a", A[:5])],
        [("a", A), ("b", B), ("b", B)],
        [("a", A)],
    ],
)
def test_anything_but_what_was_promised_is_refused(tmp_path: Path, tensors: list[tuple[str, Any]]) -> None:
    def write() -> None:
        with ModelFileWriter.create(tmp_path / "x.safetensors", METADATA, INFOS) as writer:
            for name, tensor in tensors:
                writer.write(name, tensor)

    with pytest.raises(ValueError, match=r"wrote|not written"):
        write()
    assert not list(tmp_path.iterdir())


def test_the_file_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    with ModelFileWriter.create(tmp_path / "x", METADATA, {"b": INFOS["b"]}) as writer:
        writer.write("b", B)
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "other").stat().st_mode
