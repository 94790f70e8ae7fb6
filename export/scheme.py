"""The schemes: which matrix of a model file is stored in which format."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..kernels.config import EncoderConfig
from ..kernels.embedding_rows import RATE_BITS, table_bytes
from ..kernels.errors import InputError
from ..kernels.layout import MatrixFormat, matrices
from ..kernels.model_file import SCHEMES, Scheme, TensorInfo, embedding_info

# EXPERIMENTS.md has what each choice costs and brings.

_HEAD = "head"  # is int8 in every scheme but float32: in int4 it alone would cost 0.005 of cosine

# Layers whose matrices are int8, as shares of all: the first and the last, where errors cost most.
_INT8_LAYERS: dict[Scheme, tuple[float, float]] = {"balanced": (1 / 6, 1 / 3), "mixed": (5 / 24, 3 / 8), "int4": (0, 0)}
# The same of single kinds of matrices, from one share of all layers to another, in all schemes: those that cost most by
# the byte, at the beginning in rare languages above all, at the end in all.
_INT8_KINDS = (("qkv", 0, 1 / 8), ("gate_up", 0, 1 / 4), ("down", 0, 1 / 6), ("down", 19 / 24, 1))

# Of the rows of the table, from the most frequent pieces to the rarest: which share has how many bits an element.
_ROWS: dict[Scheme, tuple[tuple[float, float], ...]] = {
    "balanced": ((3 / 32, 6), (9 / 32, 5), (15 / 32, 4), (5 / 32, 3.5)),
    "mixed": ((3 / 32, 6), (1 / 8, 5), (27 / 64, 4), (23 / 64, 3.5)),
    "int4": ((1 / 32, 6), (3 / 32, 5), (5 / 32, 4), (3 / 8, 3.5), (7 / 32, 3), (1 / 8, 2.5)),
}


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
    """The format of the embedding table; that of "int4" has rows of several rates."""
    return scheme if scheme in ("float32", "int8") else "int4"


def row_rates(vocab: int, scheme: Scheme) -> npt.NDArray[np.uint8]:
    """The rates of the rows of an embedding table, (vocab,), the highest first; see kernels/embedding_rows.py."""
    shares, bits = np.array(_ROWS[scheme]).T
    ends = np.round(vocab * np.cumsum(shares)).astype(int)
    return np.repeat((RATE_BITS * bits).astype(np.uint8), np.diff(ends, prepend=0))


def planned_embedding(config: EncoderConfig, scheme: Scheme) -> TensorInfo:
    """The embedding table of a whole vocabulary."""
    size = table_bytes(row_rates(config.vocab, scheme), config.hidden) if scheme in _ROWS else 0
    return embedding_info(config, embedding_format(scheme), size)


def keeps_tokenizer_model(scheme: Scheme) -> bool:
    """Whether a file has the sentencepiece model besides the table of the C tokenizer.

    `int4` is for where every megabyte counts: these are 4.7 MB that only Python without the C engine needs.
    """
    return scheme != "int4"


def calibrates_on_short_sentences(scheme: Scheme) -> bool:
    """Whether short sentences are calibrated on: int8 does not gain by them."""
    return scheme != "int8"
