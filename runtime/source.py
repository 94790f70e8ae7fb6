"""Where a model came from: what it takes to open its file once more, here or in another process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .inputs import check_integer
from .kernels import create_backend
from .kernels.backend import MOST_THREADS, Backend
from .kernels.errors import BackendError, ModelFileError
from .kernels.model_file import ModelFile, read_model_file

ONNX_SUFFIX = ".onnx"

FileState = tuple[int, int, int, int]


@dataclass(frozen=True)
class Source:
    """A model file, and how to run it: see `embgemma.load`."""

    path: Path
    backend: str = "auto"
    threads: int | None = None
    isa: str | None = None

    def open(self) -> tuple[ModelFile, Backend]:
        """Opens it; raises what `embgemma.load` raises."""
        threads = self.threads if self.threads is None else check_integer("threads", self.threads, 1, MOST_THREADS)
        if self.path.suffix != ONNX_SUFFIX:
            model_file = read_model_file(self.path)
            return model_file, create_backend(model_file, backend=self.backend, threads=threads, isa=self.isa)
        if self.backend not in ("auto", "onnx"):
            raise BackendError(f"backend={self.backend!r} cannot run {self.path}; an ONNX model runs on backend 'onnx'")
        if self.isa is not None:
            raise BackendError(f"isa={self.isa!r} chooses code of the C engine; ONNX Runtime has no such choice")
        from .onnx.onnx_backend import open_onnx_model  # few need it

        return open_onnx_model(self.path, threads)


def file_state(path: Path) -> FileState | None:
    """Changes whenever the file at `path` is written, replaced or removed."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns


def check_same(path: Path, digest: str, expected: str) -> None:
    """Raises ModelFileError unless the file that was opened has the digest of the one that a model was pickled with."""
    if digest != expected:
        raise ModelFileError(
            f"{path}: this is not the file that the pickled model was loaded from, or it has changed; "
            "put that file there, or load this one and pickle the model again"
        )
