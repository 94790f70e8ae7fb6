"""A fingerprint is the same for the same vectors, and another one for others; FORMAT.md says of what it is made."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import embgemma
from embgemma.export.synthetic import write_synthetic_model
from embgemma.kernels.model_file import SCHEMES
from embgemma.kernels.native import library_problem, load_library
from tests import tiny
from tests.runtime.conftest import CONFIG

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def load(path: Path) -> embgemma.EmbeddingModel:
    return embgemma.load(path, backend="reference")


def by_the_format(path: Path, prompt: str, dim: int, max_tokens: int = CONFIG.max_tokens) -> str:
    """The fingerprint as FORMAT.md says."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    metadata = header.pop("__metadata__")
    data = hashlib.sha256(content[start:]).hexdigest()
    lines = ["embgemma vectors 1", f"config={metadata['config']}", f"data_sha256={data}"]
    lines += [f"{name} {entry['dtype']} {' '.join(map(str, entry['shape']))}" for name, entry in header.items()]
    model, text = (hashlib.sha256("\n".join(each).encode()).hexdigest() for each in (lines, [str(max_tokens), prompt]))
    return f"{model[:32]}-{dim}-{text[:16]}"


def in_c(path: Path, prompt_name: str | None, dim: int) -> str:
    library = load_library()
    ffi, c = library.ffi, library.c
    model, out = ffi.new("eg_model **"), ffi.new("char[]", c.EG_FINGERPRINT_BYTES)
    library.check(c.eg_model_open(bytes(path), model))
    opened = ffi.gc(model[0], c.eg_model_free)
    library.check(c.eg_model_fingerprint(opened, ffi.NULL if prompt_name is None else prompt_name.encode(), dim, out))
    return library.text(out)


@pytest.mark.parametrize("dim", [CONFIG.hidden, 7])
@pytest.mark.parametrize("prompt_name", [None, "query", "document"])
def test_it_is_that_of_the_format_in_python_and_in_c(model_path: Path, prompt_name: str | None, dim: int) -> None:
    expected = by_the_format(model_path, tiny.PROMPTS.get(prompt_name or "", ""), dim)
    found = load(model_path).fingerprint(prompt_name, truncate_dim=dim)
    assert found == expected
    assert re.fullmatch(r"[0-9a-f]{32}-\d+-[0-9a-f]{16}", found)
    if library_problem() is None:
        assert in_c(model_path, prompt_name, dim) == expected


def test_it_is_of_the_file_and_not_of_where_it_lies_or_what_runs_it(model_path: Path, tmp_path: Path) -> None:
    path = shutil.copy(model_path, tmp_path / "another name")
    found = {embgemma.load(path, backend=name).fingerprint() for name in embgemma.available_backends()}
    assert found == {load(model_path).fingerprint()} == {embgemma.SentenceTransformer(str(path)).fingerprint()}


# What makes other vectors, each a change of the same model.
OTHERS: dict[str, dict[str, Any]] = {
    **{scheme: {"scheme": scheme} for scheme in SCHEMES if scheme != "int8"},
    "weights": {"seed": 1},
    "tokenizer": {"tokenizer_model": tiny.tokenizer_model() + b"\0"},
    "no table": {"tokenizer_table": b""},
    "config": {"config": replace(CONFIG, rope_theta_full=10_000.0)},
    "window": {"config": replace(CONFIG, window=CONFIG.window + 1)},
    "layers that attend to all": {"config": replace(CONFIG, full_attention_layers=(0,))},
    "tokens": {"config": replace(CONFIG, max_tokens=CONFIG.max_tokens - 1)},
}


def test_models_that_give_other_vectors_have_others(model_path: Path, tmp_path: Path) -> None:
    given = {"config": CONFIG, "scheme": "int8", "tokenizer_model": tiny.tokenizer_model()}
    given["tokenizer_table"] = tiny.tokenizer_table()
    found = {load(model_path).fingerprint()}
    for name, change in OTHERS.items():
        write_synthetic_model(tmp_path / name, **{**given, **change})
        found.add(load(tmp_path / name).fingerprint().partition("-")[0])
    assert len(found) == 1 + len(OTHERS)


@pytest.mark.parametrize("of_a_model", [load, embgemma.load])
def test_calls_that_give_other_vectors_have_others(
    model_path: Path, of_a_model: Callable[[Path], embgemma.EmbeddingModel]
) -> None:
    model = of_a_model(model_path)
    found = [
        model.fingerprint(),
        model.fingerprint("query"),
        model.fingerprint(prompt="x"),
        model.fingerprint("document"),
    ]
    found += [model.fingerprint(truncate_dim=dim) for dim in (1, CONFIG.hidden - 1)]
    model.max_seq_length -= 1
    found.append(model.fingerprint())
    assert len({*found}) == len(found)
    assert {name.partition("-")[0] for name in found} == {found[0].partition("-")[0]}


def test_it_has_the_defaults_of_encode(model_path: Path) -> None:
    model = load(model_path)
    plain, short = model.fingerprint(), model.fingerprint("query", truncate_dim=8)
    assert model.fingerprint(prompt="") == model.fingerprint(truncate_dim=CONFIG.hidden) == plain
    assert model.fingerprint(prompt=tiny.PROMPTS["query"]) == model.fingerprint("query")
    with pytest.warns(UserWarning, match="given whole"):
        assert model.fingerprint(truncate_dim=CONFIG.hidden + 1) == plain
    model.default_prompt_name = "query"
    with model.truncate_embeddings(8):
        assert model.fingerprint() == short
    model.prompts["query"] = "another"
    assert model.fingerprint(truncate_dim=8) != short
    wrong: tuple[dict[str, Any], ...] = ({"prompt_name": "none"}, {"truncate_dim": 0}, {"prompt": 1})
    for arguments in wrong:
        with pytest.raises(embgemma.InputError):
            model.fingerprint(**arguments)
