"""The tokenizer of the C engine: the ids of `Tokenizer`, ten times as fast, from a table that needs no loading."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .kernels.native import load_library
from .tokenizer import TokenizedText

if TYPE_CHECKING:
    from collections.abc import Sequence


class NativeTokenizer:
    """Turns texts into token ids.

    Args:
        table: (bytes,) the tensor `tokenizer.table` of a model file; it is read where it lies.
        bos_id, eos_id: the tokens put around every text.

    Raises:
        ModelFileError: this is no such table.
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
        return self.encode_batch([text], max_tokens)[0]

    def encode_batch(self, texts: Sequence[str], max_tokens: int) -> list[TokenizedText]:
        """See `Tokenizer.encode_batch`; all of it is one call of the C engine, during which other threads run."""
        encoded = [text.encode() for text in texts]
        sizes = np.fromiter(map(len, encoded), np.int64, len(encoded))
        text_offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        ids = np.empty(int(np.minimum(sizes + 2, max_tokens).sum()), np.int32)  # a token has at least one byte
        offsets = np.empty(len(encoded) + 1, np.int64)
        truncated = np.empty(len(encoded), np.uint8)
        from_buffer = self._library.ffi.from_buffer
        status = self._library.c.eg_tokenize_batch(
            self._tokenizer,
            from_buffer(b"".join(encoded)),
            from_buffer("uint64_t[]", text_offsets),  # not negative, so the same bits
            len(encoded),
            max_tokens,
            from_buffer("int32_t[]", ids),
            len(ids),
            from_buffer("uint64_t[]", offsets),
            from_buffer("uint8_t[]", truncated),
        )
        self._library.check(status)
        bounds = offsets.tolist()
        values = ids[: bounds[-1]].tolist()
        return [
            TokenizedText(values[begin:end], truncated=bool(cut))
            for begin, end, cut in zip(bounds, bounds[1:], truncated.tolist(), strict=False)
        ]
