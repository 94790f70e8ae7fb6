"""Tokens that were added to a tokenizer after its training: into the SentencePiece model, so that all read one list.

Hugging Face's tokenizer cuts a text at every added token, first at those of the raw text, then at those of the
normalised one (`normalized`), and merges only between the cuts. A user-defined piece of SentencePiece does the same,
and so does a special piece in the table of the C tokenizer: each added token becomes such a piece. What these cannot do
is refused.

Tokens beyond the embedding table, such as `<image_soft_token>` of the published checkpoint, have no vector: they stay
ordinary text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...kernels.errors import CheckpointError
from ...kernels.safetensors_file import shorten
from ...onnx.protobuf import length_delimited
from ..settings.json_file import is_there, read_json
from .double_array import MOST_UNITS
from .pieces import MOST_PIECE_BYTES, NORMAL, SPACE_SYMBOL, SPECIAL, USER_DEFINED, message_fields

TOKENIZER_JSON = "tokenizer.json"
_ID = re.compile("[0-9]{1,9}")
_FLAGS = ("lstrip", "rstrip", "single_word", "normalized")
_NO_FLAGS = 2  # members of an entry that has only an id and a content

# Protobuf: the field of a model that holds a piece, and fields of a piece, of which the last of a kind counts.
_PIECE = 1
_SPELLING = 1
_NO_SCORE = b"\x15\0\0\0\0"
_USER_DEFINED = bytes([0x18, USER_DEFINED])


@dataclass(frozen=True)
class AddedToken:
    """One added token, and how Hugging Face's tokenizer looks for it.

    Attributes:
        id, content: its id, and its spelling.
        normalized: whether it is looked for after those that are not.
        extends: the flags that make it swallow spaces or want the end of a word beside it.
    """

    id: int
    content: str
    normalized: bool
    extends: tuple[str, ...]


def read_added_tokens(folder: Path, tokenizer_json: Any) -> list[AddedToken]:
    """The added tokens of a checkpoint; raises CheckpointError if its files disagree.

    tokenizer_json is the content of tokenizer.json, which lists all. Where it is None, as there is no such file,
    tokenizer_config.json and, older, added_tokens.json list them.
    """
    tokens: dict[str, AddedToken] = {}
    for path, entries in _listed(folder, tokenizer_json):
        for raw in entries:
            token = _token(path, raw)
            known = tokens.get(token.content)
            if known is None and (tokenizer_json is None or path.name == TOKENIZER_JSON):
                tokens[token.content] = token
            elif known != token and (known is None or known.id != token.id or len(raw) > _NO_FLAGS):
                raise CheckpointError(
                    f"{path}: added token {shorten(raw)} differs from that of another file of the tokenizer; save the "
                    "tokenizer again with save_pretrained"
                )
    return sorted(tokens.values(), key=lambda token: 0 if tokenizer_json else token.id)  # the order of tokenizer.json


def optional_json(path: Path) -> Any:
    """The JSON of a file; None if there is no such file."""
    return read_json(path) if is_there(path) else None


def add_tokens(
    model: bytes, pieces: list[tuple[str, int]], tokens: Iterable[AddedToken], rows: int, path: Path
) -> bytes:
    """The SentencePiece model with these tokens as user-defined pieces; the same bytes if it has them all.

    pieces are its `piece_types`, and rows is the size of the embedding table; tokens beyond it are left out. Raises
    CheckpointError for a token of which the model would make other ids than Hugging Face's tokenizer; path says where
    the tokens come from.
    """
    ids = {name: i for i, (name, _) in enumerate(pieces)}
    retyped: set[int] = set()
    new: list[str] = []
    for token in tokens:
        i = ids.get(token.content, len(pieces) + len(new))
        if token.id != i:
            raise _refused(
                path, token, f"Hugging Face's tokenizer gives it the id {i}, as it is a piece or the next id"
            )
        kind = pieces[i][1] if i < len(pieces) else None
        if kind is None:
            new.append(token.content)
        elif kind == NORMAL:
            retyped.add(i)
        elif kind not in SPECIAL:
            raise _refused(path, token, "it spells a byte, or a piece that is not used")
    tokens = [token for token in tokens if token.id < rows]
    changed = {token.id for token in tokens if token.id >= len(pieces)} | retyped
    _check_cuts(path, tokens, changed, [name for name, kind in pieces if kind in SPECIAL and kind != USER_DEFINED])
    new = new[: rows - len(pieces)]
    return _with_pieces(model, retyped, new) if retyped or new else model


def without_tokens(content: bytes, beyond: set[str]) -> bytes:
    """A JSON file of a tokenizer without these added tokens; the same bytes if it does not name them."""
    raw = json.loads(content)

    def names(value: Any) -> bool:
        return (value.get("content") if isinstance(value, dict) else value) in beyond

    def kept(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: kept(item) for key, item in value.items() if not _is_token(item) or not names(item)}
        if isinstance(value, list):
            return [kept(item) for item in value if not _is_token(item) or not names(item)]
        return value

    model = raw.pop("model", None)  # its vocabulary has none of them, and is large
    clean = kept(raw)
    if clean == raw:
        return content
    return json.dumps(clean if model is None else {**clean, "model": model}, ensure_ascii=False).encode()


def _is_token(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, dict) and isinstance(value.get("content"), str))


# ---- reading ----------------------------------------------------------------------------------------------------


def _listed(folder: Path, tokenizer_json: Any) -> Iterable[tuple[Path, list[dict[str, Any]]]]:
    """The files that list added tokens, and their entries, with an id each."""
    yield folder / TOKENIZER_JSON, _entries(folder / TOKENIZER_JSON, tokenizer_json, "added_tokens", list)
    path = folder / "tokenizer_config.json"
    decoder = _entries(path, optional_json(path), "added_tokens_decoder", dict)
    yield path, [{**_entry(path, raw), "id": int(key) if _ID.fullmatch(key) else key} for key, raw in decoder.items()]
    path = folder / "added_tokens.json"
    ids = _entries(path, {"": optional_json(path)}, "", dict)
    yield path, [{"id": i, "content": name} for name, i in ids.items()]


def _entries(path: Path, raw: Any, key: str, kind: type) -> Any:
    """The list or object under a key of a file's JSON, empty if it is absent."""
    entries = raw.get(key) if isinstance(raw, dict) else raw
    if entries is not None and not isinstance(entries, kind):
        raise CheckpointError(f"{path}: {key or 'it'} is {shorten(entries)}; expected a list of tokens")
    return entries or kind()


