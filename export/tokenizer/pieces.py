"""The pieces of a SentencePiece model of Gemma's kind, read from the model itself.

A model is a protobuf message, declared in sentencepiece_model.proto; SentencePiece's Python interface gives neither the
types of its pieces nor its settings.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from ...kernels.errors import CheckpointError
from ...kernels.tokenizer_table import MOST_RUN
from ...onnx.protobuf import VARINT, fields, read_varint

SPACE_SYMBOL = "▁"  # how SentencePiece writes a space
MOST_PIECE_BYTES = 255

# Types of pieces; those of another type, unused ones, are never made of text.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
SPECIAL = (UNKNOWN, CONTROL, USER_DEFINED)
BYTE_PAIRS = 2  # type of a model
UNUSED = re.compile(r"<unused\d+>")  # special pieces that no text has unless it spells them out
PIECE = 1  # the field of a model that holds a piece
BYTE_NAMES = tuple(f"<0x{byte:02X}>" for byte in range(256))

_Message: TypeAlias = dict[int, int | bytes]  # the last value of every field


@dataclass(frozen=True)
class Pieces:
    """The pieces of a model.

    Attributes:
        count: how many there are; ids are below it.
        normal: ids of what merging makes and of single characters, by spelling; what has a lower id merges first.
        special: ids of what is cut out of the raw text before anything is merged, by spelling.
        cut: normal pieces that hold a special one, so that no text has them once it is cut.
        runs: ids of the special pieces "▁▁", "▁▁▁", ...
        byte_ids: (256,) id of the piece of each byte.
    """

    count: int
    normal: dict[str, int]
    special: dict[str, int]
    cut: frozenset[str]
    runs: list[int]
    byte_ids: list[int]


def read_pieces(model_bytes: bytes) -> Pieces:
    """The pieces of a valid SentencePiece model; raises CheckpointError if it is not of Gemma's kind."""
    model = list(message_fields(model_bytes))
    _check_settings(dict(model))
    normal: dict[str, int] = {}
    special: dict[str, int] = {}
    byte_ids: dict[str, int] = {}
    last_score = float("inf")
    pieces = [_message(value) for key, value in model if key == PIECE]
    for i, piece in enumerate(pieces):
        name, score, kind = _text(piece.get(1)), _float(piece.get(2)), piece.get(3, NORMAL)
        if kind == NORMAL:
            if score >= last_score:
                raise unsupported(f"piece {name!r} does not rank after the one before it")
            normal[name], last_score = i, score
        elif kind in SPECIAL:
            special[name] = i
        elif kind == BYTE:
            byte_ids[name] = i
    if byte_ids.keys() != {*BYTE_NAMES}:
        raise unsupported("it has no piece for every byte, so it cannot spell every character")
    cut = _cut(normal, special)
    _check_spelling(normal, special, cut)
    return Pieces(len(pieces), normal, special, cut, _runs(special), [byte_ids[name] for name in BYTE_NAMES])


def piece_types(model_bytes: bytes) -> list[tuple[str, int]]:
    """Spelling and type of each piece of a valid SentencePiece model, by id."""
    pieces = [_message(value) for key, value in message_fields(model_bytes) if key == PIECE]
    return [(_text(piece.get(1)), int(piece.get(3, NORMAL))) for piece in pieces]


def unsupported(reason: str) -> CheckpointError:
    """The error for a model whose ids the C tokenizer would not give."""
    return CheckpointError(f"the tokenizer is not of Gemma's kind: {reason}")


def _check_settings(model: _Message) -> None:
    """Checks that the model merges byte pairs, and that it changes nothing in a text but spaces to "▁"."""
    trainer, normalizer = _message(model.get(2, b"")), _message(model.get(3, b""))
    if trainer.get(3) != BYTE_PAIRS:
        raise unsupported("it does not merge byte pairs")
    charsmap, add_dummy_prefix, remove_extra_whitespaces = (normalizer.get(key) for key in (2, 3, 4))
    if charsmap or add_dummy_prefix != 0 or remove_extra_whitespaces != 0 or normalizer.get(5, 1) != 1:
        raise unsupported("it normalises texts")


def _check_spelling(normal: dict[str, int], special: dict[str, int], cut: frozenset[str]) -> None:
    """Checks that every piece can be stored, and that merging may make it, which makes it of characters."""
    for name in (*normal, *special):
        if not name or " " in name or "\0" in name or len(name.encode()) > MOST_PIECE_BYTES:
            raise unsupported(f"it has the piece {name!r}")
    for name in normal.keys() - cut:
        if not all(character in normal for character in name):
            raise unsupported(f"piece {name!r} has a character that is no piece")


def _cut(normal: dict[str, int], special: dict[str, int]) -> frozenset[str]:
    """The normal pieces that hold a special one, which is cut out before anything is merged."""
    specials = re.compile("|".join(re.escape(name) for name in sorted(special) if name) or r"(?!)")
    return frozenset(name for name in normal if specials.search(name))


def _runs(special: dict[str, int]) -> list[int]:
    """Ids of the special pieces "▁▁", "▁▁▁", ...; no other special piece may hold a "▁"."""
    runs: list[int] = []
    while (run := SPACE_SYMBOL * (len(runs) + 2)) in special and len(run) <= MOST_RUN:
        runs.append(special[run])
    with_spaces = [name for name in special if SPACE_SYMBOL in name]
    if len(with_spaces) > len(runs):
        raise unsupported(f"of its special pieces with spaces {with_spaces}, only runs of 2, 3, ... {MOST_RUN} may be")
    return runs


def message_fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a valid message."""
    for field in fields(message, 0, len(message)):
        is_number = field.wire_type == VARINT
        yield field.number, read_varint(message, field.value)[0] if is_number else message[field.value : field.end]


def _message(value: int | bytes) -> _Message:
    return dict(message_fields(value)) if isinstance(value, bytes) else {}


def _text(value: int | bytes | None) -> str:
    try:
        return value.decode() if isinstance(value, bytes) else ""
    except UnicodeDecodeError as error:
        raise unsupported(f"the piece {value!r} is not UTF-8") from error


def _float(value: int | bytes | None) -> float:
    return float(struct.unpack("<f", value)[0]) if isinstance(value, bytes) else 0.0
