"""A tokenizer made of tokenizer.json alone is that of tokenizer.model, and gives the ids of Hugging Face's library."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embgemma.export.checkpoint.checkpoint import read_checkpoint
from embgemma.export.convert import convert
from embgemma.export.quantise.calibration import SHIPPED, SHIPPED_SHORT
from embgemma.export.tokenizer.read_table import read_table
from embgemma.export.tokenizer.restrict import Closure, restrict_json, restrict_model, restrict_table
from embgemma.export.tokenizer.tokenizer_files import portable_file, read_tokenizer
from embgemma.export.tokenizer.tokenizer_table import build_tokenizer_table
from embgemma.kernels.errors import CheckpointError
from embgemma.kernels.native import library_problem
from embgemma.kernels.native_tokenizer import NativeTokenizer
from embgemma.tokenizer import Tokenizer
from tests import tiny

tokenizers = pytest.importorskip("tokenizers", reason="the Hugging Face tokenizer is compared with")

TEXTS = int(os.environ.get("EMBGEMMA_TOKENIZER_TEXTS", "3000"))  # that are made up for each tokenizer
AT_ONCE = 1000
BOS, EOS = 2, 1
UNLIMITED = 1 << 30

# Sequences of emoji, marks on letters, flags, joiners, line separators, zero characters, and what looks like a byte.
ODD = (
    *("\U0001f469\u200d\U0001f467", "\U0001f3f3\ufe0f\u200d\U0001f308", "👍🏽", "🇩🇪🇫🇷", "e\u0301", "a\u0308\u0323"),
    *("क्षि", "\u200b", "\u200d", "\ufeff", "\u2028", "\0", "\0\0", "\r\n", "\t", "\v", "▁", "▁▁", "▁ ▁", "<0x41>"),
    *("<0xFF>", "\ufffd", "ﬁ", "Ⅷ", "\U000e0041", "\U0010ffff", "\x7f", "\x85", "\xa0"),
)


def texts(added: list[str]) -> list[str]:
    """Made-up texts in a fixed order: these added tokens, real texts, runs, long words, and any characters."""
    rng = random.Random(13)
    lines = [json.loads(line)["text"] for path in (SHIPPED, SHIPPED_SHORT) for line in path.read_text().splitlines()]
    planes = ((0x20, 0x7F), (0x80, 0x800), (0x800, 0xD800), (0xE000, 0x10000), (0x10000, 0x20000), (0x20000, 0x110000))

    def characters(count: int) -> str:
        low, high = rng.choice(planes)
        return "".join(chr(rng.randrange(low, high)) for _ in range(count))

    def real() -> str:
        line = rng.choice(lines)
        start = rng.randrange(len(line))
        return str(line[start : start + rng.randrange(1, 80)])

    parts = (
        lambda: rng.choice(added),
        lambda: rng.choice(added)[: rng.randrange(1, 9)],
        lambda: rng.choice(ODD),
        lambda: rng.choice(" \n\t\r▁=-.") * rng.randrange(1, 70),
        lambda: "".join(rng.choices("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789", k=rng.randrange(1, 200))),
        lambda: rng.choice(lines[0]) * rng.randrange(1, 40),
        lambda: characters(rng.randrange(1, 12)),
        real,
        real,
    )
    return ["".join(rng.choice(parts)() for _ in range(rng.randrange(1, 8))) for _ in range(TEXTS)]


def same_ids(path: Path, model: bytes, kept: Iterable[int] = ()) -> None:
    """Checks that both of our tokenizers give the ids of Hugging Face's for every text, with all pieces or some."""
    raw = portable_file(path).decode()
    if kept:
        ids = {old: new for new, old in enumerate(sorted(kept))}
        raw, model = json.dumps(restrict_json(json.loads(raw), ids)), restrict_model(model, ids)
    hugging_face = tokenizers.Tokenizer.from_str(raw)
    ours: list[Any] = [Tokenizer(model, BOS, EOS)]
    if not library_problem():
        ours.append(NativeTokenizer(build_tokenizer_table(model), BOS, EOS))
    made_up = texts([token["content"] for token in json.loads(raw)["added_tokens"]])
    for start in range(0, len(made_up), AT_ONCE):
        part = made_up[start : start + AT_ONCE]
        expected = [encoded.ids for encoded in hugging_face.encode_batch(part)]
        for tokenizer in ours:
            found = tokenizer.encode_batch(part, UNLIMITED).split()
            for text, ids, other in zip(part, found, expected, strict=True):
                assert ids == other, (type(tokenizer), text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint with tokenizer.json, and no tokenizer.model."""
    folder = tiny.write_checkpoint(tmp_path / "checkpoint")
    (folder / "tokenizer.model").unlink()
    tiny.write_json(folder / "tokenizer.json", tiny.tokenizer_json())
    return folder


def test_its_table_is_that_of_the_model(folder: Path, tiny_folder: Path, tmp_path: Path) -> None:
    table = build_tokenizer_table(read_checkpoint(folder).tokenizer_model)
    np.testing.assert_array_equal(table, build_tokenizer_table(tiny.tokenizer_model()))
    files = [
        convert(source, tmp_path / source.parent.name, "int4", calibrated=False) for source in (folder, tiny_folder)
    ]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_its_ids_are_those_of_hugging_face(folder: Path) -> None:
    same_ids(folder / "tokenizer.json", read_checkpoint(folder).tokenizer_model)


def test_the_published_one_alone_gives_the_same_table_and_ids(checkpoint: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).symlink_to(checkpoint / name)
    made, published = (read_tokenizer(folder, 262_144, BOS, EOS) for folder in (tmp_path, checkpoint))
    table = build_tokenizer_table(made)
    np.testing.assert_array_equal(table, build_tokenizer_table(published))
    same_ids(tmp_path / "tokenizer.json", made)
    pieces, merges = read_table(table)
    closure = Closure(pieces, merges)
    closure.add(
        [*pieces.special.values(), *pieces.byte_ids, *random.Random(0).choices([*pieces.normal.values()], k=20_000)]
    )
    same_ids(tmp_path / "tokenizer.json", made, closure.kept)
    part = restrict_table(pieces, merges, closure.kept)
    np.testing.assert_array_equal(part, build_tokenizer_table(restrict_model(made, closure.kept)))


BROKEN: dict[str, tuple[str, Any]] = {
    "no vocabulary": ("vocab", lambda raw: raw["model"].update(vocab=None)),
    "no model": ("model", lambda raw: raw.update(model=[])),
    "ids that are no numbers": ("vocab", lambda raw: raw["model"]["vocab"].update(the="5")),
    "an id twice": ("gives one twice", lambda raw: raw["model"]["vocab"].update(the=5)),
    "an id left out": ("leaves ids out", lambda raw: raw["model"]["vocab"].pop("the")),
    "an id far away": ("leaves ids out", lambda raw: raw["model"]["vocab"].update(the=1 << 80)),
    "more ids than rows": ("at most 896", lambda raw: raw["model"]["vocab"].update(new=896)),
    "no unknown token": ("unk_token", lambda raw: raw["model"].update(unk_token=None)),
    "an odd unknown token": ("unk_token", lambda raw: raw["model"].update(unk_token=["<unk>"])),
    "an unknown token that ends texts": ("unk_token", lambda raw: raw["model"].update(unk_token="<eos>")),
    "a token that is no text": ("surrogate", lambda raw: rename(raw, "the", "\ud800")),
    "an empty token": ("merges|sentencepiece", lambda raw: rename(raw, "the", "")),
    "no byte": ("nor can one be made", lambda raw: rename(raw, "<0x41>", "<0x4>")),
    "a vocabulary without merges": ("merges", lambda raw: raw["model"].update(merges=[])),
    "words, not pairs": ("type", lambda raw: raw["model"].update(type="WordPiece")),
    "added tokens that are none": ("added_tokens", lambda raw: raw.update(added_tokens={})),
    "tokens with a space": ("space", lambda raw: rename(raw, "<h1>", "<h 1>")),
    "tokens with a line break": ("line break", lambda raw: rename(raw, "<h1>", "<h\n1>")),
    "tokens with a control symbol": ("overlaps", lambda raw: rename(raw, "<h1>", "a<bos>")),
}


def rename(raw: dict[str, Any], old: str, new: str) -> None:
    vocab = raw["model"]["vocab"]
    vocab[new] = vocab.pop(old)
    for token in raw["added_tokens"]:
        token["content"] = new if token["content"] == old else token["content"]


@pytest.mark.parametrize("case", BROKEN)
def test_what_makes_no_tokenizer_is_refused(folder: Path, case: str) -> None:
    reason, change = BROKEN[case]
    raw = tiny.tokenizer_json()
    change(raw)
    tiny.write_json(folder / "tokenizer.json", raw)
    with pytest.raises(CheckpointError, match=reason):
        build_tokenizer_table(read_checkpoint(folder).tokenizer_model)


def test_a_checkpoint_needs_one_of_the_two(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.model: .*missing, and so is tokenizer\.json"):
        read_checkpoint(folder)
