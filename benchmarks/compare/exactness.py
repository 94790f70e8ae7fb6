"""How near a runtime's vectors are to those of the float32 model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...export.checkpoint.checkpoint import Checkpoint
from ..harness.sentences import sentence_ids
from ..harness.workload import Ids
from ..peers import OURS, Variant, Vectors
from ..peers.ours import converted
from ..peers.process import Process
from ..speed.model_source import path_from_environment

GOLDEN_VARIABLE = "EMBGEMMA_GOLDEN"
GOLDEN_FILE = "fp32.npz"  # ids (tokens,), offsets (texts + 1,), embeddings (texts, hidden) of unit length


@dataclass(frozen=True)
class References:
    """Texts and their float32 vectors.

    Attributes:
        texts: token ids, each (1, tokens).
        vectors: (texts, hidden), unit length.
        origin: what computed them, in words.
    """

    texts: list[Ids]
    vectors: Vectors
    origin: str


@dataclass(frozen=True)
class Exactness:
    """Cosines between a runtime's vectors and the float32 ones, over all texts."""

    mean: float
    minimum: float


def read_references(source: Checkpoint, folder: Path) -> References:
    """Those in the folder that EMBGEMMA_GOLDEN names, else of the sentences by our own float32 model."""
    golden = path_from_environment(GOLDEN_VARIABLE)
    if golden is not None:
        texts, vectors = read_golden(golden)
        return References([text[None] for text in texts], vectors, "the golden embeddings")
    texts = sentence_ids(source)
    with Process(Variant(OURS, "float32", converted(source.folder, folder, "float32")), None) as process:
        vectors = np.concatenate([process.ask.encode(text) for text in texts])
    return References(texts, vectors, "our own float32 model")


def read_golden(folder: Path) -> tuple[list[Ids], Vectors]:
    """Texts as token ids (tokens,), and their float32 vectors (texts, hidden)."""
    with np.load(folder / GOLDEN_FILE) as stored:
        return np.split(stored["ids"].astype(np.int32), stored["offsets"][1:-1]), stored["embeddings"]


def compare_with(references: References, process: Process) -> Exactness:
    """Encodes every text alone."""
    vectors = np.concatenate([process.ask.encode(text) for text in references.texts])
    cosines = (vectors * references.vectors).sum(axis=1, dtype=np.float64)
    return Exactness(float(cosines.mean()), float(cosines.min()))
