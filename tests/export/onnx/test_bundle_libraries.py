"""The examples of a bundle's README, run as they stand by the libraries that they are for, give our vectors."""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import embgemma
from embgemma.kernels.errors import InputError
from tests import tiny
from tests.processes import PYTHON, run

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from embgemma.export.onnx.bundle import export_bundle  # noqa: E402
from embgemma.export.onnx.bundle_files import TEXT  # noqa: E402
from embgemma.export.vocabulary.keep import Keep  # noqa: E402

# A Python that has fastembed and the like, and a folder that has transformers.js, where the tests' own have not.
LIBRARIES = os.environ.get("EMBGEMMA_LIBRARIES_PYTHON", PYTHON)
NODE_MODULES = os.environ.get("EMBGEMMA_NODE_MODULES", "")

NEEDED = {
    "fastembed": "fastembed",
    "sentence-transformers": "optimum.onnxruntime, sentence_transformers",
    "ONNX Runtime": "onnxruntime, tokenizers",
    "embgemma": "embgemma",
}
TEXTS = (
    TEXT,
    "",
    "  def mean(values):\n\n\treturn sum(values)",
    "Zürich – 雨の日 🚲 \U00012000",
    "<eos> <bos> ▁▁ x\u0301",
)
LONG = "of the and " * 100  # more tokens than the model takes: every library cuts it, some with its <eos>


