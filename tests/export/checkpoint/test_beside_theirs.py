"""Checkpoints as sentence-transformers and transformers save them, and others, give the vectors of the former."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import embgemma
from embgemma.export.convert import convert
from tests import tiny
from tests.export.checkpoint.test_adapter import write_adapter
from tests.export.checkpoint.test_checkpoint import edit

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[3]
CONFIG = replace(tiny.CONFIG, hidden=192)  # transformers wants a multiple of the number of heads
LEAST_COSINE = 0.9999
TEXTS = ("the of and", "", "<|doc|> it was", "  x = 3;\n\n\ty", "é 世界 🚲", "is not the <|doc|>" * 9, "a\u0301 ▁▁ b")

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def theirs() -> Any:
    """The libraries sentence_transformers and transformers."""
    with pytest.MonkeyPatch.context() as patch:
        # transformers looks for a package `kernels`, and would find the folder.
        patch.setattr(sys, "path", [path for path in sys.path if Path(path).resolve() != ROOT])
        library = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
        return library, pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny.write_checkpoint(tmp_path_factory.mktemp("theirs") / "published", CONFIG)
    tiny.write_json(folder / "tokenizer.json", tiny.tokenizer_json())
    tokens = {f"{name}_token": f"<{name}>" for name in ("bos", "eos", "pad", "unk")}
    settings = {"tokenizer_class": "GemmaTokenizer", "model_max_length": CONFIG.max_tokens, "padding_side": "right"}
    tiny.write_json(folder / "tokenizer_config.json", {**settings, **tokens})
    (folder / "4_Normalize").mkdir()
    return folder


def opened(theirs: Any, folder: Path) -> Any:
    return theirs[0].SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": "float32"})


def modules(folder: Path, *kinds: int, **first: Any) -> None:
    """Keeps these modules, and changes the first."""
    listed = json.loads((folder / "modules.json").read_text())
    listed[0].update(first)
    tiny.write_json(folder / "modules.json", [listed[i] for i in kinds])


def copied(_: Any, source: Path, to: Path) -> None:
    shutil.copytree(source, to)


def saved(theirs: Any, source: Path, to: Path) -> None:
    opened(theirs, source).save_pretrained(str(to))


def saved_in_bfloat16(theirs: Any, source: Path, to: Path) -> None:
    opened(theirs, source).bfloat16().save_pretrained(str(to))


def saved_with_a_token(theirs: Any, source: Path, to: Path) -> None:
    model = opened(theirs, source)
    model.tokenizer.add_tokens(["<|doc|>"], special_tokens=True)
    model[0].auto_model.resize_token_embeddings(len(model.tokenizer), mean_resizing=False)
    model.save_pretrained(str(to))


def saved_with_an_adapter(theirs: Any, source: Path, to: Path) -> None:
    peft = pytest.importorskip("peft")
    model = opened(theirs, source)
    model.save_pretrained(str(to))
    for name in ("config.json", "model.safetensors"):
        (to / name).unlink()
    config = peft.LoraConfig(target_modules=["q_proj", "up_proj"], r=4, init_lora_weights=False)
    peft.get_peft_model(model[0].auto_model, config).save_pretrained(to)


def saved_by_transformers(theirs: Any, source: Path, to: Path) -> None:
    theirs[1].AutoModel.from_pretrained(source).save_pretrained(to)
    theirs[1].AutoTokenizer.from_pretrained(source).save_pretrained(to)


def an_adapter_beside_nothing(_: Any, source: Path, to: Path) -> None:
    pytest.importorskip("peft")
    shutil.copytree(source, to)
    for name in ("config.json", "model.safetensors"):
        (to / name).unlink()
    write_adapter(to, source)


def in_shards(theirs: Any, source: Path, to: Path) -> None:
    shutil.copytree(source, to)
    (to / "model.safetensors").unlink()
    theirs[1].AutoModel.from_pretrained(source).save_pretrained(to, max_shard_size="500KB")


def of_a_language_model(_: Any, source: Path, to: Path) -> None:
    shutil.copytree(source, to)
    tensors = {f"model.{name}": tensor for name, tensor in tiny.encoder_tensors(CONFIG).items()}
    tiny.write_tensors(to / "model.safetensors", tensors)


def in_a_folder_of_its_own(_: Any, source: Path, to: Path) -> None:
    shutil.copytree(source, to)
    (to / "0_Transformer").mkdir()
    for path in [*to.glob("*token*"), *(to / f"{name}" for name in ("config.json", "model.safetensors"))]:
        path.rename(to / "0_Transformer" / path.name)
    (to / "sentence_bert_config.json").rename(to / "0_Transformer/sentence_bert_config.json")
    modules(to, 0, 1, 2, 3, 4, path="0_Transformer")


def with_tokenizer_model_alone(_: Any, source: Path, to: Path) -> None:
    shutil.copytree(source, to)
    (to / "tokenizer.json").unlink()
    edit(to / "tokenizer_config.json", add_bos_token=True, add_eos_token=True)


def without_dense_layers(_: Any, source: Path, to: Path) -> None:
    shutil.copytree(source, to)
    modules(to, 0, 1, 4)


def without_normalisation(_: Any, source: Path, to: Path) -> None:
    shutil.copytree(source, to)
    modules(to, 0, 1, 2, 3)


def normalised_in_between(_: Any, source: Path, to: Path) -> None:
    shutil.copytree(source, to)
    modules(to, 0, 1, 4, 2, 3)


def with_one_square_layer(_: Any, source: Path, to: Path) -> None:
    shutil.copytree(source, to)
    modules(to, 0, 1, 2, 4)
    first, second = tiny.dense_tensors(CONFIG)
    edit(to / "2_Dense/config.json", out_features=CONFIG.hidden)
    tiny.write_tensors(to / "2_Dense/model.safetensors", {"linear.weight": (second @ first).astype(np.float32)})


CASES = (
    *(copied, saved, saved_in_bfloat16, saved_with_a_token, saved_with_an_adapter, saved_by_transformers),
    *(an_adapter_beside_nothing, in_shards, of_a_language_model, in_a_folder_of_its_own, without_dense_layers),
    *(without_normalisation, normalised_in_between, with_one_square_layer, with_tokenizer_model_alone),
)


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_vectors_are_theirs(
    theirs: Any, published: Path, tmp_path: Path, make: Callable[[Any, Path, Path], None]
) -> None:
    folder = tmp_path / "checkpoint"
    make(theirs, published, folder)
    expected = opened(theirs, folder).encode(list(TEXTS), normalize_embeddings=True)
    with embgemma.load(convert(folder, tmp_path / "model.safetensors", "float32"), threads=1) as model:
        found = np.asarray(model.encode(list(TEXTS), normalize_embeddings=True))
    assert np.sum(expected * found, axis=1).min() > LEAST_COSINE
