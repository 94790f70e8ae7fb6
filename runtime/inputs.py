"""Checks of arguments: done once, before anything is computed."""

from __future__ import annotations

import operator
import os
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .kernels.errors import InputError
from .kernels.safetensors_file import shorten

if TYPE_CHECKING:
    import numpy.typing as npt

    TokenIds: TypeAlias = Sequence[int] | npt.NDArray[np.integer[Any]]

MOST_INTEGER = (1 << 31) - 1  # of an argument that means "as many as there are", so that no arithmetic wraps


def is_one_text(inputs: object) -> bool:
    """Whether this is one text: a string, or an object such as {"text": "…"}, as sentence-transformers takes it."""
    return isinstance(inputs, str) or (isinstance(inputs, dict) and inputs.keys() == {"text"})


def check_texts(inputs: Any) -> list[str]:
    """The texts as a list of valid strings; raises InputError naming the first that is not one."""
    if is_one_text(inputs):
        texts = [inputs]
    elif not _is_row(inputs):
        raise InputError(f"inputs is of type {type(inputs).__name__}; expected a str or a list of str{_hint(inputs)}")
    else:
        texts = list(inputs)
    for i, text in enumerate(texts):
        if isinstance(text, dict) and is_one_text(text):
            text = texts[i] = text["text"]  # noqa: PLW2901
        if not isinstance(text, str):
            raise InputError(f"inputs[{i}] is of type {type(text).__name__}; expected str{_hint(text)}")
        check_unicode(f"inputs[{i}]", text)
    return texts


def _is_row(inputs: object) -> bool:
    """Whether iterating gives values in an order, not keys or the names of columns."""
    if isinstance(inputs, bytes | bytearray | Mapping | Set | type) or not isinstance(inputs, Iterable):
        return False
    dimensions = getattr(inputs, "ndim", None)  # arrays, and the series, index and data frame of pandas have it
    return not hasattr(inputs, "keys") if dimensions is None else dimensions == 1


def _hint(value: object) -> str:
    """What to do with a value that is no text."""
    if isinstance(value, bytes | bytearray):
        return '; decode it first, as with text.decode("utf-8")'
    if isinstance(value, Mapping) and {"role", "content"} <= value.keys():
        return "; pass the content of a chat message"
    if hasattr(value, "columns"):
        return "; pass one of its columns"
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        # sentence-transformers gives a pair to the tokenizer as one text with <bos> and <eos> inside, or with none at
        # all, as a template of tokenizer.json for pairs has it. The model has never seen such ids.
        return "; join a pair of texts into one, and flatten lists of texts"
    return ""


def join_token_ids(texts: Iterable[TokenIds]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Ids of all texts end to end, and where each begins, for `check_batch`, which checks their numbers."""
    try:
        rows = [np.asarray(text) for text in texts]
    except (TypeError, ValueError) as error:
        raise InputError(f"ids are not token ids in rows ({error}); pass a list of lists of integers") from error
    for i, row in enumerate(rows):
        if row.ndim != 1:
            raise InputError(f"ids[{i}] has shape {row.shape}; expected token ids in a row")
        if row.size and row.dtype.kind not in "iu":
            raise InputError(f"ids[{i}] has elements of type {row.dtype}; expected integers")
    ids = np.concatenate([np.empty(0, np.int64), *(row.astype(np.int64) for row in rows)])
    return ids, np.cumsum([0, *map(len, rows)], dtype=np.int64)


def check_path(name: str, path: Any) -> Path:
    """The path; raises InputError for what cannot be one."""
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise InputError(f"{name} is of type {type(path).__name__}; expected str or os.PathLike")
    if not os.fspath(path):  # which would mean the folder that we are in
        raise InputError(f"{name} is empty; expected the name of a file or a folder")
    if "\0" in os.fspath(path):
        raise InputError(f"{name} is {shorten(path)}; expected no zero character: no file has one in its name")
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise InputError(f"{name} is {shorten(path)}; expected a name without lone surrogates") from None
    return Path(path)


def check_integer(name: str, value: int, low: int, high: int = MOST_INTEGER) -> int:
    """`value` as an int within these bounds."""
    expected = f"an integer from {low} to {high}"
    try:
        number = operator.index(value)
    except TypeError:
        raise InputError(f"{name} is of type {type(value).__name__}; expected {expected}") from None
    if isinstance(value, bool) or not low <= number <= high:
        raise InputError(f"{name}={shorten(value)}; expected {expected}")
    return number


def check_truth(name: str, value: Any) -> bool:
    """Whether `value` is true; raises InputError for what is neither, such as an array."""
    try:
        return bool(value)
    except (TypeError, ValueError):
        raise InputError(f"{name} is of type {type(value).__name__}; expected True or False") from None


def check_choice(name: str, value: Any, choices: Collection[str]) -> str:
    """`value` if it is one of these names."""
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"{name}={shorten(value)}; expected one of {', '.join(map(repr, choices))}")
    return value


def check_unicode(name: str, text: str) -> None:
    """Raises InputError, with the place, if `text` has no UTF-8 form. The tokenizer relies on this check."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name} has a lone surrogate {text[error.start]!r} at character {error.start}, so it is not valid "
            f'Unicode; decode the original bytes with errors="replace", or drop the character'
        ) from None
