"""The schemes: which matrix of a model file is stored in which format."""

from __future__ import annotations

import math
from dataclasses import replace

from ..kernels.config import EncoderConfig
from ..kernels.errors import InputError
from ..kernels.layout import EMBEDDING_GROUP_GRAIN, MatrixFormat, RowFormat, matrices
from ..kernels.model_file import SCHEMES, Scheme

# The head is int8 in every scheme but float32. It has an eighth of the weights of the two layers that are folded into
# it, so with 8 bits it takes a quarter of what they would with 4. With 4 bits it alone would cost 0.005 of cosine.
_HEAD = "head"

# `mixed` is Google's e4_a8_f4_p4 (arXiv 2509.20354, section 4.3): attention keeps 8 bits, table and feed-forward 4.
_MIXED_INT8 = (".qkv", ".o")

# `balanced` gives 8 bits to where errors cost most, and 4 to the rest. What the parts of an int4 model cost each, as
# 1e-4 of cosine to float32, mean over the golden texts of up to 200 tokens / the worst of them: the embedding table
# 24 / 169, qkv 28 / 198, o 20 / 129, gate_up 47 / 181, down 44 / 208, the head 50 / 72; layers 0-1 18 / 169,
# 2-3 14 / 137, 4-5 7 / 76, 6-11 16 / 137, 12-17 17 / 40, 18-23 62 / 88. And with ever more in int8, by how much the
# file grows:
#   nothing                                 189 / 521     head, first 4 and last 6 layers  + 21.4 MB    60 / 296
#   head                        + 0.3 MB    139 / 486     the same, 24 scales in the table + 31.9 MB    57 / 287
#   head and last 4 layers      + 9.0 MB     92 / 431     head, first 6 and last 6 layers  + 36.2 MB    52 / 255
#   head and last 6 layers      + 13.3 MB    79 / 426     head, first 4 and last 8 layers  + 36.2 MB    47 / 265
#   head, first 2 and last 6    + 17.5 MB    70 / 335     qkv and o                         + 29.4 MB   152 / 537
_FIRST_INT8, _LAST_INT8 = 1 / 6, 1 / 3  # of the layers

# Scales per row of a quantised embedding table, where the width of a row allows, and whether it has codebooks. The
# squared error of an int4 row, as a share of the row's square: with codebooks 0.0060 with 1 scale, 0.0051 with 12,
# 0.0046 with 24, one per 32 elements; without them 0.0095 with 1. A scale takes 0.5 MB of the real file and codebooks
# 3.1 MB; either would lift int4 above 160 MB.
_EMBEDDING: dict[Scheme, RowFormat] = {
    "float32": RowFormat("float32"),
    "int8": RowFormat("int8", 1),
    "balanced": RowFormat("int4", 24, codebooks=True),
    "mixed": RowFormat("int4", 24, codebooks=True),
    "int4": RowFormat("int4", 1),
}

# `int4` is for where every megabyte counts: it leaves out the sentencepiece model, 4.7 MB that only Python without the
# C engine needs.
_WITHOUT_TOKENIZER_MODEL: tuple[Scheme, ...] = ("int4",)

# Which are calibrated on the short sentences, too; see calibration.py. By golden cosines, mean / min without and with
# them: mixed 0.9936 / 0.952 and 0.9940 / 0.978, int4 0.9909 / 0.950 and 0.9917 / 0.972, int8 0.9997 / 0.999 and
# 0.9995 / 0.990. `balanced` has been measured without them.
_WITH_SHORT_SENTENCES: tuple[Scheme, ...] = ("mixed", "int4")


def scheme_formats(config: EncoderConfig, scheme: Scheme) -> dict[str, MatrixFormat]:
    """The format of each matrix by name; raises InputError for an unknown scheme."""
    names = [spec.name for spec in matrices(config)]
    if scheme not in SCHEMES:
        raise InputError(f"unknown scheme {scheme!r}; expected one of {', '.join(SCHEMES)}")
    if scheme in ("float32", "int8"):
        return dict.fromkeys(names, scheme)
    int8 = {_HEAD}
    if scheme == "balanced":
        first, last = round(config.layers * _FIRST_INT8), config.layers - round(config.layers * _LAST_INT8)
        layers = tuple(f"layers.{i}." for i in range(config.layers) if not first <= i < last)
        int8.update(name for name in names if name.startswith(layers))
    elif scheme == "mixed":
        int8.update(name for name in names if name.endswith(_MIXED_INT8))
    return {name: "int8" if name in int8 else "int4" for name in names}


def embedding_format(config: EncoderConfig, scheme: Scheme) -> RowFormat:
    """How the rows of the embedding table are stored."""
    row = _EMBEDDING[scheme]
    groups = math.gcd(row.groups, config.hidden // EMBEDDING_GROUP_GRAIN) if row.groups else 0
    return replace(row, groups=groups)


def keeps_tokenizer_model(scheme: Scheme) -> bool:
    """Whether a file has the sentencepiece model beside the table that the C engine tokenizes with."""
    return scheme not in _WITHOUT_TOKENIZER_MODEL


def calibrates_on_short_sentences(scheme: Scheme) -> bool:
    """Whether the short sentences are among the texts that a scheme is calibrated on, unless the user has others."""
    return scheme in _WITH_SHORT_SENTENCES
