"""`EmbeddingModel.tokenizer`: token ids by the calls of a Hugging Face tokenizer, for programs that count tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .arguments import refuse_unknown
from .inputs import check_choice, check_integer, check_texts
from .kernels.errors import InputError
from .notices import warn
from .outputs import to_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .kernels.batch import TokenizedTexts
    from .model import EmbeddingModel

UNLIMITED = 1 << 30  # tokens; the C engine counts in 32 bits
CUTS = {"longest_first": True, "only_first": True, "do_not_truncate": False}  # values of `truncation`
PADS = ("longest", "max_length", "do_not_pad")  # values of `padding`


class Encoding(dict[str, Any]):
    """Features by name; each is an attribute too."""

    def __getattr__(self, name: str) -> Any:
        if name not in self:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return self[name]


class TokenizerCalls:
    """Gives the ids of texts, which may be longer than the model takes.

    Args:
        model: what it belongs to.
        encode_batch: of the model's tokenizer.
        vocab_size: number of pieces.
    """

    __slots__ = ("_encode_batch", "_model", "vocab_size")  # what has no effect cannot be set
    padding_side = truncation_side = "right"
    pad_token_id = 0

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

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"the tokenizer has no attribute {name!r}: it gives ids of texts; take more from transformers.AutoTokenizer"
        )

    def __call__(
        self,
        text: str | Iterable[str],
        *,
        add_special_tokens: bool = True,
        padding: bool | str | None = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        return_tensors: str | None = None,
        return_attention_mask: bool | None = None,
        **kwargs: Any,
    ) -> Encoding:
        """Features of one text, or of each of several: "input_ids" and "attention_mask".

        Texts are cut to `model_max_length` with truncation=True, or to max_length if it is given; that alone cuts too,
        unless texts are padded. padding=True or "longest" fills texts up to the longest, "max_length" to the length at
        which they are cut. return_tensors gives "np" arrays or "pt" tensors, int64 (texts, tokens), for the lists.

        Raises InputError for what is no text, and for other arguments.
        """
        refuse_unknown("tokenizer", kwargs, without_effect=("return_token_type_ids", "verbose"))
        around = 2 if add_special_tokens else 0  # <bos> and <eos>
        if max_length is not None:
            max_length = check_integer("max_length", max_length, max(1, around), UNLIMITED)
        full = max_length or self.model_max_length
        cut = _choice("truncation", truncation, tuple(CUTS), max_length is not None and padding is False)
        limit = full if CUTS[cut] else UNLIMITED
        rows = self._encode_batch(check_texts(text), limit + 2 - around).split()
        if not add_special_tokens:
            rows = [row[1:-1] for row in rows]
        pad = _choice("padding", padding, PADS, False)
        if max_length is not None and pad == "longest" and not CUTS[cut]:
            warn("max_length has no effect with padding='longest' and without truncation; give truncation=True")
        width = {"longest": max(map(len, rows), default=0), "max_length": full, "do_not_pad": 0}[pad]
        features = {
            "input_ids": [row + [self.pad_token_id] * (width - len(row)) for row in rows],
            "attention_mask": [[1] * len(row) + [0] * (width - len(row)) for row in rows],
        }
        if return_attention_mask is False:
            del features["attention_mask"]
        if return_tensors is not None:
            return Encoding({name: _stack(each, return_tensors) for name, each in features.items()})
        return Encoding({name: each[0] for name, each in features.items()} if isinstance(text, str) else features)

    def encode_batch(self, texts: list[str], max_tokens: int) -> TokenizedTexts:
        """The ids of texts end to end, each cut to max_tokens, `<bos>` and `<eos>` included; texts must be Unicode."""
        return self._encode_batch(texts, max_tokens)

    def count(self, texts: list[str]) -> list[int]:
        """The tokens of each text, without `<bos>` and `<eos>`; no ids are kept."""
        offsets = self._encode_batch(check_texts(texts), UNLIMITED).offsets
        counts: list[int] = (np.diff(offsets) - 2).tolist()
        return counts

    def encode(self, text: str, **kwargs: Any) -> list[int]:
        """The ids of one text; arguments as for a call."""
        ids: list[int] = self(text, **kwargs)["input_ids"]
        return ids


def _choice(name: str, value: Any, choices: tuple[str, ...], default: bool) -> str:
    """One of these names; True is the first of them, False the last, and None one of both."""
    if value is None or isinstance(value, bool):
        return choices[0] if (default if value is None else value) else choices[-1]
    return check_choice(name, value, choices)


def _stack(rows: list[list[int]], kind: str) -> Any:
    """The rows as one array, or as a torch tensor."""
    if len({*map(len, rows)}) > 1:
        raise InputError(f"texts of different length make no array, as return_tensors={kind!r} asks; give padding=True")
    array = np.array(rows, np.int64)
    return to_tensors(array) if check_choice("return_tensors", kind, ("np", "pt")) == "pt" else array
