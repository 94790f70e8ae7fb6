"""Checks of arguments: done once, before anything is computed."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .kernels.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

    TokenIds: TypeAlias = Sequence[int] | npt.NDArray[np.integer[Any]]


def check_texts(sentences: str | Iterable[str]) -> list[str]:
    """The texts as a list of valid strings; raises InputError naming the first that is not one."""
    if isinstance(sentences, str):
        texts = [sentences]
    elif isinstance(sentences, bytes | bytearray | Mapping | Set) or not isinstance(sentences, Iterable):
        hint = '; decode it first, as with text.decode("utf-8")' if isinstance(sentences, bytes | bytearray) else ""
        raise InputError(f"sentences is of type {type(sentences).__name__}; expected a str or a list of str{hint}")
    else:
        texts = list(sentences)
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"sentences[{i}] is of type {type(text).__name__}; expected str")
        check_unicode(f"sentences[{i}]", text)
    return texts


def join_token_ids(texts: Sequence[TokenIds]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Ids of all texts end to end, and where each begins, for `check_batch`, which checks their numbers."""
    rows = [np.asarray(text) for text in texts]
    for i, row in enumerate(rows):
        if row.ndim != 1:
            raise InputError(f"ids[{i}] has shape {row.shape}; expected token ids in a row")
        if row.size and row.dtype.kind not in "iu":
            raise InputError(f"ids[{i}] has elements of type {row.dtype}; expected integers")
    ids = np.concatenate([np.empty(0, np.int64), *(row.astype(np.int64) for row in rows)])
    return ids, np.cumsum([0, *map(len, rows)], dtype=np.int64)


def check_integer(name: str, value: int, low: int, high: int | None) -> int:
    """`value` as an int within these bounds."""
    expected = f"an integer from {low} to {high}" if high is not None else f"an integer of at least {low}"
    try:
        number = operator.index(value)
    except TypeError:
        raise InputError(f"{name} is of type {type(value).__name__}; expected {expected}") from None
    if isinstance(value, bool) or number < low or (high is not None and number > high):
        raise InputError(f"{name}={value!r}; expected {expected}")
    return number


def check_unicode(name: str, text: str) -> None:
    """Raises InputError, with the place, if `text` has no UTF-8 form. The tokenizer relies on this check."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name} has a lone surrogate {text[error.start]!r} at character {error.start}, so it is not valid "
            f'Unicode; decode the original bytes with errors="replace", or drop the character'
        ) from None