def _entry(path: Path, raw: Any) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path}: an added token is {shorten(raw)}; expected an object")
    return raw


def _token(path: Path, raw: Any) -> AddedToken:
    """One added token, from its JSON; absent flags have the defaults of Hugging Face's library."""
    raw = _entry(path, raw)
    i, content = raw.get("id"), raw.get("content")
    flags = {key: raw.get(key, key == "normalized" and raw.get("special") is not True) for key in _FLAGS}
    valid = type(i) is int and i >= 0 and isinstance(content, str)
    if not valid or not all(type(on) is bool for on in flags.values()):
        raise CheckpointError(f"{path}: an added token is {shorten(raw)}; expected an id, its content, and flags")
    normalized = flags.pop("normalized")
    return AddedToken(i, content, normalized, tuple(key for key, on in flags.items() if on))


# ---- checks -----------------------------------------------------------------------------------------------------


def _refused(path: Path, token: AddedToken, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: added token {shorten(token.content)} with id {token.id} is not supported: {reason}; "
        "train without it, or spell it in another way"
    )


def _check_cuts(path: Path, tokens: list[AddedToken], changed: set[int], controls: list[str]) -> None:
    """Checks that user-defined pieces cut texts where these added tokens do; changed are ids that the model had not."""
    for token in tokens:
        name = token.content
        if name and not name.strip(SPACE_SYMBOL) and token.id not in changed:
            continue  # a run of spaces, which merging makes too
        if not name or len(name.encode("utf-8", "surrogatepass")) > MOST_PIECE_BYTES or token.id >= MOST_UNITS:
            raise _refused(path, token, f"1 to {MOST_PIECE_BYTES} bytes, and ids below {MOST_UNITS}, are possible")
        if any("\ud800" <= character <= "\udfff" for character in name) or "\0" in name or " " in name:
            raise _refused(path, token, "it holds a space, or what is no text")
        if SPACE_SYMBOL in name or ("\n" in name and name.strip("\n")):
            raise _refused(path, token, f"it holds {SPACE_SYMBOL!r}, or a line break beside other characters")
    first_cut = _Overlaps(token.content for token in tokens if not token.normalized)
    control_cut = _Overlaps(controls)
    for token in tokens:
        if token.extends:
            raise _refused(path, token, f"{' and '.join(token.extends)} is set")
        if token.normalized and (" " in token.content or SPACE_SYMBOL in token.content):
            raise _refused(path, token, "it is normalized and holds a space")
        other = first_cut.of(token.content) if token.normalized else None
        other = other or control_cut.of(token.content)
        if other is not None:
            raise _refused(path, token, f"it holds or overlaps {other!r}, which is cut out before it")


class _Overlaps:
    """Tells which of some tokens may begin inside of another one, where the one that begins first would win."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = set(names)
        self._begins = {name[:i]: name for name in self._names for i in range(1, len(name))}

    def of(self, token: str) -> str | None:
        """A name that the token holds, or that its end begins."""
        for start in range(len(token)):
            for end in range(start + 1, len(token) + 1):
                if token[start:end] in self._names and end - start < len(token):
                    return token[start:end]
            if start and token[start:] in self._begins:
                return self._begins[token[start:]]
        return None


# ---- protobuf ---------------------------------------------------------------------------------------------------


def _with_pieces(model: bytes, retyped: set[int], new: list[str]) -> bytes:
    """The model with some pieces made user-defined, and new ones behind those that it has."""
    parts: list[bytes] = []
    i = 0
    for number, value in message_fields(model):
        message = value if isinstance(value, bytes) else b""
        if number == _PIECE:
            parts.append(length_delimited(_PIECE, message + _USER_DEFINED if i in retyped else message))
            i += 1
        else:
            parts.append(length_delimited(number, message))
    for name in new:
        spelling = length_delimited(_SPELLING, name.encode())
        parts.append(length_delimited(_PIECE, spelling + _NO_SCORE + _USER_DEFINED))
    return b"".join(parts)