@pytest.fixture(scope="module", params=["published", "a short tokenizer_config.json", "none", "a part"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle in float32, in a folder of its own."""
    checkpoint = tiny.write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")
    tiny.write_json(checkpoint / "tokenizer.json", tiny.tokenizer_json())
    keep = Keep(scripts=frozenset({"Latin"})) if request.param == "a part" else None
    if request.param in ("published", "a part"):
        ends = {"bos_token": "<bos>", "eos_token": "<eos>", "add_bos_token": True, "add_eos_token": True}
        others = {"pad_token": "<pad>", "unk_token": "<unk>", "tokenizer_class": "GemmaTokenizer"}
        tiny.write_json(checkpoint / "tokenizer_config.json", {**ends, **others, "padding_side": "right"})
    elif request.param == "none":
        (checkpoint / "tokenizer_config.json").unlink()
    folder = tmp_path_factory.mktemp("libraries") / 'a "bundle"'
    export_bundle(checkpoint, folder, weights_format="float32", keep=keep)
    return folder


def examples(bundle: Path, title: str) -> list[str]:
    """The code under a title of the README."""
    (part,) = re.findall(f"## {title}\n(.*?)(?=\n## |$(?!\n))", (bundle / "README.md").read_text("utf-8"), re.DOTALL)
    found: list[str] = re.findall(r"```\w+\n(.*?)```", part, re.DOTALL)
    return found


def with_texts(code: str, prompt: str, texts: tuple[str, ...]) -> str:
    """The example with other texts in place of its own; all else as it stands."""
    for before in (prompt, ""):
        listed = json.dumps([before + text for text in texts], ensure_ascii=False)
        code = code.replace(f"[{json.dumps(before + TEXT, ensure_ascii=False)}]", listed)
    return code


def vectors_of(output: str) -> npt.NDArray[np.float64]:
    return np.array(json.loads(output.rpartition("VECTORS")[2]))


def check(found: npt.NDArray[np.float64], bundle: Path, texts: tuple[str, ...], least: float = 0.999999) -> None:
    with embgemma.load(bundle / "onnx" / "model.onnx") as model, warnings.catch_warnings():
        warnings.simplefilter("ignore", embgemma.TruncationWarning)
        expected = model.encode(list(texts), prompt_name="query")
    assert found.shape == expected.shape
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    assert np.sum(found * expected, axis=1).min() > least


@pytest.mark.parametrize("library", NEEDED)
def test_python_libraries(library: str, bundle: Path) -> None:
    python = PYTHON if library == "embgemma" else LIBRARIES
    if run(python, "-c", f"import {NEEDED[library]}", check=False, capture_output=True, cwd=bundle.parent).returncode:
        pytest.skip(f"{python} cannot import {NEEDED[library]}")
    (code,) = examples(bundle, library)
    assert len(code.splitlines()) <= 5
    end = "\nimport json, numpy\nprint('VECTORS', json.dumps(numpy.asarray(vectors).tolist()))"
    texts = TEXTS[:1] if library == "ONNX Runtime" else (*TEXTS, LONG)  # it shows how one text is embedded
    code = with_texts(code, tiny.PROMPTS["query"], texts) + end
    done = run(python, "-c", code, capture_output=True, text=True, cwd=bundle.parent, env=offline())
    check(vectors_of(done.stdout), bundle, texts)


@pytest.mark.parametrize("way", [0, 1], ids=["pipeline", "AutoModel"])
def test_transformers_js(way: int, bundle: Path) -> None:
    if not Path(NODE_MODULES, "@huggingface", "transformers").is_dir() or shutil.which("node") is None:
        pytest.skip("needs node, and EMBGEMMA_NODE_MODULES to name a folder that has @huggingface/transformers")
    link = bundle.parent / "node_modules"
    if not link.exists():
        link.symlink_to(Path(NODE_MODULES).resolve())
    code, texts = examples(bundle, "transformers.js")[way], (*TEXTS, LONG)
    assert len(code.splitlines()) <= 4
    end = "\nconsole.log('VECTORS', JSON.stringify(vectors.tolist()));"
    (bundle.parent / "example.mjs").write_text(with_texts(code, tiny.PROMPTS["query"], texts) + end, "utf-8")
    done = run("node", "example.mjs", capture_output=True, text=True, cwd=bundle.parent)
    check(vectors_of(done.stdout), bundle, texts)


def offline() -> dict[str, str]:
    """An environment in which nothing is fetched."""
    return {**os.environ, "HF_HUB_OFFLINE": "1"}


def test_files_for_tokenizers_state_the_limit(bundle: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    limit = tiny.CONFIG.max_tokens
    assert read(bundle / "tokenizer_config.json")["model_max_length"] == limit
    assert read(bundle / "sentence_bert_config.json")["max_seq_length"] == limit
    ids = tokenizers.Tokenizer.from_file(str(bundle / "tokenizer.json")).encode(LONG).ids
    with embgemma.load(bundle / "onnx" / "model.onnx") as model:
        assert model.token_ids(LONG) == ids
    assert len(ids) == limit


def test_a_text_past_the_limit_is_a_clear_error(bundle: Path) -> None:
    limit = tiny.CONFIG.max_tokens
    ids = [2, *[100] * limit, 1]
    with (
        embgemma.load(bundle / "onnx" / "model.onnx") as model,
        pytest.raises(InputError, match=f"expected 1 to {limit}"),
    ):
        model.encode_ids([ids])
    session = onnxruntime.InferenceSession(bundle / "onnx" / "model.onnx")
    for length in (limit, limit + 1):
        inputs = {"input_ids": np.array([ids[:length]]), "attention_mask": np.ones((1, length), np.int64)}
        if length == limit:
            session.run(None, inputs)
            continue
        with pytest.raises(Exception, match=f"texts_must_have_at_most_{limit}_tokens"):
            session.run(None, inputs)


def read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


@pytest.mark.parametrize(("weights", "dim"), [("int8", 64), ("balanced", None)])
def test_pooled_tokens_are_the_vector(weights: str, dim: int | None, tmp_path: Path) -> None:
    checkpoint = tiny.write_checkpoint(tmp_path / "tiny")
    export_bundle(checkpoint, tmp_path / "bundle", weights_format=weights, truncate_dim=dim, calibrated=False)
    session = onnxruntime.InferenceSession(tmp_path / "bundle" / "onnx" / "model.onnx")
    mask = np.array([[1] * 9, [1] * 5 + [0] * 4])
    ids = np.random.default_rng(0).integers(4, tiny.PIECES, mask.shape) * mask
    vectors, tokens = session.run(
        ["sentence_embedding", "last_hidden_state"], {"input_ids": ids, "attention_mask": mask}
    )
    pooled = (tokens * mask[:, :, None]).sum(axis=1)
    np.testing.assert_allclose(pooled / np.linalg.norm(pooled, axis=1, keepdims=True), vectors, atol=1e-6)
    page = (tmp_path / "bundle" / "README.md").read_text("utf-8")
    assert f"Vectors: {dim or tiny.CONFIG.hidden} values" in page
    assert ("three times as long as `int8`" in page) == (weights == "balanced")


def test_the_option_for_hidden_states_is_refused(bundle: Path) -> None:
    with pytest.raises(InputError, match="libraries pool"):
        export_bundle(bundle, bundle.parent / "x", last_hidden_state=True)
