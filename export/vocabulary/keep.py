"""Which pieces a file keeps: those of texts, languages and scripts, and those without which nothing works."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ...kernels.config import VOCAB_GRAIN, EncoderConfig
from ...kernels.errors import InputError
from ...kernels.layout import Tensor
from ...kernels.model_file import EMBEDDING
from ...kernels.native_tokenizer import NativeTokenizer
from ...tokenizer import Tokenizer
from ..tokenizer.pieces import SPACE_SYMBOL, UNUSED, Pieces
from ..tokenizer.read_table import read_table
from ..tokenizer.restrict import Closure, restrict_table
from .counts import Counter, Counts, Coverage
from .languages import UNSPACED, words_of
from .scripts import is_mark, scripts_of

Rows: TypeAlias = npt.NDArray[np.int64]
Table: TypeAlias = npt.NDArray[np.uint8]

_SCRIPT_SHARE = 0.01  # of the tokens in texts, from which on all characters of a script are kept
_LANGUAGE_SHARE = 0.98  # of the tokens in the words of languages that are kept, unless a number of pieces is given
_NAMED = 3  # files in a message
_MARKS = 2  # characters up to which a piece of no letters is always kept


@dataclass(frozen=True)
class Keep:
    """What to keep.

    Attributes:
        texts: files of texts, see `texts`; every piece that occurs in them is kept, unless that is more than `pieces`.
        languages: codes such as "en", see `languages`; the pieces of nearly all of their words.
        scripts: scripts, see `scripts`; every piece of them is kept, unless that is more than `pieces`.
        pieces: how many to keep in all: the most frequent of the texts first, then those of languages and of scripts,
            then others of the scripts that texts and languages have.
    """

    texts: tuple[Path, ...] = ()
    languages: tuple[str, ...] = ()
    scripts: frozenset[str] = frozenset()
    pieces: int | None = None


@dataclass(frozen=True)
class Kept:
    """The part of a vocabulary that is kept.

    Attributes:
        rows: (vocab,) the rows of the embedding table, ascending; a multiple of VOCAB_GRAIN.
        pieces: how many of them, from the first on, belong to pieces.
        of: how many pieces there were.
        table: the tokenizer's table.
        coverage: of the texts.
    """

    rows: Rows
    pieces: int
    of: int
    table: Table
    coverage: Coverage

    @property
    def ids(self) -> dict[int, int]:
        """The new ids of kept pieces, by the old ones."""
        return {old: new for new, old in enumerate(self.rows[: self.pieces].tolist())}

    def config(self, config: EncoderConfig) -> EncoderConfig:
        """The config of a model with these rows."""
        bos, eos = (self.ids[i] for i in (config.bos_id, config.eos_id))
        return replace(config, vocab=len(self.rows), bos_id=bos, eos_id=eos)

    def select(self, tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """The tensors of a model file, the embedding table in parts of its rows, without the rows that are left out."""
        begins: dict[str, int] = {}
        for name, tensor in tensors:
            if not name.startswith(f"{EMBEDDING}."):
                yield name, tensor
                continue
            begin = begins.get(name, 0)
            begins[name] = end = begin + len(tensor)
            first, last = np.searchsorted(self.rows, (begin, end))
            if last > first:
                yield name, tensor[self.rows[first:last] - begin]

    def __str__(self) -> str:
        covered = f"; {self.coverage}" if self.coverage.tokens else ""
        return f"keeping {self.pieces:,} of {self.of:,} pieces{covered}"


@dataclass(frozen=True)
class Vocabulary:
    """What there is to choose from.

    Attributes:
        table: the tokenizer's table.
        tokenizer: what makes its ids of texts.
        config: of the model.
        prompts: those that come before texts.
    """

    table: Table
    tokenizer: Tokenizer | NativeTokenizer
    config: EncoderConfig
    prompts: tuple[str, ...]


def choose(vocabulary: Vocabulary, keep: Keep) -> Kept:
    """Chooses what a file keeps; raises InputError if nothing says what, or `keep.pieces` is too few."""
    if not (keep.texts or keep.languages or keep.scripts):
        raise InputError("nothing says which pieces to keep; give texts, languages or scripts")
    pieces, merges = read_table(vocabulary.table)
    names = {i: name for name, i in pieces.normal.items()}
    counter = Counter(vocabulary.tokenizer)
    counts, first = counter.of_files(keep.texts, vocabulary.prompts)
    if keep.texts and not counts.any():
        listed = ", ".join(map(str, keep.texts[:_NAMED]))
        raise InputError(f"{listed}: there is no text to keep the pieces of; expected one a line")
    words = _words(counter, keep.languages)
    scripts = keep.scripts | _scripts_in(names, counts) | _scripts_in(names, words)
    of_scripts = [i for i, name in names.items() if scripts_of(name) <= scripts]
    closure = Closure(pieces, merges)
    closure.add(_always(pieces))
    closure.add(np.flatnonzero(counter.of_texts([*vocabulary.prompts])).tolist())
    closure.add(i for i in of_scripts if (len(names[i]) == 1 and scripts_of(names[i])) or _is_marks(names[i]))
    always = len(closure.kept)
    if keep.pieces is not None and keep.pieces < always:
        raise InputError(f"{keep.pieces} pieces are too few: {always} are always kept; expected more")
    closure.add(_most_frequent(counts), keep.pieces)
    closure.add(np.flatnonzero(first).tolist(), keep.pieces)
    closure.add(_most_frequent(words, 1 if keep.pieces else _LANGUAGE_SHARE), keep.pieces)
    if keep.scripts:
        closure.add((i for i in of_scripts if scripts_of(names[i]) <= keep.scripts), keep.pieces)
    if keep.pieces is not None:
        closure.add(of_scripts, keep.pieces)
    rows = _whole_blocks(closure, names, vocabulary.config.vocab)
    kept = rows[rows < pieces.count]
    coverage = Coverage(int(counts[kept].sum()), int(counts.sum()))
    return Kept(rows, len(kept), pieces.count, restrict_table(pieces, merges, kept.tolist()), coverage)


def _always(pieces: Pieces) -> list[int]:
    """The pieces of bytes and of spaces, and the special ones."""
    special = [i for name, i in pieces.special.items() if not UNUSED.fullmatch(name)]
    return [*special, *pieces.byte_ids, *pieces.runs, *(pieces.normal[name] for name in [SPACE_SYMBOL])]


def _is_marks(name: str) -> bool:
    """Whether a piece is one or two characters that any text may have, such as "7", "?" or " ("."""
    return len(name) <= _MARKS and all(map(is_mark, name.replace(SPACE_SYMBOL, " ")))


def _words(counter: Counter, languages: Iterable[str]) -> Counts:
    """The share of each piece in the words of languages, added up."""
    shares = np.zeros(counter.tokenizer.vocab)
    for language in languages:
        counts = counter.of_words(words_of(language), spaced=language not in UNSPACED)
        shares += counts / counts.sum()
    return shares


def _most_frequent(counts: Counts, share: float = 1) -> list[int]:
    """The pieces that occur, the most frequent first, as many of them as make a share of all tokens."""
    order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    if share < 1 and len(order):
        order = order[: 1 + np.searchsorted(np.cumsum(counts[order]), share * counts.sum())]
    return [*map(int, order)]


def _scripts_in(names: dict[int, str], counts: Counts) -> frozenset[str]:
    """The scripts of a share of the tokens in texts that is worth all of their characters."""
    tokens: dict[str, float] = {}
    for i in np.flatnonzero(counts).tolist():
        for script in scripts_of(names.get(i, "")):
            tokens[script] = tokens.get(script, 0) + counts[i]
    return frozenset(script for script, count in tokens.items() if count >= _SCRIPT_SHARE * counts.sum())


def _whole_blocks(closure: Closure, names: dict[int, str], vocab: int) -> Rows:
    """The rows of kept pieces, and as many others as make their number a multiple of VOCAB_GRAIN."""
    others = sorted(names, key=lambda i: (len(names[i]) > 1, i))  # characters first, which need no other piece
    most = -(-len(closure.kept) // VOCAB_GRAIN) * VOCAB_GRAIN
    for i in others:
        if len(closure.kept) == most:
            break
        if len(closure.missing(i)) == 1:
            closure.add([i])
    rows = np.array(sorted(closure.kept))
    left = np.setdiff1d(np.arange(vocab)[::-1], rows)[::-1]  # rows of no piece come last
    return np.sort(np.concatenate([rows, left[: most - len(rows)]]))
