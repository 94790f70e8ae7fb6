"""A part of the vocabulary: the same tokenizer with fewer pieces, in each of the forms that a tokenizer has.

A text whose pieces were all kept has the same pieces as before, if with every piece the two that it is merged from are
kept, and theirs, as `closed` has them. Merging such a text makes nothing but its pieces and what these are merged from.
So no step of it is missing, and none was added: the step that comes first of all that are possible is still possible,
and still comes first. Of other texts merging makes smaller pieces, of characters without a piece their bytes.

The special pieces that are left out are cut out of no text any more, which changes only texts that spell them out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ...onnx.protobuf import length_delimited
from .merges import Merges
from .pieces import PIECE, Pieces, message_fields
from .tokenizer_table import make_table


class Closure:
    """Pieces to keep, to which others are added with all that they are merged from."""

    def __init__(self, pieces: Pieces, merges: Merges) -> None:
        self.kept: set[int] = set()
        self._parts = {
            pieces.normal[name]: (pieces.normal[left], pieces.normal[right]) for name, (left, right) in merges.items()
        }

    def missing(self, piece: int) -> set[int]:
        """The piece and what it is merged from, without what is kept."""
        found: set[int] = set()
        todo = [piece]
        while todo:
            piece = todo.pop()
            if piece not in self.kept and piece not in found:
                found.add(piece)
                todo += self._parts.get(piece, ())
        return found

    def add(self, pieces: Iterable[int], most: int | None = None) -> None:
        """Keeps these pieces, in this order, as long as there are not more than `most` in all."""
        for piece in pieces:
            found = self.missing(piece)
            if most is not None and len(self.kept) + len(found) > most:
                break
            self.kept |= found


def restrict_table(pieces: Pieces, merges: Merges, kept: Iterable[int]) -> npt.NDArray[np.uint8]:
    """The table of a closed part of these pieces, which has bytes and runs of spaces; its ids are 0, 1, … in order."""
    ids = {old: new for new, old in enumerate(sorted(kept))}
    part = replace(
        pieces,
        count=len(ids),
        normal={name: ids[i] for name, i in pieces.normal.items() if i in ids},
        special={name: ids[i] for name, i in pieces.special.items() if i in ids},
        runs=[ids[i] for i in pieces.runs],
        byte_ids=[ids[i] for i in pieces.byte_ids],
    )
    return make_table(part, {name: pair for name, pair in merges.items() if name in part.normal})


def restrict_model(model_bytes: bytes, kept: Iterable[int]) -> bytes:
    """The valid SentencePiece model with a closed part of its pieces."""
    kept = {*kept}
    fields: list[bytes] = []
    i = 0
    for number, value in message_fields(model_bytes):
        if number != PIECE or i in kept:
            fields.append(length_delimited(number, value if isinstance(value, bytes) else b""))
        i += number == PIECE
    return b"".join(fields)


def restrict_json(raw: Any, ids: Mapping[int, int]) -> Any:
    """The content of a checked tokenizer.json with a closed part of its pieces; ids has the new ids by the old ones."""
    model, vocab = raw["model"], raw["model"]["vocab"]
    names = {name: ids[i] for name, i in vocab.items() if i in ids}

    def is_kept(merge: Any) -> bool:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        return left in names and right in names and left + right in names

    part = {**model, "vocab": names, "merges": [merge for merge in model["merges"] if is_kept(merge)]}
    added = [{**token, "id": ids[token["id"]]} for token in raw["added_tokens"] if token["id"] in ids]
    return {**_renumbered(raw, ids), "model": part, "added_tokens": added}


def restrict_config(raw: Any, ids: Mapping[int, int], rows: int) -> Any:
    """The same of config.json, for an embedding table of so many rows, and of tokenizer_config.json."""

    def renumbered(key: str, value: Any) -> Any:
        if key == "vocab_size":
            return rows
        if key.endswith("_token_id"):
            return [ids[i] for i in value if i in ids] if isinstance(value, list) else ids.get(value)
        if key == "added_tokens_decoder":
            return {str(ids[int(i)]): token for i, token in value.items() if int(i) in ids}
        return value

    return {key: renumbered(key, value) for key, value in raw.items()}


def _renumbered(raw: Any, ids: Mapping[int, int]) -> Any:
    """What comes before and after the model, with new ids: in lists of ids, under the key "ids"."""
    if isinstance(raw, dict):
        return {
            key: [ids[i] for i in value] if key == "ids" else _renumbered(value, ids)
            for key, value in raw.items()
            if key not in ("model", "added_tokens")
        }
    return [_renumbered(value, ids) for value in raw] if isinstance(raw, list) else raw
