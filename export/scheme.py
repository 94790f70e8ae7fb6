"""The schemes: which matrix of a model file is stored in which format."""

from __future__ import annotations

import math
from typing import Literal, get_args

from ..kernels.config import EncoderConfig
from ..kernels.errors import InputError
from ..kernels.layout import EMBEDDING_GROUP_GRAIN, MatrixFormat, matrices
from ..model_file import EMBEDDING

Scheme = Literal["float32", "int8", "mixed", "int4"]

# `mixed` is Google's e4_a8_f4_p4 (arXiv 2509.20354, section 4.3): attention keeps 8 bits, all else has 4.
_MIXED_INT8 = (".qkv", ".o")

# Scales per row of a quantised embedding table, where the width of a row allows. Cosine to float32 over the golden
# texts, mean / min, of a model that is int8 but for an int4 table: 0.991 / 0.913 with 1 scale, 0.993 / 0.942 with 4,
# 0.995 / 0.979 with 24, one per 32 elements. A scale takes 0.5 MB of the real file; 6 would lift int4 above 160 MB.
# For an int8 table 1, 2 and 4 differ by less than a last-bit change elsewhere does.
_EMBEDDING_GROUPS: dict[Scheme, int] = {"int8": 1, "mixed": 24, "int4": 4}


def scheme_formats(config: EncoderConfig, scheme: Scheme) -> dict[str, MatrixFormat]:
    """The format of the embedding table and of each matrix, by name; raises InputError for an unknown scheme."""
    names = [EMBEDDING, *(spec.name for spec in matrices(config))]
    if scheme not in get_args(Scheme):
        raise InputError(f"unknown scheme {scheme!r}; expected one of {', '.join(get_args(Scheme))}")
    if scheme == "mixed":
        return {name: "int8" if name.endswith(_MIXED_INT8) else "int4" for name in names}
    return dict.fromkeys(names, scheme)


def embedding_groups(config: EncoderConfig, scheme: Scheme) -> int:
    """How many scales a row of the embedding table has; 0 for a float32 table, which has none."""
    if scheme == "float32":
        return 0
    return math.gcd(_EMBEDDING_GROUPS[scheme], config.hidden // EMBEDDING_GROUP_GRAIN)
