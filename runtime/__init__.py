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

try:
    import importlib.metadata

    __version__ = importlib.metadata.version("embgemma")
except importlib.metadata.PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+source"

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
