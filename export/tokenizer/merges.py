"""The merges of a vocabulary, and the proof that the C tokenizer may rely on them.

The C tokenizer (kernels/tokenizer.c) does not simulate merging. It knows of every piece only the two parts that it was
merged from, thanks to two facts:

- **A piece is only ever merged from one pair.** As long as no merge crosses the ends of a stretch of text, the merges
  inside it are those of that stretch alone. So in every context a piece comes from the last merge of its own
  spelling, and a piece that its own spelling does not give (four of Gemma's) appears nowhere.
- **A row of tokens is the tokenization of its text if every two neighbours are that of theirs**, and every text has one
  such row. That holds where pieces are merged in a fixed order, in which none comes before its parts. The order is that
  of the ids, but for a few "late" pieces that rank before a part of theirs, as "▁======" does before "▁=====": merging
  makes them as soon as it makes that part. `check_late_pieces` checks that they may be placed right after it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TypeAlias

import sentencepiece

from .pieces import SPACE_SYMBOL, Pieces, unsupported

Pair: TypeAlias = tuple[str, str]
Merges: TypeAlias = dict[str, Pair]  # of every piece that merging gives, its parts

_NEVER = 1 << 32  # a rank after all others
_CHECKED_AT_ONCE = 8192  # pieces


def find_merges(normal: dict[str, int]) -> Merges:
    """The last merge of every piece of several characters that merging its own spelling gives."""
    merges: Merges = {}
    for name in normal:
        symbols, pair = merge(name, normal)
        if len(symbols) == 1 and pair is not None:
            merges[name] = pair
    return merges


def merge(text: str, normal: dict[str, int]) -> tuple[list[str], Pair | None]:
    """Byte-pair merging by its definition: the tokens of a text of known characters, and the last pair merged."""
    symbols = list(text)
    pair: Pair | None = None
    while True:
        ranks = [normal.get(left + right, _NEVER) for left, right in pairwise(symbols)]
        best = min(ranks, default=_NEVER)
        if best == _NEVER:
            return symbols, pair
        i = ranks.index(best)
        pair = (symbols[i], symbols[i + 1])
        symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]


def check_against_sentencepiece(model_bytes: bytes, pieces: Pieces, merges: Merges) -> None:
    """Checks that SentencePiece itself makes the same of every piece."""
    model = sentencepiece.SentencePieceProcessor(model_proto=model_bytes)
    names = [name for name in pieces.normal if name not in pieces.cut]
    expected = [[name] if name in merges else merge(name, pieces.normal)[0] for name in names]
    for start in range(0, len(names), _CHECKED_AT_ONCE):
        part = slice(start, start + _CHECKED_AT_ONCE)
        for name, tokens, ids in zip(names[part], expected[part], model.encode(names[part]), strict=True):
            if ids != [pieces.normal[token] for token in tokens]:
                raise unsupported(f"SentencePiece tokenizes the piece {name!r} as {ids}, byte-pair merging as {tokens}")


def check_late_pieces(normal: dict[str, int], merges: Merges) -> None:
    """Checks that a piece that ranks before its later part is made at the same place if it ranks right after it.

    Merging makes such a piece as soon as it makes the later part. Until others of that part's rank are merged too,
    nothing else may want what the piece is made of, nor the piece itself. Its first part begins a word, so nothing
    joins it on the left; if that is the later part, no other is in the word; and nothing that the piece is a part of
    may rank before the later part.
    """
    tails = [name[i:] for name in merges for i in range(1, len(name)) if name[i] == SPACE_SYMBOL]
    for name, pair in merges.items():
        later = max((normal[part] for part in pair if part in merges), default=-1)
        if later > normal[name]:
            users = [user for user, parts in merges.items() if name in parts]
            early = [user for user in users if merges[user][0] != name or normal[user] < later]
            joined = [tail for tail in tails if tail.startswith(name) or name.startswith(tail)]
            if early or joined or not name.startswith(SPACE_SYMBOL):
                raise unsupported(f"piece {name!r} ranks before its parts {pair}, and that matters")
