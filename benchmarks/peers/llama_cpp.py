"""llama.cpp through llama-cpp-python's bindings of its C interface: Q8_0 and Q4_0."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...export.checkpoint.checkpoint import read_checkpoint
from ...kernels.errors import EmbgemmaError
from ..harness.cache import cached
from ..harness.workload import Ids
from . import Variant, Vectors

PACKAGES = {"llama-cpp-python": "llama_cpp", "gguf": "gguf"}
SOURCES = ("benchmarks/peers/llama_cpp*.py", "export/checkpoint/*.py")  # of the code that makes it
FILE_TYPES = {"Q8_0": "LLAMA_FTYPE_MOSTLY_Q8_0", "Q4_0": "LLAMA_FTYPE_MOSTLY_Q4_0"}
LONGEST_BATCH = 8192  # tokens that it takes in one call; the context is made that large
MOST_TEXTS = 64  # that it takes in one call


def prepare(checkpoint: Path, folder: Path) -> list[Variant]:
    """The checkpoint as a float32 GGUF file, and what llama.cpp's own quantiser makes of it."""
    from .llama_cpp_gguf import write_gguf

    source = read_checkpoint(checkpoint)

    def made(name: str, make: Callable[[Path], None]) -> Path:
        return cached(folder / name / "model.gguf", make, SOURCES, PACKAGES)

    exact = made("gguf-float32", lambda path: write_gguf(source, path))
    return [
        Variant("llama-cpp", name, made(f"gguf-{name}", partial(_quantize, exact, file_type)))
        for name, file_type in FILE_TYPES.items()
    ]


def _library() -> Any:
    """The bindings, which then print errors only: llama.cpp has a line to say of every tensor."""
    import llama_cpp

    logging.getLogger("llama-cpp-python").setLevel(logging.ERROR)
    llama_cpp.llama_backend_init()
    return llama_cpp


def _quantize(exact: Path, file_type: str, path: Path) -> None:
    """Writes a quantised GGUF file."""
    llama_cpp = _library()
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, file_type)
    status = llama_cpp.llama_model_quantize(str(exact).encode(), str(path).encode(), ctypes.byref(parameters))
    if status != 0:
        raise EmbgemmaError(f"llama.cpp could not quantise the model (status {status}); what it printed is above")


class LlamaCppEncoder:
    """A model and a context of llama.cpp, with mean pooling and flash attention where llama.cpp chooses it."""

    def __init__(self, variant: Variant, threads: int | None) -> None:
        self._c = llama_cpp = _library()
        self._model = llama_cpp.llama_model_load_from_file(
            str(variant.path).encode(), llama_cpp.llama_model_default_params()
        )
        if not self._model:
            raise EmbgemmaError("llama.cpp could not load the model; what it printed is above")
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = LONGEST_BATCH
        settings.n_seq_max = MOST_TEXTS
        settings.embeddings = True
        settings.pooling_type = llama_cpp.LLAMA_POOLING_TYPE_MEAN
        if threads is not None:
            settings.n_threads = settings.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, settings)
        if not self._context:
            raise EmbgemmaError("llama.cpp could not make a context; what it printed is above")
        self._hidden = llama_cpp.llama_model_n_embd(self._model)
        self._batch = llama_cpp.llama_batch_init(LONGEST_BATCH, 0, 1)

    def __call__(self, ids: Ids) -> Vectors:
        """Unit vectors (texts, hidden) of ids (texts, tokens)."""
        texts, tokens = ids.shape
        batch = self._batch
        batch.n_tokens = ids.size
        for column, values in (
            ("token", ids),
            ("pos", np.broadcast_to(np.arange(tokens, dtype=np.int32), ids.shape)),
            ("n_seq_id", np.ones_like(ids)),
            ("logits", np.ones(ids.shape, np.int8)),  # every token counts in the mean
        ):
            target = np.ctypeslib.as_array(getattr(batch, column), (ids.size,))
            target[:] = values.reshape(-1)
        for i in range(ids.size):
            batch.seq_id[i][0] = i // tokens
        if self._c.llama_encode(self._context, batch) != 0:
            raise EmbgemmaError("llama.cpp could not encode the texts; what it printed is above")
        pooled = [self._c.llama_get_embeddings_seq(self._context, text) for text in range(texts)]
        vectors = np.stack([np.ctypeslib.as_array(pointer, (self._hidden,)) for pointer in pooled])
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


open_variant = LlamaCppEncoder
