"""Which model file is measured: one given, one converted from a checkpoint, or synthetic weights of the exact shape."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...export.synthetic import write_synthetic_model
from ...kernels.config import EMBEDDINGGEMMA_300M
from ...kernels.errors import EmbgemmaError
from ...kernels.model_file import Scheme
from ...output_file import workplace
from ..harness.cache import checkpoint_folder
from ..peers.ours import converted

MODEL_VARIABLE = "EMBGEMMA_MODEL"
CHECKPOINT_VARIABLE = "EMBGEMMA_CHECKPOINT"
MODEL_NAME = "EmbeddingGemma-300M"


@dataclass(frozen=True)
class Source:
    """A model file, and the origin of its weights in words."""

    path: Path
    description: str
    synthetic: bool


@contextmanager
def open_source(model: Path | None, checkpoint: Path | None, cache: Path, scheme: Scheme) -> Iterator[Source]:
    """The model file to measure.

    `model`, else EMBGEMMA_MODEL, else `checkpoint` or EMBGEMMA_CHECKPOINT in the scheme (converted once, and kept in
    `cache`), else synthetic weights that are removed at the end.
    """
    if model is None and checkpoint is None:
        model = path_from_environment(MODEL_VARIABLE)
    if model is not None:
        yield Source(model, f"file {model.name}", synthetic=False)
        return
    checkpoint = checkpoint or path_from_environment(CHECKPOINT_VARIABLE)
    if checkpoint is not None:
        with explain_full_disk(cache):
            path = converted(checkpoint, checkpoint_folder(cache, checkpoint), scheme)
        yield Source(path, f"checkpoint {checkpoint.resolve().name}", synthetic=False)
        return
    with workplace(Path(tempfile.gettempdir())) as folder:
        path = folder / f"synthetic-{scheme}.safetensors"
        with explain_full_disk(path.parent):
            write_synthetic_model(path, EMBEDDINGGEMMA_300M, scheme)
        yield Source(path, f"synthetic weights in the shape of {MODEL_NAME}", synthetic=True)


def path_from_environment(variable: str) -> Path | None:
    """The path that an environment variable names; None where it is unset or empty."""
    return Path(os.environ[variable]) if os.environ.get(variable) else None


@contextmanager
def explain_full_disk(folder: Path) -> Iterator[None]:
    """Turns errors of writing in `folder` into one that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise EmbgemmaError(
                f"the disk that holds {folder} is full; free some space, or give another folder: TMPDIR for "
                "synthetic weights, --cache for converted ones"
            ) from error
        raise EmbgemmaError(f"cannot write a model file into {folder}: {error.strerror or error}") from error
