"""Opens a file that was just written as an app will, and embeds with it, before the file gets its name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..batches import open_tokenizer
from ..kernels import available_backends, create_backend
from ..kernels.errors import CheckpointError, EmbgemmaError, ModelFileError
from ..kernels.layout import Tensor
from ..kernels.model_file import read_model_file

_TEXT = "Which planet is known as the Red Planet?"
_LENGTH_ERROR = 1e-3  # of a unit vector; float32 and any size leave far less


def check_model_file(made: Path, name: Path, *, with_text: bool = True) -> None:
    """Raises EmbgemmaError, which says that nothing was written as `name`, unless the file `made` is right.

    Both readers must open it, the C engine's if it is there, and it must embed a text, or else token ids.
    """
    with nothing_written(made, name):
        model_file = read_model_file(made)
        config = model_file.config
        backend = create_backend(model_file, backend=available_backends()[0], threads=1)
        ids = [config.bos_id, config.eos_id]
        if with_text:
            tokenizer = open_tokenizer(model_file)
            ids = ids if tokenizer is None else tokenizer.encode(_TEXT, config.max_tokens).ids
        vectors = backend.encode(np.array(ids, np.int32), np.array([0, len(ids)], np.int64), config.hidden, True)
        length = float(np.linalg.norm(vectors))
        if not abs(length - 1) < _LENGTH_ERROR:
            raise ModelFileError(f"a text has a vector of length {length}; expected 1")


@contextmanager
def nothing_written(made: Path, name: Path) -> Iterator[None]:
    """Makes errors of reading the unfinished file `made`, in the block, say what that means for the file `name`."""
    try:
        yield
    except ModelFileError as error:
        reason = str(error).replace(str(made), "the file")
        raise EmbgemmaError(f"{name}: nothing was written, as it would not work: {reason}") from error


@contextmanager
def folding(folder: Path) -> Iterator[None]:
    """Makes errors that weights cause, in the block, name the checkpoint; what overflows `check_stored` must find."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            yield
    except CheckpointError as error:
        if str(error).startswith(str(folder)):
            raise
        raise CheckpointError(f"{folder}: nothing was written: {error}") from error


def check_stored(name: str, part: Tensor) -> None:
    """Raises CheckpointError if a part of a tensor of the model file is not finite."""
    if part.dtype.kind == "f" and not np.isfinite(part).all():
        raise CheckpointError(
            f"tensor {name!r} of the model file would not be finite in {part.dtype}: weights of the checkpoint are too "
            "large, or a number in its config.json is"
        )
