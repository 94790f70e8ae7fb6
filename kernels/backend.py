"""What a backend is, and how one is chosen."""

from __future__ import annotations

import importlib.util
import warnings
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .errors import BackendError, InputError
from .install import pip_install
from .model_file import ModelFile
from .native import NativeBackend, library_problem
from .safetensors_file import shorten

MOST_THREADS = 256  # of the C engine
BACKENDS = ("native", "numba", "reference")  # fastest first

# Measured with int8 and int4 files at 8 to 512 tokens on AVX-512 VNNI: see benchmarks/RESULTS.md.
NUMBA_COST = (
    "which takes 1.0 to 1.5 times as long as the C engine, up to 1.8 times for short texts with int4, and compiles for "
    "some seconds when first used"
)


class Backend(Protocol):
    """An encoder of token ids: config and weights bound to one way of computing."""

    @property
    def name(self) -> str:
        """One of BACKENDS."""

    @property
    def isa(self) -> str:
        """The instruction set that it runs on."""

    @property
    def threads(self) -> int:
        """How many threads it computes with."""

    def encode(
        self, ids: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64], dim: int, normalize: bool
    ) -> npt.NDArray[np.float32]:
        """Embeds texts laid end to end.

        Args:
            ids: (tokens,) token ids of all texts, `<bos>` and `<eos>` included.
            offsets: (texts + 1,) text i is `ids[offsets[i]:offsets[i + 1]]`; at least one token each.
            dim: embedding size, 1 … hidden: the first `dim` rows of the head (a Matryoshka size).
            normalize: whether to scale each vector to unit length.

        Returns:
            (texts, dim) vectors. A text's vector does not depend, to the bit, on the other texts or their order.

        Raises:
            InputError: an argument has the wrong type or shape, or an id, a length or `dim` is out of range.
            VectorError: a text has no vector, since the weights are damaged.
        """

    def encode_tokens(self, ids: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """States (tokens, hidden) of all tokens, end to end: after the final norm, before mean and head."""


def available_backends() -> tuple[str, ...]:
    """The backends that this install can run, fastest first."""
    missing = set()
    if library_problem() is not None:
        missing.add("native")
    if not _numba_is_installed():
        missing.add("numba")
    return tuple(name for name in BACKENDS if name not in missing)


def create_backend(
    model_file: ModelFile, *, backend: str = "auto", threads: int | None = None, isa: str | None = None
) -> Backend:
    """Binds a model file to a backend.

    Args:
        model_file: as `read_model_file` gives it. The C engine opens the file by itself, as an app does; the others
            compute with its tensors.
        backend: "native" (the C engine), "numba", "reference" (NumPy in float64, slow), or "auto": the C engine if
            it was compiled into this install, else Numba with a warning that says how slow it is.
        threads: how many threads to compute with; None for the number of physical cores, or the CPU quota if less.
        isa: instruction set of the C engine, one of `native.instruction_sets()`; None for what the environment
            variable EMBGEMMA_ISA names, else the best that this CPU has.

    Raises:
        BackendError: the backend or the instruction set is unknown, or missing here.
        ModelFileError: the file is no longer what it was when it was read.
        InputError: the number of threads is out of range.
    """
    if threads is not None and (type(threads) is not int or not 1 <= threads <= MOST_THREADS):
        raise InputError(
            f"threads={shorten(threads)}; expected an integer from 1 to {MOST_THREADS}, or None for all physical cores"
        )
    if isa is not None and not (isinstance(isa, str) and isa.isidentifier()):
        raise BackendError(f"isa={shorten(isa)}; expected the name of an instruction set, such as 'avx2'")
    if not isinstance(backend, str):
        raise BackendError(f"backend={shorten(backend)}; expected a name, such as 'auto'")
    if backend == "auto":
        backend = _best_backend()
    if isa is not None and backend != "native":
        raise BackendError(f"isa={isa!r} chooses code of the C engine; backend {backend!r} has no such choice")
    if backend == "native":
        return NativeBackend(model_file, threads=threads, isa=isa)
    if backend == "numba":
        if not _numba_is_installed():
            raise BackendError(f"backend='numba' needs the package numba, which is not installed; {_get_numba()}")
        from .numba_engine.numba_backend import NumbaBackend

        return NumbaBackend(model_file.config, model_file.tensors, threads)
    if backend == "reference":
        from .reference import ReferenceBackend

        return ReferenceBackend(model_file.config, model_file.tensors)
    raise BackendError(f"backend={shorten(backend)}; expected 'auto' or one of {', '.join(map(repr, BACKENDS))}")


def _best_backend() -> str:
    """What "auto" means here: "native", or "numba" with a warning that says how slow it is."""
    problem = library_problem()
    if problem is None:
        return "native"
    if not _numba_is_installed():
        raise BackendError(f"there is nothing to run the model on: {problem}; {_get_native()}, or {_get_numba()}")
    message = f"the Numba backend is active, {NUMBA_COST}: {problem}; for the C engine, {_get_native()}"
    warnings.warn(message, stacklevel=3)
    return "numba"


def _get_native() -> str:
    return f"install a C compiler, then run `{pip_install('', '--force-reinstall', '--no-cache-dir')}`"


def _get_numba() -> str:
    return f"run `{pip_install('numba')}`"


def _numba_is_installed() -> bool:
    return importlib.util.find_spec("numba") is not None
