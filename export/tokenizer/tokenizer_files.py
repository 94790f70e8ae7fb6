"""The tokenizer of a checkpoint: a SentencePiece model, held against the files that Hugging Face's tokenizer reads.

sentence-transformers tokenizes by tokenizer.json and tokenizer_config.json, and embgemma by tokenizer.model, which is
made of tokenizer.json where there is none. Whatever in those two makes other ids is brought into the model, or refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from ...kernels.errors import CheckpointError, ModelFileError, reading
from ...kernels.model_file import MOST_TOKENIZER_BYTES
from ...kernels.safetensors_file import read_bounded, shorten
from ...tokenizer import Tokenizer
from ..settings.json_file import is_there
from ..settings.settings import check_tokenizer_config
from .added_tokens import TOKENIZER_JSON, add_tokens, optional_json, read_added_tokens, without_tokens
from .pieces import NORMAL, SPACE_SYMBOL, SPECIAL, piece_types
from .tokenizer_json import sentencepiece_model

TOKENIZER_MODEL = "tokenizer.model"
TOKENIZER_FILES = (TOKENIZER_JSON, TOKENIZER_MODEL)
_COPY_MODEL = "use the tokenizer.model that the tokenizer was made of, or remove it: tokenizer.json is enough"

# What tokenizer.json must hold for Gemma's ids; a text without spaces is not split any more.
_NORMALIZER = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE_SYMBOL}
_PRE_TOKENIZER = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
_MODEL: dict[str, tuple[Any, ...]] = {
    "type": ("BPE",),
    "dropout": (None, 0.0),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
    "byte_fallback": (True,),
    "ignore_merges": (None, False),
}


def read_tokenizer(folder: Path, rows: int, bos_id: int, eos_id: int) -> bytes:
    """The SentencePiece model of a checkpoint with all its added tokens; raises CheckpointError as said above.

    rows is the size of the embedding table.
    """
    raw = optional_json(folder / TOKENIZER_JSON)
    model = _read_model(folder, raw, bos_id, eos_id)
    pieces = piece_types(model)
    if len(pieces) > rows:
        raise CheckpointError(
            f"{folder}: the tokenizer has {len(pieces)} pieces; expected at most {rows}, the vocab_size"
        )
    if max(bos_id, eos_id) >= len(pieces):
        raise CheckpointError(
            f"{folder}: bos_token_id {bos_id} or eos_token_id {eos_id} is no piece of tokenizer.model"
        )
    tokens = read_added_tokens(folder, raw)
    listed = {token.content for token in tokens}
    special = {name for name, kind in pieces if kind in SPECIAL}
    if raw is not None:
        _check_tokenizer_json(folder / TOKENIZER_JSON, raw, pieces, (bos_id, eos_id))
        if special - listed:
            raise CheckpointError(
                f"{folder / TOKENIZER_JSON}: {shorten(min(special - listed))} is not among its added tokens, but "
                f"special in the sentencepiece model; {_COPY_MODEL}"
            )
    check_tokenizer_config(folder / "tokenizer_config.json", pieces[bos_id][0], pieces[eos_id][0], alone=raw is None)
    listed |= special
    for path, key, token in _named_tokens(folder):
        if token not in listed:
            raise CheckpointError(
                f"{path}: {key} names {shorten(token)}, which no file of the tokenizer lists with its id; save the "
                "tokenizer again with save_pretrained"
            )
    return add_tokens(model, pieces, tokens, rows, folder)


def _read_model(folder: Path, raw: Any, bos_id: int, eos_id: int) -> bytes:
    """The valid SentencePiece model in tokenizer.model, or that of tokenizer.json, whose content is raw or None."""
    path, made_of = folder / TOKENIZER_MODEL, folder / TOKENIZER_JSON
    if is_there(path):
        with reading(path, CheckpointError):
            model = read_bounded(path, MOST_TOKENIZER_BYTES, "a sentencepiece model")
    elif raw is not None:
        path, model = made_of, sentencepiece_model(made_of, raw, bos_id, eos_id)
    else:
        raise CheckpointError(f"{path}: the file is missing, and so is {TOKENIZER_JSON}; one of them is needed")
    try:
        Tokenizer(model, bos_id, eos_id)
    except ModelFileError as error:
        raise CheckpointError(f"{path}: this is not a sentencepiece model, nor can one be made of it") from error
    return model


def portable_file(path: Path, encoder: Path | None = None) -> bytes:
    """A file of a valid checkpoint's tokenizer as an app needs it: with the tokens that have a vector, and no others.

    Of a token without one, every other tokenizer would make an id past the embedding table. encoder is the folder of
    config.json, if the tokenizer has another.
    """
    content, folder = path.read_bytes(), path.parent
    rows = optional_json((encoder or folder) / "config.json")["vocab_size"]
    tokens = read_added_tokens(folder, optional_json(folder / TOKENIZER_JSON))
    if path.name == TOKENIZER_MODEL:
        return add_tokens(content, piece_types(content), tokens, rows, folder)
    beyond = {token.content for token in tokens if token.id >= rows}
    return without_tokens(content, beyond) if beyond and path.name != "config.json" else content


def _named_tokens(folder: Path) -> Iterator[tuple[Path, str, str]]:
    """The special tokens that files only name; transformers adds what is new of them when it loads the tokenizer."""

    def contents(value: Any) -> Iterator[str]:
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict) and isinstance(value.get("content"), str):
            yield value["content"]
        elif isinstance(value, dict | list):
            for item in value.values() if isinstance(value, dict) else value:
                yield from contents(item)

    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        raw = optional_json(folder / name)
        for key, value in raw.items() if isinstance(raw, dict) else ():
            if key.endswith(("_token", "special_tokens")):
                yield from ((folder / name, key, token) for token in contents(value))


def _check_tokenizer_json(path: Path, raw: Any, pieces: list[tuple[str, int]], ends: tuple[int, int]) -> None:
    """Checks that tokenizer.json merges as tokenizer.model does, and puts bos and eos, the ends, around a text."""
    if not isinstance(raw, dict) or not isinstance(raw.get("model"), dict):
        raise CheckpointError(f"{path}: it is {shorten(raw)}; expected an object with a model")
    model = raw["model"]
    found = {key: (model.get(key), accepted) for key, accepted in _MODEL.items()}
    found["normalizer"] = _only(raw.get("normalizer"), "normalizers"), (_NORMALIZER,)
    found["pre_tokenizer"] = _only(raw.get("pre_tokenizer"), "pretokenizers"), (None, _PRE_TOKENIZER)
    truncation = raw.get("truncation")
    direction = truncation.get("direction", "Right") if isinstance(truncation, dict) else "Right"
    found["direction of truncation"] = direction, ("Right",)
    found["post_processor"] = _ids_around(_only(raw.get("post_processor"), "processors")), ([ends[0], "A", ends[1]],)
    for key, (value, accepted) in found.items():
        if value not in accepted:
            raise CheckpointError(
                f"{path}: {key} is {shorten(value)}; only {shorten(accepted[-1])} is supported, as others make other "
                "token ids: use the published tokenizer"
            )
    vocab, merges = model.get("vocab"), model.get("merges")
    if vocab != {name: i for i, (name, _) in enumerate(pieces)}:
        raise CheckpointError(f"{path}: its vocabulary is not that of tokenizer.model; {_COPY_MODEL}")
    if not _merges_are_those_of(pieces, vocab, merges):
        raise CheckpointError(f"{path}: its merges are not those of tokenizer.model; {_COPY_MODEL}")


def _only(step: Any, key: str) -> Any:
    """The only step of a sequence of one, whose list has this key; other steps as they are."""
    steps = step.get(key) if isinstance(step, dict) and step.get("type") == "Sequence" else None
    return steps[0] if isinstance(steps, list) and len(steps) == 1 else step


def _ids_around(processor: Any) -> Any:
    """What a template puts around a text, as ids, and "A" for the text; the processor itself if it is no template."""
    try:
        special = processor["special_tokens"]
        if processor["type"] != "TemplateProcessing":
            return processor
        return [
            "A" if part.get("Sequence", {}).get("id") == "A" else i
            for part in processor["single"]
            for i in (special[part["SpecialToken"]["id"]]["ids"] if "SpecialToken" in part else [None])
        ]
    except (AttributeError, KeyError, TypeError):
        return processor


def _merges_are_those_of(pieces: list[tuple[str, int]], vocab: dict[str, int], merges: Any) -> bool:
    """Whether merges make every normal piece and every run of spaces of any two parts, in the order of SentencePiece.

    That is by id; runs of spaces come first, by the length of the run or of its first part, long before short, which
    gives the same runs. Other special pieces are never merged.
    """
    special = {name for name, kind in pieces if kind in SPECIAL}
    runs = {name for name in special if not name.strip(SPACE_SYMBOL)}
    others = special - runs
    made = runs | {name for name, kind in pieces if kind == NORMAL}
    try:
        pairs = [(pair.split(" ") if isinstance(pair, str) else pair) for pair in merges]
        rows = [(left + right, left) for left, right in pairs if left + right not in others]
    except (AttributeError, TypeError, ValueError):
        return False
    if not all(name in made for name, _ in rows):
        return False
    possible = sum(name[:i] in vocab and name[i:] in vocab for name in made for i in range(1, len(name)))
    known = all(left in vocab and name[len(left) :] in vocab for name, left in rows)
    if not known or len(set(rows)) != len(rows) or len(rows) != possible:
        return False
    by_run = [-len(name) if name in runs else vocab[name] for name, _ in rows]
    by_part = [-len(left) if name in runs else vocab[name] for name, left in rows]
    return any(all(before <= after for before, after in pairwise(order)) for order in (by_run, by_part))
