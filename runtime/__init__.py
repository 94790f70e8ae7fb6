"""embgemma: text in, embedding out, offline, on a CPU.

import embgemma

model = embgemma.load("embeddinggemma-300m.int8.safetensors")
query = model.encode_query("Which planet is known as the Red Planet?")
documents = model.encode_document(["Venus is ...", "Mars is ..."])
scores = model.similarity(query, documents)
"""

from __future__ import annotations

import signal
import sys
from pathlib import PurePath

if (
    PurePath(*sys.argv[:1]).stem in ("embgemma", "embgemma-bench")
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
):  # Our command: an interrupt ends it without Python's traceback, until it can say so itself.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from .drop_in import SentenceTransformer
from .kernels import available_backends
from .kernels.errors import BackendError, CheckpointError, EmbgemmaError, HubError, InputError, ModelFileError
from .model import EmbeddingModel, load
from .notices import TruncationWarning
from .similarity import SimilarityFunction

__all__ = [
    "BackendError",
    "CheckpointError",
    "EmbeddingModel",
    "EmbgemmaError",
    "HubError",
    "InputError",
    "ModelFileError",
    "SentenceTransformer",
    "SimilarityFunction",
    "TruncationWarning",
    "__version__",
    "available_backends",
    "load",
]


def __getattr__(name: str) -> str:
    """`__version__` when it is first asked for: the package's metadata takes as long to load as half of NumPy."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import metadata

    try:
        return metadata.version("embgemma")
    except metadata.PackageNotFoundError:  # run from a source tree that was never installed
        return "0+source"
