"""`EmbeddingModel.tokenizer`: token ids by the calls of a Hugging Face tokenizer, for programs that count tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .arguments import refuse_unknown
from .inputs import check_choice, check_integer, check_texts
from .kernels.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .kernels.batch import TokenizedTexts
    from .model import EmbeddingModel

UNLIMITED = 1 << 30  # tokens; the C engine counts in 32 bits
CUTS = {"longest_first": True, "only_first": True, "do_not_truncate": False}  # values of `truncation`


class TokenizerCalls:
    """Gives the ids of texts, which may be longer than the model takes.

    Args:
        model: what it belongs to.
        encode_batch: of the model's tokenizer.
        vocab_size: number of pieces.
    """

    __slots__ = ("_encode_batch", "_model", "vocab_size")  # what has no effect cannot be set

    def __init__(
        self, model: EmbeddingModel, encode_batch: Callable[[list[str], int], TokenizedTexts], vocab_size: int
    ) -> None:
        self._model = model
        self._encode_batch = encode_batch
        self.vocab_size = vocab_size

    @property
    def bos_token_id(self) -> int:
        """The token before every text."""
        return self._model.config.bos_id

    @property
    def eos_token_id(self) -> int:
        """The token after every text."""
        return self._model.config.eos_id

    @property
    def model_max_length(self) -> int:
        """To which `truncation=True` cuts: `max_seq_length` of the model, which is set along with it."""
        return self._model.max_seq_length

    @model_max_length.setter
    def model_max_length(self, tokens: int) -> None:
        self._model.max_seq_length = tokens

    def __len__(self) -> int:
        return self.vocab_size

    def __call__(
        self,
        text: str | Iterable[str],
        *,
        add_special_tokens: bool = True,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Lists "input_ids" and "attention_mask" of one text, or one of each for several, without padding.

        Texts are cut to max_length tokens if it is given, and to `model_max_length` if only truncation=True is;
        never with truncation=False. Raises InputError for what is no text, and for other arguments.
        """
        refuse_unknown(
            "tokenizer", kwargs, without_effect=("return_attention_mask", "return_token_type_ids", "verbose")
        )
        around = 2  # <bos> and <eos>
        limit = UNLIMITED
        if max_length is not None:
            limit = check_integer("max_length", max_length, around if add_special_tokens else 1, UNLIMITED)
        elif truncation:
            limit = self.model_max_length
        if isinstance(truncation, str):
            truncation = CUTS[check_choice("truncation", truncation, CUTS)]
        elif not isinstance(truncation, bool | None):
            raise InputError(f"truncation is of type {type(truncation).__name__}; expected a bool")
        if truncation is False:
            limit = UNLIMITED
        rows = self._encode_batch(check_texts(text), limit if add_special_tokens else limit + around).split()
        if not add_special_tokens:
            rows = [row[1:-1] for row in rows]
        masks = [[1] * len(row) for row in rows]
        single = isinstance(text, str)
        return {"input_ids": rows[0] if single else rows, "attention_mask": masks[0] if single else masks}

    def encode(self, text: str, **kwargs: Any) -> list[int]:
        """The ids of one text; arguments as for a call."""
        ids: list[int] = self(text, **kwargs)["input_ids"]
        return ids
