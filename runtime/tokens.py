"""`EmbeddingModel.tokenizer`: token ids by the calls of a Hugging Face tokenizer, for programs that count tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .arguments import refuse_unknown
from .inputs import check_integer, check_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .kernels.batch import TokenizedTexts

UNLIMITED = 1 << 30  # tokens; the C engine counts in 32 bits


class TokenizerCalls:
    """Gives the ids of texts, which may be longer than the model takes.

    Args:
        encode_batch: of the model's tokenizer.
        bos_token_id, eos_token_id: the tokens around every text.
        vocab_size: number of pieces.
        model_max_length: to which `truncation=True` cuts.
    """

    def __init__(
        self,
        encode_batch: Callable[[list[str], int], TokenizedTexts],
        *,
        bos_token_id: int,
        eos_token_id: int,
        vocab_size: int,
        model_max_length: int,
    ) -> None:
        self._encode_batch = encode_batch
        self.bos_token_id = bos_token_id
        self.eos_token_id = eos_token_id
        self.vocab_size = vocab_size
        self.model_max_length = model_max_length

    def __len__(self) -> int:
        return self.vocab_size

    def __call__(
        self,
        text: str | Iterable[str],
        *,
        add_special_tokens: bool = True,
        truncation: bool | str = False,
        max_length: int | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Lists "input_ids" and "attention_mask" of one text, or one of each for several, without padding.

        Raises InputError for what is no text, and for other arguments.
        """
        refuse_unknown(
            "tokenizer", kwargs, without_effect=("return_attention_mask", "return_token_type_ids", "verbose")
        )
        limit = UNLIMITED
        if truncation not in (False, "do_not_truncate"):
            limit = self.model_max_length if max_length is None else check_integer("max_length", max_length, 2)
        rows = self._encode_batch(check_texts(text), limit).split()
        if not add_special_tokens:
            rows = [row[1:-1] for row in rows]
        masks = [[1] * len(row) for row in rows]
        single = isinstance(text, str)
        return {"input_ids": rows[0] if single else rows, "attention_mask": masks[0] if single else masks}

    def encode(self, text: str, **kwargs: Any) -> list[int]:
        """The ids of one text; arguments as for a call."""
        ids: list[int] = self(text, **kwargs)["input_ids"]
        return ids
