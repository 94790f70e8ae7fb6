"""How often pieces occur in texts: in files of the user's own, or in lists of the words of a language."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ...kernels.native_tokenizer import NativeTokenizer
from ...tokenizer import Tokenizer
from .texts import read_texts

Counts: TypeAlias = npt.NDArray[np.float64]  # (pieces,)

_TEXTS_AT_ONCE = 4096
_WHOLE = 1 << 40  # tokens: no text is cut
_WITHOUT_SPACE = 0.02  # of the words, which begin a text, or stand after a bracket
_RARE = 3e6  # the rank of a word for each of its pieces, if it has several: ten times that of the last piece
_HEAD = 64  # characters: more than a text's first word, which has other pieces after a prompt


@dataclass
class Coverage:
    """Tokens of texts that are kept pieces, among all tokens; <bos>, <eos> and prompts are not counted."""

    covered: int = 0
    tokens: int = 0

    def __str__(self) -> str:
        if not self.tokens:
            return "there is no token in the texts"
        return f"{self.covered / self.tokens:.3%} of the {self.tokens:,} tokens of the texts are covered"


@dataclass(frozen=True)
class Counter:
    """Counts the pieces that a tokenizer makes of texts."""

    tokenizer: Tokenizer | NativeTokenizer

    def of_texts(self, texts: list[str], weights: Counts | None = None) -> Counts:
        """How often each piece occurs in texts, without <bos> and <eos>; a text may count more than once, or less."""
        counts = np.zeros(self.tokenizer.vocab)
        for begin in range(0, len(texts), _TEXTS_AT_ONCE):
            part = slice(begin, begin + _TEXTS_AT_ONCE)
            tokenized = self.tokenizer.encode_batch(texts[part], _WHOLE)
            inner = np.ones(len(tokenized.ids), bool)
            inner[tokenized.offsets[:-1]] = inner[tokenized.offsets[1:] - 1] = False
            weight = np.ones(len(texts[part])) if weights is None else weights[part]
            of_tokens = np.repeat(weight, np.diff(tokenized.offsets))
            counts += np.bincount(tokenized.ids[inner], of_tokens[inner], len(counts))
        return counts

    def of_words(self, words: dict[str, float], *, spaced: bool) -> Counts:
        """How often each piece occurs in texts of words in small letters, each with its frequency.

        How often a word is written with large letters, the pieces tell: see `_ranks`.
        """
        frequencies = np.array([*words.values()])
        written = [[f" {change(word)}" for word in words] for change in (str.lower, str.capitalize, str.upper)]
        frequent = np.stack([1 / self._ranks(forms if spaced else [form[1:] for form in forms]) for forms in written])
        with_space, without = (1.0, _WITHOUT_SPACE) if spaced else (_WITHOUT_SPACE, 1.0)
        counts = np.zeros(self.tokenizer.vocab)
        for forms, share in zip(written, frequent / frequent.sum(axis=0), strict=True):
            counts += self.of_texts(forms, frequencies * share * with_space)
            counts += self.of_texts([form[1:] for form in forms], frequencies * share * without)
        return counts

    def _ranks(self, forms: list[str]) -> Counts:
        """(forms,) how many others are more frequent, roughly: the id of a piece, which were made in this order.

        What is of several pieces is rarer than all that are one. Frequencies go by 1 / rank (Zipf's law).
        """
        ranks = np.empty(len(forms))
        for begin in range(0, len(forms), _TEXTS_AT_ONCE):
            part = slice(begin, begin + _TEXTS_AT_ONCE)
            tokenized = self.tokenizer.encode_batch(forms[part], _WHOLE)
            tokens = np.diff(tokenized.offsets) - 2
            first = tokenized.ids[tokenized.offsets[:-1] + 1]
            ranks[part] = np.where(tokens == 1, np.maximum(first, 1), _RARE * np.maximum(tokens, 1))
        return ranks

    def of_files(self, files: Iterable[Path], prompts: Iterable[str] = ()) -> tuple[Counts, Counts]:
        """How often each piece occurs in texts of files, and how often in their first words after a prompt."""
        counts, first = (np.zeros(self.tokenizer.vocab) for _ in range(2))
        ends = {_last_word(prompt) for prompt in prompts if prompt.strip(" ")}
        for file in files:
            texts = read_texts(file)
            while part := [*islice(texts, _TEXTS_AT_ONCE)]:
                counts += self.of_texts(part)
                for end in ends:
                    first += self.of_texts([end + text[:_HEAD] for text in part])
        return counts, first


def _last_word(prompt: str) -> str:
    """The last word of a prompt, with the space before it where a text's first word may grow together with it."""
    return prompt[max(0, prompt.rstrip(" ").rfind(" ") + prompt.endswith(" ")) :]
