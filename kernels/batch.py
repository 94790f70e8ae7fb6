"""The batch that every backend encodes: token ids of all texts laid end to end, without padding."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .config import EncoderConfig
from .errors import InputError


def check_batch(
    config: EncoderConfig, ids: npt.NDArray[Any], offsets: npt.NDArray[Any], dim: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Checks the arguments of `Backend.encode`.

    Args:
        config: of the model that is to encode them.
        ids: (tokens,) token ids.
        offsets: (texts + 1,) text i is `ids[offsets[i]:offsets[i + 1]]`.
        dim: embedding size.

    Returns:
        ids as int32 and offsets as int64, both contiguous.

    Raises:
        InputError: an argument has the wrong type or shape, or an id, a length or `dim` is out of range.
    """
    for name, array in (("ids", ids), ("offsets", offsets)):
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise InputError(f"{name} has shape {array.shape} and type {array.dtype}; expected one row of integers")
    if not 1 <= dim <= config.hidden:
        raise InputError(f"an embedding size of {dim} was asked for; expected 1 to {config.hidden}")
    if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != len(ids):
        raise InputError(f"offsets are {offsets}; expected them to begin with 0 and end with {len(ids)}, the last id")
    lengths = np.diff(offsets.astype(np.int64))  # (texts,) tokens
    wrong = np.flatnonzero((lengths < 1) | (lengths > config.max_tokens))
    if wrong.size:
        raise InputError(f"text {wrong[0]} has {lengths[wrong[0]]} tokens; expected 1 to {config.max_tokens}")
    wrong = np.flatnonzero((ids < 0) | (ids >= config.vocab))
    if wrong.size:
        raise InputError(f"token {wrong[0]} has id {ids[wrong[0]]}; expected 0 to {config.vocab - 1}")
    return np.ascontiguousarray(ids, np.int32), np.ascontiguousarray(offsets, np.int64)
