"""The C engine from Python: finds the shared library and drives it through cffi.

cffi reads the declarations from the headers that were installed beside the library, so the two always agree. It
releases the GIL while C code runs.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cffi
import numpy as np
import numpy.typing as npt

from . import __path__
from .batch import check_batch, check_finite
from .errors import BackendError, EmbgemmaError, InputError, ModelFileError
from .model_file import ModelFile
from .system import LIBRARY_NAME

HEADER_NAME = "embgemma.h"
BENCH_HEADER_NAME = "embgemma_bench.h"
PREPROCESSOR_BLOCK = re.compile(r"/\* cffi: skip \*/.*?/\* cffi: end of skip \*/", re.DOTALL)


@dataclass(frozen=True)
class InstructionSet:
    """One that the library was built with, and whether this CPU and its operating system can run it."""

    name: str
    supported: bool


@dataclass(frozen=True)
class Library:
    """The shared library, open: `c` has the functions and constants of the headers."""

    ffi: cffi.FFI
    c: Any
    path: Path

    def text(self, pointer: Any) -> str:
        """A C string as Python's."""
        return bytes(self.ffi.string(pointer)).decode(errors="replace")

    def check(self, status: int) -> None:
        """Raises the error that `status` stands for, if any. Call it on the thread that made the call."""
        if status != self.c.EG_OK:
            raise self._error_class(status)(self.text(self.c.eg_error_message()))

    def _error_class(self, status: int) -> type[EmbgemmaError]:
        if status == self.c.EG_ERROR_ARGUMENT:
            return InputError
        if status == self.c.EG_ERROR_MODEL:
            return ModelFileError
        return BackendError


@functools.cache
def _open_library() -> Library | str:
    """The library, or why there is none."""
    # Not beside __file__: an editable install serves this file from the source tree and the library from elsewhere.
    path = next((path for path in (Path(folder, LIBRARY_NAME) for folder in __path__) if path.is_file()), None)
    if path is None:
        return "this install has no C engine, since there was no C compiler when it was made"
    ffi = cffi.FFI()
    for header in (HEADER_NAME, BENCH_HEADER_NAME):
        ffi.cdef(PREPROCESSOR_BLOCK.sub("", (path.parent / header).read_text(encoding="utf-8")))
    try:
        return Library(ffi, ffi.dlopen(str(path)), path)
    except OSError as error:
        return f"the C engine does not load here ({error})"


def library_problem() -> str | None:
    """Why the C engine cannot run here; None if it can."""
    opened = _open_library()
    return opened if isinstance(opened, str) else None


def load_library() -> Library:
    """The C engine; raises BackendError if there is none."""
    opened = _open_library()
    if isinstance(opened, str):
        raise BackendError(f"backend 'native' cannot run: {opened}; install a C compiler, then embgemma once more")
    return opened


def instruction_sets() -> tuple[InstructionSet, ...]:
    """The instruction sets that the library was built with, best first."""
    library = load_library()
    c = library.c
    return tuple(
        InstructionSet(library.text(c.eg_isa_name(i)), bool(c.eg_isa_supported(i))) for i in range(c.eg_isa_count())
    )


def check_model(path: Path) -> None:
    """Reads a whole model file in C; raises ModelFileError unless it is as written and can be opened."""
    library = load_library()
    library.check(library.c.eg_model_check(os.fsencode(path)))


