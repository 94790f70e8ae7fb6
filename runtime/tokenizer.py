"""Text to token ids: the ids that the Hugging Face tokenizer of the checkpoint gives, from `tokenizer.model` alone.

Both tokenizers apply the same byte-pair merges, but they find special tokens in different places:

- Hugging Face cuts the raw text at every added token and merges only between the cuts.
- SentencePiece first writes spaces as "▁". Then it cuts at its user-defined symbols (line breaks, tabs, runs of "▁",
  HTML tags, `<unused7>`, ...), but never at its control symbols (`<bos>`, `<eos>`, `<pad>`, `<unk>`).

The added tokens are exactly the control symbols and the user-defined symbols. So the two differ only in two cases: a
control symbol spelled out in the text, and a run of a literal "▁", which Hugging Face does not join with spaces beside
it. This module makes those cuts and leaves the rest to SentencePiece.

This is the definition. `NativeTokenizer` gives the same ids faster and in less memory; it needs the C engine and its
table.

The checkpoint's `<image_soft_token>` has an id one past the embedding table and is not in `tokenizer.model`. Here it is
ordinary text; sentence-transformers fails with an index error.
"""

from __future__ import annotations

import re
from itertools import accumulate, chain
from typing import TYPE_CHECKING

import numpy as np

from .kernels.batch import TokenizedText, TokenizedTexts
from .kernels.errors import ModelFileError
from .kernels.model_file import MOST_TOKENIZER_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

SPACE_SYMBOL = "▁"  # how SentencePiece writes a space

# A long text is tokenized in parts: at least 64 Ki characters, then to the end of a run of line breaks. No piece has a
# line break beside another character, so nothing merges across such a cut. Text far beyond the last token that fits is
# never read (10 million characters at once take 6 s and 450 MB).
LONG_TEXT_PART = re.compile(r"(?s).{65536}.*?\n(?!\n)|.+")


class Tokenizer:
    """Turns texts into token ids.

    Args:
        model_bytes: the SentencePiece model, the contents of a checkpoint's `tokenizer.model`.
        bos_id, eos_id: the tokens put around every text.

    Raises:
        ModelFileError: the bytes are not a SentencePiece model.
    """

    def __init__(self, model_bytes: bytes, bos_id: int, eos_id: int) -> None:
        if len(model_bytes) > MOST_TOKENIZER_BYTES:  # SentencePiece crashes at 2 GiB
            raise ModelFileError(
                f"the tokenizer has {len(model_bytes)} bytes; expected at most {MOST_TOKENIZER_BYTES}: convert again"
            )
        import sentencepiece  # takes 45 MB, and few users need it

        self._pieces = sentencepiece.SentencePieceProcessor()
        try:
            self._pieces.LoadFromSerializedProto(model_bytes)
            self._controls = self._control_symbols()
            self._cuts = self._cut_pattern()
        except Exception as error:  # of SentencePiece, or where the name of a piece is not UTF-8
            raise ModelFileError(
                f"the tokenizer in the model file is not a SentencePiece model ({error}); convert the checkpoint again"
            ) from error
        self.bos_id = bos_id
        self.eos_id = eos_id

    @property
    def vocab(self) -> int:
        """Number of pieces; every id of a piece is below it."""
        return int(self._pieces.get_piece_size())

    def encode(self, text: str, max_tokens: int) -> TokenizedText:
        """Ids of `<bos>` text `<eos>`. The end of the text is cut to fit into max_tokens, at least 2.

        The text must be valid Unicode: see `inputs.check_unicode`.
        """
        room = max_tokens - 2  # without <bos> and <eos>
        ids: list[int] = []
        for part in LONG_TEXT_PART.finditer(text):
            for fragment in self._cuts.split(part[0]):
                if fragment in self._controls:
                    ids.append(self._controls[fragment])
                elif fragment:
                    ids.extend(self._pieces.encode(fragment))
            if len(ids) > room:
                break  # later parts cannot change earlier ids
        return TokenizedText([self.bos_id, *ids[:room], self.eos_id], truncated=len(ids) > room)

    def encode_batch(self, texts: Sequence[str], max_tokens: int) -> TokenizedTexts:
        """What `encode` gives for each text."""
        tokenized = [self.encode(text, max_tokens) for text in texts]
        return TokenizedTexts(
            np.fromiter(chain.from_iterable(text.ids for text in tokenized), np.int32),
            np.array([0, *accumulate(len(text.ids) for text in tokenized)], np.int64),
            np.array([text.truncated for text in tokenized], np.bool_),
        )

    def _control_symbols(self) -> dict[str, int]:
        """Spelling and id of the control symbols and the unknown symbol."""
        pieces = self._pieces
        ids = (pieces.pad_id(), pieces.eos_id(), pieces.bos_id(), pieces.unk_id())
        return {pieces.id_to_piece(i): i for i in ids if i >= 0}  # -1: the model has none

    def _cut_pattern(self) -> re.Pattern[str]:
        """Matches what is cut out before SentencePiece sees the text: control symbols and runs of "▁".

        A run is cut into the longest pieces that exist. A single "▁" left over is no added token: it stays in the text
        and joins a space after it.
        """
        longest = 1
        while self._pieces.piece_to_id(SPACE_SYMBOL * (longest + 1)) != self._pieces.unk_id():
            longest += 1
        alternatives = [re.escape(symbol) for symbol in self._controls]
        if longest > 1:
            alternatives.append(f"{SPACE_SYMBOL}{{2,{longest}}}")
        return re.compile(f"({'|'.join(alternatives)})" if alternatives else r"(?!)")
