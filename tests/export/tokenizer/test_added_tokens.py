"""Added tokens have the ids of Hugging Face's tokenizer in both of ours, or are refused by name."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embgemma
from embgemma.export.checkpoint.checkpoint import read_checkpoint
from embgemma.export.convert import convert
from embgemma.export.tokenizer.tokenizer_files import portable_file
from embgemma.export.tokenizer.tokenizer_table import build_tokenizer_table
from embgemma.kernels.errors import CheckpointError
from embgemma.kernels.native import library_problem
from embgemma.kernels.native_tokenizer import NativeTokenizer
from embgemma.tokenizer import Tokenizer
from tests import tiny
from tests.export.checkpoint.test_checkpoint import edit

tokenizers = pytest.importorskip("tokenizers", reason="the Hugging Face tokenizer is compared with")

ROWS = tiny.PIECES + 9  # no multiple of 64
FLAGS = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
NAMES = (
    *("<|doc|>", "covid", "the", "of", "é", "xx", "xxx", "世界"),
    *("\n\n\n", "the th", "th", "==", "in", "<|", "t", "<0x4>"),
)


ALONE = pytest.mark.parametrize("alone", [False, True], ids=["with tokenizer.model", "tokenizer.json alone"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint with nine rows more than tokenizer.model has pieces."""
    folder = tiny.write_checkpoint(tmp_path / "checkpoint")
    tensors = tiny.encoder_tensors(tiny.CONFIG)
    table = tensors["embed_tokens.weight"]
    tensors["embed_tokens.weight"] = np.concatenate([table, table[20 : 20 + ROWS - len(table)]])
    tiny.write_tensors(folder / "model.safetensors", tensors)
    edit(folder / "config.json", vocab_size=ROWS)
    return folder


def add(folder: Path, *tokens: dict[str, Any], alone: bool = False) -> None:
    """Writes tokenizer.json with these tokens added; if alone, there is no tokenizer.model after it."""
    if alone:
        (folder / "tokenizer.model").unlink()
    raw = tiny.tokenizer_json()
    raw["added_tokens"] += [{**FLAGS, "special": False, **token} for token in tokens]
    tiny.write_json(folder / "tokenizer.json", raw)


@ALONE
def test_a_fine_tune_with_added_tokens_has_their_ids_and_rows(folder: Path, tmp_path: Path, *, alone: bool) -> None:
    tokens: list[dict[str, Any]] = [
        {"id": 896, "content": "<|doc|>"},
        {"id": 376, "content": "the", "normalized": True},
    ]
    add(folder, *tokens, alone=alone)
    assert read_checkpoint(folder).config.vocab == 960
    for scheme in ("float32", "int8", "balanced", "mixed", "int4"):
        path = convert(folder, tmp_path / f"{scheme}.safetensors", scheme, calibrated=False)
        for backend in embgemma.kernels.available_backends():
            with embgemma.load(path, backend=backend) as model:
                assert model.token_ids("<|doc|> the")[1:4] == [896, 760, 376]
                row_of_20 = model.encode_ids([[2, 20, 1]])
                tolerance = 1e-6 if scheme in ("float32", "int8") else 0.05  # rows differ in their bits
                np.testing.assert_allclose(model.encode_ids([[2, 896, 1]]), row_of_20, atol=tolerance)


@ALONE
def test_ids_are_those_of_hugging_face(folder: Path, *, alone: bool) -> None:
    add(folder, alone=alone)
    rng = random.Random(5)
    refused: list[str] = []
    for _ in range(40):
        hugging_face = tokenizers.Tokenizer.from_str(json.dumps(tiny.tokenizer_json()))
        names = rng.sample(NAMES, 4)
        for name in names:
            hugging_face.add_tokens([tokenizers.AddedToken(name, normalized=rng.random() < 0.3)])
        hugging_face.save(str(folder / "tokenizer.json"))
        try:
            model = read_checkpoint(folder).tokenizer_model
        except CheckpointError as error:
            refused.append(str(error))
            continue
        ours: list[Any] = [Tokenizer(model, 2, 1)]
        if not library_problem():
            ours.append(NativeTokenizer(build_tokenizer_table(model), 2, 1))
        for _ in range(50):
            text = "".join(
                rng.choices([*names, *"abthinx <>|=\n▁世é", " the ", "<bos>", "<eos", "of "], k=rng.randrange(25))
            )
            for tokenizer in ours:
                assert tokenizer.encode(text, 1 << 30).ids == hugging_face.encode(text).ids, (names, text)
    assert len(refused) < 20
    assert all("not supported" in message for message in refused)


REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "swallows spaces on its left": ("lstrip", {"lstrip": True}),
    "swallows spaces on its right": ("rstrip", {"rstrip": True}),
    "is a word of its own": ("single_word", {"single_word": True}),
    "holds a space": ("space", {"content": "New York"}),
    "holds a symbol for a space": ("▁", {"content": "New▁York"}),
    "holds a line break": ("line break", {"content": "a\nb"}),
    "is empty": ("bytes", {"content": ""}),
    "is long": ("bytes", {"content": "a" * 256}),
    "is no text": ("no text", {"content": "\0"}),
    "spells a byte": ("byte", {"id": 14, "content": "<0x01>"}),
    "has the id of another": ("gives it the id 896", {"id": 400}),
    "has another id": ("gives it the id 376", {"content": "the"}),
    "leaves an id out": ("gives it the id 896", {"id": 897}),
    "holds a control symbol": ("overlaps '<bos>'", {"content": "a<bos>"}),
    "ends as one begins": ("overlaps", {"content": "a<bo"}),
    "is normalized, and holds a raw one": ("overlaps '<h1>'", {"content": "a<h1>", "normalized": True}),
    "has no number": ("expected an id", {"id": "896"}),
}


@ALONE
@pytest.mark.parametrize("case", REFUSED)
def test_what_no_piece_can_do_is_refused(folder: Path, case: str, *, alone: bool) -> None:
    reason, changes = REFUSED[case]
    add(folder, {"id": 896, "content": "<|doc|>", **changes}, alone=alone)
    with pytest.raises(CheckpointError, match=rf"added token.*{reason}"):
        read_checkpoint(folder)


def test_tokens_are_read_from_older_files_too(folder: Path) -> None:
    tiny.write_json(folder / "added_tokens.json", {"<|doc|>": 896})
    assert Tokenizer(read_checkpoint(folder).tokenizer_model, 2, 1).encode("<|doc|>", 9).ids == [2, 896, 1]
    entry = {"content": "<|doc|>", **FLAGS}
    ends = {"add_bos_token": True, "add_eos_token": True}
    tokens = {"896": {**entry, "special": True}}
    tiny.write_json(folder / "tokenizer_config.json", {**ends, "added_tokens_decoder": tokens})
    assert Tokenizer(read_checkpoint(folder).tokenizer_model, 2, 1).encode("<|doc|>", 9).ids == [2, 896, 1]
    tiny.write_json(folder / "tokenizer_config.json", {**ends, "added_tokens_decoder": {"897": entry}})
    with pytest.raises(CheckpointError, match=r"added_tokens\.json.*differs"):
        read_checkpoint(folder)


def test_a_token_beyond_the_table_is_text_and_no_app_makes_an_id_of_it(folder: Path) -> None:
    add(folder, {"id": 896, "content": "<|doc|>"}, *({"id": 897 + i, "content": f"<image{i}>"} for i in range(9)))
    tiny.write_json(folder / "tokenizer_config.json", {"image_token": "<image8>", "extra_special_tokens": ["<image8>"]})
    model = read_checkpoint(folder).tokenizer_model
    assert max(Tokenizer(model, 2, 1).encode("<image8>", 99).ids) < ROWS
    portable = tokenizers.Tokenizer.from_str(portable_file(folder / "tokenizer.json").decode())
    for text in ("an <image8> here", "<|doc|><image7><image8>"):
        assert portable.encode(text).ids == Tokenizer(model, 2, 1).encode(text, 99).ids
    assert b"<image8>" not in portable_file(folder / "tokenizer_config.json")
    assert portable_file(folder / "tokenizer.model") == model


OTHER: dict[str, tuple[str, Any]] = {
    "lower-casing": ("normalizer", lambda raw: raw.update(normalizer={"type": "Lowercase"})),
    "other words": ("pre_tokenizer", lambda raw: raw.update(pre_tokenizer={"type": "Whitespace"})),
    "no <eos>": ("post_processor", lambda raw: raw["post_processor"]["single"].pop()),
    "no template": ("post_processor", lambda raw: raw.update(post_processor=None)),
    "cut on the left": ("truncation", lambda raw: raw.update(truncation={"direction": "Left"})),
    "dropout": ("dropout", lambda raw: raw["model"].update(dropout=0.1)),
    "whole words": ("ignore_merges", lambda raw: raw["model"].update(ignore_merges=True)),
    "no bytes": ("byte_fallback", lambda raw: raw["model"].update(byte_fallback=False)),
    "a merge less": ("merges", lambda raw: raw["model"]["merges"].pop()),
    "merges in another order": ("merges", lambda raw: raw["model"]["merges"].reverse()),
    "another vocabulary": ("vocabulary", lambda raw: raw["model"]["vocab"].update({"the": 5})),
    "a special token less": ("not among its added tokens", lambda raw: raw["added_tokens"].pop()),
}


@pytest.mark.parametrize("case", OTHER)
def test_another_tokenizer_is_refused(folder: Path, case: str) -> None:
    reason, change = OTHER[case]
    raw = tiny.tokenizer_json()
    change(raw)
    tiny.write_json(folder / "tokenizer.json", raw)
    with pytest.raises(CheckpointError, match=rf"tokenizer\.json: .*{reason}"):
        read_checkpoint(folder)