class NativeBackend:
    """A model bound to the C engine. Calls from several threads are safe and run one after another.

    A forked child has the model but not the threads, so it makes a context of its own on first use.
    """

    name = "native"

    def __init__(self, model_file: ModelFile, *, threads: int | None = None, isa: str | None = None) -> None:
        """See `create_backend`."""
        library = self._library = load_library()
        self._config = model_file.config
        self._threads_wanted = 0 if threads is None else threads
        self._isa_wanted = isa
        slot = library.ffi.new("eg_model **")
        library.check(library.c.eg_model_open(os.fsencode(model_file.path), slot))
        self._model = library.ffi.gc(slot[0], library.c.eg_model_free)
        self._context = self._create_context()
        self._process = os.getpid()

    @property
    def isa(self) -> str:
        """The instruction set that it runs on."""
        return self._library.text(self._library.c.eg_context_isa(self._context))

    @property
    def threads(self) -> int:
        """How many threads it computes with."""
        return int(self._library.c.eg_context_threads(self._context))

    @property
    def scratch_bytes(self) -> int:
        """Memory that it holds for intermediate values: what the largest batch so far needed."""
        return int(self._library.c.eg_context_scratch_bytes(self._context))

    def encode(
        self, ids: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64], dim: int, normalize: bool
    ) -> npt.NDArray[np.float32]:
        """See `Backend.encode`."""
        ids, offsets = check_batch(self._config, ids, offsets, dim)
        texts = len(offsets) - 1
        out = np.empty((texts, dim), np.float32)
        ffi = self._library.ffi
        status = self._library.c.eg_encode(
            self._own_context(),
            ffi.from_buffer("int32_t[]", ids),
            ffi.from_buffer("uint64_t[]", offsets),  # not negative, so the same bits
            texts,
            dim,
            normalize,
            ffi.from_buffer("float[]", out),
        )
        if status == self._library.c.EG_ERROR_MODEL:
            check_finite(out, np.arange(texts + 1))
        self._library.check(status)
        return out

    def encode_tokens(self, ids: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """See `Backend.encode_tokens`."""
        ids, offsets = check_batch(self._config, ids, offsets, self._config.hidden)
        out = np.empty((len(ids), self._config.hidden), np.float32)
        ffi = self._library.ffi
        status = self._library.c.eg_encode_tokens(
            self._own_context(),
            ffi.from_buffer("int32_t[]", ids),
            ffi.from_buffer("uint64_t[]", offsets),
            len(offsets) - 1,
            ffi.from_buffer("float[]", out),
        )
        if status == self._library.c.EG_ERROR_MODEL:
            check_finite(out, offsets)
        self._library.check(status)
        return out

    @contextmanager
    def profiled(self) -> Iterator[dict[str, npt.NDArray[np.float64]]]:
        """Times the operations of all calls inside: the seconds (threads,) that each thread spends on each.

        The arrays grow with each call. They leave out what a thread does before the first and after the last operation.
        """
        library, context = self._library, self._own_context()
        c, ffi = library.c, library.ffi
        names = [library.text(c.eg_operation_name(i)) for i in range(c.eg_operation_count())]
        seconds = np.zeros((self.threads, len(names)))
        library.check(c.eg_context_profile(context, ffi.from_buffer("double[]", seconds)))
        try:
            yield dict(zip(names, seconds.T, strict=True))
        finally:
            library.check(c.eg_context_profile(context, ffi.NULL))

    def measure_multiply_rate(self, seconds: float) -> float:
        """int8 multiply-accumulates per second with operands in registers, over all threads, timed for `seconds`."""
        rate = self._library.ffi.new("double *")
        self._library.check(self._library.c.eg_measure_multiply_rate(self._own_context(), seconds, rate))
        return float(rate[0])

    def measure_read_rate(self, size: int, seconds: float) -> float:
        """Bytes per second of reading `size` bytes of memory over all threads, timed for `seconds`."""
        rate = self._library.ffi.new("double *")
        self._library.check(self._library.c.eg_measure_read_rate(self._own_context(), size, seconds, rate))
        return float(rate[0])

    def _own_context(self) -> Any:
        """The context of this process."""
        if self._process != os.getpid():
            # Threads that come here at once may each make a context; the last one stays.
            self._context = self._create_context()
            self._process = os.getpid()
        return self._context

    def _create_context(self) -> Any:
        library = self._library
        isa = library.ffi.NULL if self._isa_wanted is None else self._isa_wanted.encode()
        slot = library.ffi.new("eg_context **")
        library.check(library.c.eg_context_create(self._model, self._threads_wanted, isa, slot))
        # The closure keeps the model alive for as long as the context; see embgemma.h.
        return library.ffi.gc(slot[0], functools.partial(_free_context, library.c.eg_context_free, self._model))


def _free_context(free: Any, _model: Any, context: Any) -> None:
    free(context)  # looked up beforehand: when Python ends, cffi can no longer do it
