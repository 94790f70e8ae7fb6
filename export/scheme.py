"""The schemes: which matrix of a model file is stored in which format."""

from __future__ import annotations

import math
from dataclasses import replace

from ..kernels.config import EncoderConfig
from ..kernels.errors import InputError
from ..kernels.layout import EMBEDDING_GROUP_GRAIN, MatrixFormat, RowFormat, matrices
from ..kernels.model_file import SCHEMES, Scheme

# EXPERIMENTS.md has what each choice costs and brings.

_HEAD = "head"  # is int8 in every scheme but float32: in int4 it alone would cost 0.005 of cosine

# Layers whose matrices are int8, as shares of all: the first and the last, where errors cost most.
_INT8_LAYERS: dict[Scheme, tuple[float, float]] = {"balanced": (1 / 6, 1 / 3), "mixed": (5 / 24, 3 / 8), "int4": (0, 0)}

# Scales per row of a quantised embedding table, where the width of a row allows, and whether it has codebooks.
_EMBEDDING: dict[Scheme, RowFormat] = {
    "float32": RowFormat("float32"),
    "int8": RowFormat("int8", 1),
    "balanced": RowFormat("int4", 24, codebooks=True),
    "mixed": RowFormat("int4", 1, codebooks=True),
    "int4": RowFormat("int4", 1),
}


def scheme_formats(config: EncoderConfig, scheme: Scheme) -> dict[str, MatrixFormat]:
    """The format of each matrix by name; raises InputError for an unknown scheme."""
    names = [spec.name for spec in matrices(config)]
    if scheme not in SCHEMES:
        raise InputError(f"unknown scheme {scheme!r}; expected one of {', '.join(SCHEMES)}")
    if scheme in ("float32", "int8"):
        return dict.fromkeys(names, scheme)
    int8 = outer_matrices(config, *_INT8_LAYERS[scheme])
    return {name: "int8" if name in int8 else "int4" for name in names}


def outer_matrices(config: EncoderConfig, first: float, last: float) -> set[str]:
    """The head and the matrices of the first and the last layers, given as shares of all layers."""
    start, stop = round(config.layers * first), config.layers - round(config.layers * last)
    layers = tuple(f"layers.{i}." for i in range(config.layers) if not start <= i < stop)
    return {spec.name for spec in matrices(config) if spec.name.startswith((_HEAD, *layers))}


def embedding_format(config: EncoderConfig, scheme: Scheme) -> RowFormat:
    """How the rows of the embedding table are stored."""
    row = _EMBEDDING[scheme]
    groups = math.gcd(row.groups, config.hidden // EMBEDDING_GROUP_GRAIN) if row.groups else 0
    return replace(row, groups=groups)


def keeps_tokenizer_model(scheme: Scheme) -> bool:
    """Whether a file has the sentencepiece model besides the table of the C tokenizer.

    `int4` is for where every megabyte counts: these are 4.7 MB that only Python without the C engine needs.
    """
    return scheme != "int4"


def calibrates_on_short_sentences(scheme: Scheme) -> bool:
    """Whether short sentences are calibrated on: int8 does not gain by them, and `balanced` was not measured."""
    return scheme in ("mixed", "int4")
