"""The schemes: which matrix of a model file is stored in which format."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..kernels.config import EncoderConfig
from ..kernels.errors import InputError
from ..kernels.layout import MatrixFormat, matrices, table_bytes
from ..kernels.model_file import SCHEMES, Scheme, TensorInfo, embedding_info

# EXPERIMENTS.md has what each choice costs and brings.

_HEAD = "head"  # is int8 in every scheme but float32: in int4 it alone would cost 0.005 of cosine

# Layers whose matrices are int8, as shares of all: the first and the last, where errors cost most.
_INT8_LAYERS: dict[Scheme, tuple[float, float]] = {"balanced": (1 / 6, 1 / 3), "mixed": (5 / 24, 3 / 8), "int4": (0, 0)}
# The same of single kinds of matrices, from one share of all layers to another, in all schemes: those that cost most by
# the byte, at the beginning in rare languages above all, at the end in all.
_INT8_KINDS = (("qkv", 1 / 24, 1 / 8), ("gate_up", 1 / 24, 1 / 6), ("down", 0, 1 / 6), ("down", 19 / 24, 1))

# Rows of frequent pieces that have 8 and 6 bits, and of rare ones that have 3, as shares of the table.
_ROWS: dict[Scheme, tuple[float, float, float]] = {
    "balanced": (1 / 8, 0, 0),
    "mixed": (1 / 64, 3 / 16, 3 / 11),
    "int4": (1 / 64, 3 / 32, 9 / 16),
}


class RowCounts(NamedTuple):
    """How many rows of an embedding table have 8, 6, 4 and 3 bits an element."""

    int8: int
    int6: int
    int4: int
    int3: int

    def bits(self) -> npt.NDArray[np.uint8]:
        """Those of each row, (vocab,), the largest first."""
        return np.repeat(np.array([8, 6, 4, 3], np.uint8), self)


def scheme_formats(config: EncoderConfig, scheme: Scheme) -> dict[str, MatrixFormat]:
    """The format of each matrix by name; raises InputError for an unknown scheme."""
    names = [spec.name for spec in matrices(config)]
    if scheme not in SCHEMES:
        raise InputError(f"unknown scheme {scheme!r}; expected one of {', '.join(SCHEMES)}")
    if scheme in ("float32", "int8"):
        return dict.fromkeys(names, scheme)
    int8 = outer_matrices(config, *_INT8_LAYERS[scheme])
    for kind, *shares in _INT8_KINDS:
        int8 |= {f"layers.{i}.{kind}" for i in range(*(round(config.layers * share) for share in shares))}
    return {name: "int8" if name in int8 else "int4" for name in names}


def outer_matrices(config: EncoderConfig, first: float, last: float) -> set[str]:
    """The head and the matrices of the first and the last layers, given as shares of all layers."""
    start, stop = round(config.layers * first), config.layers - round(config.layers * last)
    layers = tuple(f"layers.{i}." for i in range(config.layers) if not start <= i < stop)
    return {spec.name for spec in matrices(config) if spec.name.startswith((_HEAD, *layers))}


def embedding_format(scheme: Scheme) -> MatrixFormat:
    """The format of the embedding table; that of "int4" has rows of several bits."""
    return scheme if scheme in ("float32", "int8") else "int4"


def row_counts(vocab: int, scheme: Scheme) -> RowCounts:
    """The rows of a quantised embedding table by their bits."""
    int8, int6, int3 = (round(vocab * share) for share in _ROWS.get(scheme, (1, 0, 0)))
    return RowCounts(int8, int6, vocab - int8 - int6 - int3, int3)


def planned_embedding(config: EncoderConfig, scheme: Scheme) -> TensorInfo:
    """The embedding table of a whole vocabulary."""
    return embedding_info(
        config, embedding_format(scheme), table_bytes(row_counts(config.vocab, scheme).bits(), config.hidden)
    )


def keeps_tokenizer_model(scheme: Scheme) -> bool:
    """Whether a file has the sentencepiece model besides the table of the C tokenizer.

    `int4` is for where every megabyte counts: these are 4.7 MB that only Python without the C engine needs.
    """
    return scheme != "int4"


def calibrates_on_short_sentences(scheme: Scheme) -> bool:
    """Whether short sentences are calibrated on: int8 does not gain by them."""
    return scheme != "int8"
