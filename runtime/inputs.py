"""Checks of what callers pass in, done once, before anything is computed."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .kernels.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

    from .kernels.config import EncoderConfig

    TokenIds: TypeAlias = Sequence[int] | npt.NDArray[np.integer[Any]]


def check_texts(sentences: str | Iterable[str]) -> list[str]:
    """The texts as a list, all of them valid: an error names the first that is not, before anything is computed."""
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


def check_token_ids(index: int, text: TokenIds, config: EncoderConfig) -> npt.NDArray[np.int32]:
    """The ids of text number `index` as a valid array."""
    ids = np.asarray(text)
    if ids.ndim != 1 or not 1 <= len(ids) <= config.max_tokens:
        raise InputError(f"ids[{index}] has shape {ids.shape}; expected 1 to {config.max_tokens} token ids in a row")
    if ids.dtype.kind not in "iu":
        raise InputError(f"ids[{index}] has elements of type {ids.dtype}; expected integers")
    if ids.min() < 0 or ids.max() >= config.vocab:
        raise InputError(f"ids[{index}] has ids from {ids.min()} to {ids.max()}; expected 0 to {config.vocab - 1}")
    return ids.astype(np.int32)


def check_integer(name: str, value: int, low: int, high: int | None) -> int:
    """`value` as an int within bounds."""
    expected = f"an integer from {low} to {high}" if high is not None else f"an integer of at least {low}"
    try:
        number = operator.index(value)
    except TypeError:
        raise InputError(f"{name} is of type {type(value).__name__}; expected {expected}") from None
    if isinstance(value, bool) or number < low or (high is not None and number > high):
        raise InputError(f"{name}={value!r}; expected {expected}")
    return number


def check_unicode(name: str, text: str) -> None:
    """Raises InputError if `text` has no UTF-8 form, saying where. The tokenizer relies on this check."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name} has a lone surrogate {text[error.start]!r} at character {error.start}, so it is not valid "
            f'Unicode; decode the original bytes with errors="replace", or drop the character'
        ) from None
