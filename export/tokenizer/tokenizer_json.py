"""A SentencePiece model made of tokenizer.json, for checkpoints without tokenizer.model, as save_pretrained makes them.

Pieces and their order are all that a model of Gemma's kind is made of, and tokenizer.json has both: `tokenizer_files`
checks that its merges are those of the pieces. Texts get the same ids, and the C tokenizer the same table.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...kernels.errors import CheckpointError
from ...kernels.safetensors_file import shorten
from ...onnx.protobuf import VARINT, length_delimited, varint
from .pieces import BYTE, BYTE_NAMES, BYTE_PAIRS, CONTROL, NORMAL, UNKNOWN, USER_DEFINED

# Protobuf, sentencepiece_model.proto: fields of the model, and of its messages.
_PIECE, _TRAINER, _NORMALIZER = 1, 2, 3
_SPELLING, _SCORE, _TYPE = 1, 2, 3
_MODEL_TYPE, _VOCAB_SIZE, _BYTE_FALLBACK, _FIRST_SPELLING = 3, 4, 35, 45  # spellings of <unk>, <bos> and <eos>
_NAME, _DUMMY_PREFIX, _NO_EXTRA_SPACES = 1, 3, 4
_FLOAT32 = 5  # wire type


def sentencepiece_model(path: Path, raw: Any, bos_id: int, eos_id: int) -> bytes:
    """The SentencePiece model with the pieces of tokenizer.json, of which `raw` is the content.

    Raises CheckpointError where there is no vocabulary, or one that no model can have.
    """
    model = raw.get("model") if isinstance(raw, dict) else None
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(model, dict) or not isinstance(vocab, dict) or not all(type(i) is int for i in vocab.values()):
        raise CheckpointError(f"{path}: its model is {shorten(model)}; expected one with a vocab of ids by token")
    names = sorted(vocab, key=vocab.__getitem__)
    if [vocab[name] for name in names] != list(range(len(names))) or max(bos_id, eos_id) >= len(names):
        raise CheckpointError(
            f"{path}: its vocabulary of {len(names)} tokens leaves ids out, gives one twice, or has none for <bos> "
            f"({bos_id}) or <eos> ({eos_id}); save the tokenizer again with save_pretrained"
        )
    unknown = model.get("unk_token")
    if unknown not in names or vocab[unknown] in (bos_id, eos_id):
        raise CheckpointError(f"{path}: unk_token is {shorten(unknown)}; expected a token of its vocabulary")
    special = {unknown: UNKNOWN, names[bos_id]: CONTROL, names[eos_id]: CONTROL}
    added = {content for content in _added(raw) if content in vocab}
    kinds = {**dict.fromkeys(added, USER_DEFINED), **special, **dict.fromkeys(BYTE_NAMES, BYTE)}
    pieces = [_piece(name, i, kinds.get(name, NORMAL)) for i, name in enumerate(names)]
    trainer = _number(_MODEL_TYPE, BYTE_PAIRS) + _number(_VOCAB_SIZE, len(names)) + _number(_BYTE_FALLBACK, 1)
    for number, name in enumerate(special, start=_FIRST_SPELLING):
        trainer += length_delimited(number, name.encode())
    normalizer = length_delimited(_NAME, b"identity") + _number(_DUMMY_PREFIX, 0) + _number(_NO_EXTRA_SPACES, 0)
    settings = [length_delimited(_TRAINER, trainer), length_delimited(_NORMALIZER, normalizer)]
    return b"".join([*pieces, *settings])


def _added(raw: dict[str, Any]) -> Iterator[str]:
    """The spellings of the added tokens; `added_tokens` checks them."""
    tokens = raw.get("added_tokens")
    for token in tokens if isinstance(tokens, list) else ():
        if isinstance(token, dict) and isinstance(token.get("content"), str):
            yield token["content"]


def _piece(name: str, i: int, kind: int) -> bytes:
    """A piece; a normal one merges before those of higher ids, which have lower scores."""
    score = struct.pack("<f", -i if kind == NORMAL else 0)
    message = length_delimited(_SPELLING, name.encode()) + varint(_SCORE << 3 | _FLOAT32) + score
    return length_delimited(_PIECE, message + (b"" if kind == NORMAL else _number(_TYPE, kind)))


def _number(number: int, value: int) -> bytes:
    return varint(number << 3 | VARINT) + varint(value)
