"""The tokenizer of the C engine: the same ids as `Tokenizer`, ten times as fast, from a table that is not loaded."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from .batch import TokenizedText, TokenizedTexts
from .native import load_library

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt


class NativeTokenizer:
    """Turns texts into token ids.

    Args:
        table: (bytes,) the tensor `tokenizer.table` of a model file; it is read in place.
        bos_id, eos_id: the tokens put around every text.

    Raises:
        ModelFileError: this is not such a table.
        BackendError: this install has no C engine.
    """

    def __init__(self, table: npt.NDArray[np.uint8], bos_id: int, eos_id: int) -> None:
        self._library = load_library()
        ffi, c = self._library.ffi, self._library.c
        self._table = ffi.from_buffer(table)  # must outlive the tokenizer
        slot = ffi.new("eg_tokenizer **")
        self._library.check(c.eg_tokenizer_create(self._table, table.nbytes, bos_id, eos_id, ffi.NULL, slot))
        self._tokenizer = ffi.gc(slot[0], c.eg_tokenizer_free)

    @property
    def vocab(self) -> int:
        """Number of pieces; every id is below it."""
        return int(self._library.c.eg_tokenizer_vocab(self._tokenizer))

    def encode(self, text: str, max_tokens: int) -> TokenizedText:
        """See `Tokenizer.encode`."""
        tokenized = self.encode_batch([text], max_tokens)
        return TokenizedText(tokenized.ids.tolist(), bool(tokenized.truncated[0]))

    def encode_batch(self, texts: Sequence[str], max_tokens: int) -> TokenizedTexts:
        """See `Tokenizer.encode_batch`. This is one call of the C engine, so other Python threads run meanwhile."""
        encoded = [text.encode() for text in texts]
        joined = b"".join(encoded)
        capacity = min(len(joined) + 2 * len(texts), max_tokens * len(texts))  # a token has at least one byte
        ids = np.empty(capacity, np.int32)
        offsets = np.empty(len(encoded) + 1, np.int64)
        truncated = np.empty(len(encoded), np.bool_)
        ffi = self._library.ffi
        status = self._library.c.eg_tokenize_batch(
            self._tokenizer,
            joined,
            ffi.new("uint64_t[]", [0, *accumulate(map(len, encoded))]),
            len(encoded),
            max_tokens,
            ffi.from_buffer("int32_t[]", ids),
            capacity,
            ffi.from_buffer("uint64_t[]", offsets),  # not negative, so the same bits
            ffi.from_buffer("uint8_t[]", truncated),
        )
        self._library.check(status)
        return TokenizedTexts(ids[: offsets[-1]], offsets, truncated)
