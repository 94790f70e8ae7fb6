"""The batch that every backend encodes: token ids of all texts, end to end, without padding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from .config import EncoderConfig
from .errors import BackendError, InputError, VectorError

# A vector of a length in this range has a direction, and its squares lose no digits in float32. No model comes near.
SHORTEST, LONGEST = 2.0**-50, float(np.sqrt(np.finfo(np.float32).max))


# Numbers that tell how sums are rounded and whether numbers below 2^-1022 are kept: see check_floats.
_ONE, _HALF_STEP, _MOST_OF_A_STEP, _SMALLEST_NORMAL = 1.0, 2.0**-53, 3 * 2.0**-54, 2.0**-1022


@dataclass(frozen=True)
class TokenizedText:
    """The ids of one text, `<bos>` and `<eos>` included, and whether its end was cut off to fit."""

    ids: list[int]
    truncated: bool


@dataclass(frozen=True)
class TokenizedTexts:
    """The ids of several texts, as `Backend.encode` takes them.

    Attributes:
        ids: (total,) int32, of all texts end to end.
        offsets: (texts + 1,) int64, where each text begins, and last where they end.
        truncated: (texts,) bool, whether the end of each was cut off to fit.
    """

    ids: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    truncated: npt.NDArray[np.bool_]

    def split(self) -> list[list[int]]:
        """The ids of each text."""
        return [self.ids[begin:end].tolist() for begin, end in pairwise(self.offsets)]


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
        text = int(np.searchsorted(offsets, wrong[0], side="right")) - 1
        token = wrong[0] - offsets[text]
        raise InputError(f"text {text} has id {ids[wrong[0]]} at token {token}; expected 0 to {config.vocab - 1}")
    return np.ascontiguousarray(ids, np.int32), np.ascontiguousarray(offsets, np.int64)


def runs_of_texts(
    offsets: npt.NDArray[np.int64], most_tokens: int, most_texts: int | None = None
) -> Iterator[tuple[int, int]]:
    """The first text and the one after the last of runs of so many tokens and texts at most; a long text is alone."""
    first = 0
    while first < len(offsets) - 1:
        last = max(first + 1, int(np.searchsorted(offsets, offsets[first] + most_tokens, side="right")) - 1)
        last = last if most_texts is None else min(last, first + most_texts)
        yield first, last
        first = last


def finish_vectors(vectors: npt.NDArray[Any], normalize: bool) -> npt.NDArray[np.float32]:
    """Float32 vectors (texts, dim) of what a backend computed in any float type, of unit length if that is asked for.

    Raises VectorError for the first that is not finite, or has no direction, and BackendError as check_floats.
    """
    check_floats()
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    wrong = np.flatnonzero(~((lengths >= SHORTEST) & (lengths <= LONGEST)))  # as is NaN
    if wrong.size:
        raise VectorError(int(wrong[0]))
    return np.asarray(vectors / lengths if normalize else vectors, np.float32)


def check_floats() -> None:
    """Raises BackendError if the program has changed how this thread rounds: then vectors would be others.

    The C engine needs no such check, since it sets its own mode.
    """
    to_nearest = _ONE + _HALF_STEP == _ONE and _ONE + _MOST_OF_A_STEP > _ONE
    if not to_nearest or _SMALLEST_NORMAL / 2 == 0:
        raise BackendError(
            "this thread does not round to the nearest number, or turns small ones into 0, so vectors would be wrong: "
            "restore the default by fesetenv(FE_DFL_ENV), or use the C engine, backend='native', which needs no default"
        )


def check_finite(rows: npt.NDArray[np.float32], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """The rows of texts at these offsets; raises VectorError for the first text with one that is not finite."""
    check_floats()
    wrong = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if wrong.size:
        raise VectorError(int(np.searchsorted(offsets, wrong[0], side="right")) - 1)
    return rows
