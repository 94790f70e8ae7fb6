"""embgemma itself, measured as every peer is: token ids in, unit vectors out."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import numpy as np

from ...kernels.backend import Backend, create_backend
from ...kernels.errors import BackendError
from ...kernels.model_file import Scheme, read_model_file
from ...kernels.native import NativeBackend
from ...model import EmbeddingModel
from ...notices import Progress
from ..harness.cache import cached
from ..harness.command import PROGRAM
from ..harness.machine import Limits
from ..harness.operations import Profile
from ..harness.workload import Ids
from . import Encoder, Variant, Vectors

LIMIT_SECONDS = 0.2  # of one measurement of a machine limit
LIMIT_TRIES = 3  # the best one counts: a limit is what the machine can do undisturbed


def converted(checkpoint: Path, folder: Path, scheme: Scheme) -> Path:
    """The checkpoint as a model file, kept in `folder`."""
    from ...export.convert import convert  # not with this module, since it would count as memory of the runtime

    path = folder / f"ours-{scheme}" / "model.safetensors"
    with Progress(PROGRAM) as progress:
        return cached(path, lambda made: convert(checkpoint, made, scheme, progress=progress), ["export/**/*.py"])


def open_variant(variant: Variant, threads: int | None) -> Encoder:
    """Opens a model file with the options `backend` and `isa`; option `tokenizer` "no" leaves the tokenizer out."""
    model_file = read_model_file(variant.path)
    options = variant.options
    backend = create_backend(
        model_file, backend=options.get("backend", "auto"), threads=threads, isa=options.get("isa")
    )
    if options.get("tokenizer") == "no":
        model_file = dataclasses.replace(model_file, tokenizer_model=None, tokenizer_table=None)
    return OurEncoder(EmbeddingModel(model_file, backend), backend)


class OurEncoder:
    """The model that a user holds, and the backend in it."""

    def __init__(self, model: EmbeddingModel, backend: Backend) -> None:
        self._model = model
        self._backend = backend
        self.facts = {"backend": model.backend, "isa": model.isa, "threads": model.threads}

    def __call__(self, ids: Ids) -> Vectors:
        """Unit vectors (texts, hidden) of ids (texts, tokens)."""
        return self._model.encode_ids(list(ids))

    def profile(self, ids: Ids) -> Profile:
        """Seconds of a call and of its operations; raises BackendError where the backend cannot time them."""
        backend = self._backend
        if not isinstance(backend, NativeBackend):
            raise BackendError(f"the {self._model.backend} backend cannot time its operations, the native one can")
        with backend.profiled() as operations:
            start = time.perf_counter()
            self(ids)
            seconds = time.perf_counter() - start
        return Profile(seconds, {name: float(np.mean(threads)) for name, threads in operations.items()})

    def limits(self, read_bytes: int) -> Limits | None:
        """The machine's limits with this backend's threads; None where the backend cannot measure them."""
        backend = self._backend
        if not isinstance(backend, NativeBackend):
            return None
        return Limits(
            max(backend.measure_multiply_rate(LIMIT_SECONDS) for _ in range(LIMIT_TRIES)),
            max(backend.measure_read_rate(read_bytes, LIMIT_SECONDS) for _ in range(LIMIT_TRIES)),
        )
