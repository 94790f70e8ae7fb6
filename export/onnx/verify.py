"""Runs an exported model in ONNX Runtime beside the float32 model, on texts of several lengths, alone and padded."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...kernels.errors import EmbgemmaError
from ...onnx.onnx_backend import open_onnx_model
from ...onnx.onnx_choices import Format
from ...tokenizer import Tokenizer
from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.folds import folded_rows
from ..part import Part
from ..quantise import forward

Ids = npt.NDArray[np.int32]

# The least cosine to float32 that a format may have on any of the texts. Right graphs are above (../EXPERIMENTS.md);
# what is wrong with a graph (a window, a position, a scale) falls far below.
BOUNDS: dict[Format, float] = {"float32": 0.9999, "int8": 0.995, "int4": 0.97}
PLAIN_BOUNDS: dict[Format, float] = {"float32": 0.9999, "int8": 0.995, "int4": 0.96}

# Between a text alone and in a padded batch: 0.999999 where ONNX Runtime sums in the same order (see attention.py).
# Where it does not, last bits make other int8 codes here and there.
PADDED_BOUND = 0.9999

# In tokens: a word, a query, a paragraph, past the window, and past the length at which attention goes by blocks.
LENGTHS = (4, 20, 120, 300, 700)

SENTENCES = (
    "The lighthouse keeper wrote down the weather every evening, and the names of the ships that passed.",
    "How do I keep basil alive in winter?",
    "La bibliothèque ouvre à neuf heures, sauf le lundi.",
    "def mean(values): return sum(values) / len(values)",
    "雨の日には、川の水が少し高くなります。",
    "Der Zug nach Norden hält heute nicht in jedem Dorf; bitte achten Sie auf die Durchsagen.",
    "Prices rose by 3.5 % in March, after 2.9 % in February.",
    "जब सूरज निकला, तब तक हम नदी के पार जा चुके थे।",
)


@dataclass(frozen=True)
class Verification:
    """How an exported model compares.

    Attributes:
        cosines: to float32, by the length of the text in tokens.
        padded: the least cosine between a text alone and in a padded batch.
    """

    cosines: dict[int, float]
    padded: float

    def __str__(self) -> str:
        """One sentence."""
        by_length = ", ".join(f"{cosine:.5f} with {tokens} tokens" for tokens, cosine in self.cosines.items())
        return f"cosine to float32: {by_length}; of texts padded to those alone: at least {self.padded:.6f}"


def verify(model: Path, source: Checkpoint, part: Part, weights_format: Format, *, calibrated: bool) -> Verification:
    """Runs the model at this path; raises EmbgemmaError where it is further from float32 than its format may be."""
    _, backend = open_onnx_model(model, None)
    texts = _texts(part)
    rows = texts if part.kept is None else [part.kept.rows[ids].astype(np.int32) for ids in texts]
    expected = _float32_vectors(source, rows, backend.dim)
    alone = np.concatenate([backend.run([text]) for text in texts])
    padded = np.concatenate([backend.run(texts[:-1]), backend.run(texts[-1:])])
    found = Verification(
        {len(text): float(cosine) for text, cosine in zip(texts, np.sum(alone * expected, axis=1), strict=True)},
        float(np.sum(alone * padded, axis=1).min()),
    )
    bound = (BOUNDS if calibrated else PLAIN_BOUNDS)[weights_format]
    if not min(found.cosines.values()) >= bound or not found.padded >= PADDED_BOUND:
        raise EmbgemmaError(
            f"the exported model does not compute what the checkpoint does ({found}); expected at least {bound} and "
            f"{PADDED_BOUND}. Try another version of onnxruntime; nothing was written"
        )
    return found


def _texts(part: Part) -> list[Ids]:
    """Token ids of texts of LENGTHS tokens, or of as many as the model takes."""
    tokenizer = Tokenizer(part.model, part.config.bos_id, part.config.eos_id)
    lengths = sorted({min(length, part.config.max_tokens) for length in LENGTHS})
    texts = []
    for i, length in enumerate(lengths):
        sentences = itertools.islice(itertools.cycle(SENTENCES), i, i + length)  # each has a token at least
        texts.append(np.array(tokenizer.encode(" ".join(sentences), length).ids, np.int32))
    return texts


def _float32_vectors(source: Checkpoint, texts: list[Ids], dim: int) -> npt.NDArray[np.float32]:
    """The unit vectors (texts, dim) of the checkpoint in float32."""
    offsets = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    *_, hidden = forward.hidden_states(source, folded_rows(source, np.concatenate(texts)), offsets)
    vectors = forward.embeddings(source, hidden, offsets)[:, :dim]
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
