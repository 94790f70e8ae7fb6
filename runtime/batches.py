"""From texts to what a backend takes: the tokenizer of a model file, and batches that bound memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from .kernels.batch import runs_of_texts
from .kernels.errors import ModelFileError
from .kernels.native import library_problem
from .kernels.native_tokenizer import NativeTokenizer
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np
    import numpy.typing as npt

    from .kernels.model_file import ModelFile

    Tokenized: TypeAlias = tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]  # ids of texts end to end, offsets


def open_tokenizer(model_file: ModelFile) -> Tokenizer | NativeTokenizer | None:
    """The tokenizer of the file: the C engine's if it can run, else SentencePiece's; None if the file has none."""
    config = model_file.config
    tokenizer: Tokenizer | NativeTokenizer
    try:
        if model_file.tokenizer_table is not None and library_problem() is None:
            tokenizer = NativeTokenizer(model_file.tokenizer_table, config.bos_id, config.eos_id)
        elif model_file.tokenizer_model is not None:
            tokenizer = Tokenizer(bytes(model_file.tokenizer_model), config.bos_id, config.eos_id)
        else:
            return None
    except ModelFileError as error:
        raise ModelFileError(f"{model_file.path}: {error}") from error
    if tokenizer.vocab > config.vocab:
        raise ModelFileError(
            f"{model_file.path}: the tokenizer has {tokenizer.vocab} pieces and the embedding table {config.vocab} "
            "rows, so they do not belong together; convert the checkpoint again"
        )
    return tokenizer


def batches(tokenized: Iterable[Tokenized], most_texts: int, most_tokens: int) -> Iterator[Tokenized]:
    """Runs of at most `most_texts` texts and `most_tokens` tokens; no single text has more."""
    for ids, offsets in tokenized:
        for first, last in runs_of_texts(offsets, most_tokens, most_texts):
            run = offsets[first : last + 1]
            yield ids[run[0] : run[-1]], run - run[0]
