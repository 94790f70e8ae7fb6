"""Texts to vectors without Python: the C library gives, to the bit, what the package gives."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import embgemma
from embgemma.kernels.model_file import Scheme
from embgemma.kernels.native import HEADER_NAME, Library, library_problem, load_library
from embgemma.kernels.system import LIBRARY_NAME
from tests import tiny
from tests.processes import run

pytestmark = pytest.mark.skipif(library_problem() is not None, reason=str(library_problem()))

Vectors = npt.NDArray[np.float32]

TEXTS = ["the cat", "", "été 😀 tail", "of and to in is that\n\n\tfor it <h1>", "x" * 30]
# Least mean and min cosine to float32 of int8 over the golden texts: test_real_model.py has them for Python.
GOLDEN_MEAN, GOLDEN_MIN = 0.995, 0.98


class Engine:
    """A model that eg_model_open opened, and a context."""

    def __init__(self, path: Path) -> None:
        self.library: Library = load_library()
        ffi, c = self.library.ffi, self.library.c
        model, context = ffi.new("eg_model **"), ffi.new("eg_context **")
        self.library.check(c.eg_model_open(bytes(path), model))
        self.model = ffi.gc(model[0], c.eg_model_free)
        self.library.check(c.eg_context_create(self.model, 2, ffi.NULL, context))
        self.context = ffi.gc(context[0], c.eg_context_free)

    def embed(self, texts: Sequence[str], prompt_name: str | None, dim: int, *, ended_by_zero: bool = False) -> Vectors:
        ffi = self.library.ffi
        encoded = [text.encode() for text in texts]
        # A text of given length has no zero after it, but bytes that would change the vector.
        arrays = [ffi.new("char[]", text if ended_by_zero else text + b" more") for text in encoded]
        lengths = ffi.NULL if ended_by_zero else ffi.new("size_t[]", [len(text) for text in encoded])
        name = ffi.NULL if prompt_name is None else prompt_name.encode()
        out = np.empty((len(texts), dim), np.float32)
        pointers = ffi.new("char *[]", arrays)
        buffer = ffi.from_buffer("float[]", out)
        self.library.check(self.library.c.eg_embed(self.context, pointers, lengths, len(texts), name, dim, buffer))
        return out

    def close(self) -> None:
        self.library.ffi.release(self.context)
        self.library.ffi.release(self.model)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("embed") / "tiny.safetensors")


@pytest.fixture(scope="module")
def engine(path: Path) -> Iterator[Engine]:
    engine = Engine(path)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def model(path: Path) -> embgemma.EmbeddingModel:
    return embgemma.load(path, backend="native", threads=1)


@pytest.mark.parametrize("dim", [1, 100, 128])
@pytest.mark.parametrize("prompt_name", [None, "", "query", "document"])
def test_same_bits_as_python(engine: Engine, model: embgemma.EmbeddingModel, prompt_name: str | None, dim: int) -> None:
    expected = model.encode(TEXTS, prompt_name or None, truncate_dim=dim, normalize_embeddings=True)
    np.testing.assert_array_equal(engine.embed(TEXTS, prompt_name, dim), expected)
    np.testing.assert_array_equal(engine.embed(TEXTS, prompt_name, dim, ended_by_zero=True), expected)


def test_long_texts_are_cut(engine: Engine, model: embgemma.EmbeddingModel) -> None:
    texts = ["the of and " * 1000, "short"]
    with pytest.warns(embgemma.TruncationWarning):
        expected = model.encode(texts, prompt_name="query")
    np.testing.assert_array_equal(engine.embed(texts, "query", 128), expected)


def test_more_texts_than_are_tokenized_at_once(engine: Engine, model: embgemma.EmbeddingModel) -> None:
    texts = [f"{i} is not {'that ' * (i % 50)}" for i in range(200)]
    np.testing.assert_array_equal(engine.embed(texts, "document", 128), model.encode(texts, prompt_name="document"))


def test_callers_at_once(engine: Engine, model: embgemma.EmbeddingModel) -> None:
    expected = model.encode(TEXTS, prompt_name="query")
    with ThreadPoolExecutor(4) as callers:
        for found in callers.map(lambda _: engine.embed(TEXTS, "query", 128), range(16)):
            np.testing.assert_array_equal(found, expected)


def test_no_texts(engine: Engine) -> None:
    assert engine.embed([], None, 128).shape == (0, 128)


def test_prompts_and_sizes_of_the_model(engine: Engine) -> None:
    library, c = engine.library, engine.library.c
    names = [
        library.text(c.eg_model_prompt_name(engine.model, i)) for i in range(c.eg_model_prompt_count(engine.model))
    ]
    prompts = {name: library.text(c.eg_model_prompt(engine.model, name.encode())) for name in names}
    assert prompts == {"query": "task: search result | query: ", "document": "title: none | text: "}
    assert c.eg_model_dim(engine.model) == tiny.CONFIG.hidden
    assert c.eg_model_max_tokens(engine.model) == tiny.CONFIG.max_tokens
    assert c.eg_abi_version() == c.EMBGEMMA_ABI_VERSION


@pytest.mark.parametrize(
    ("prompt_name", "dim", "message"), [("inquiry", 128, "inquiry"), (None, 0, "size 0"), (None, 129, "size 129")]
)
def test_refusals(engine: Engine, prompt_name: str | None, dim: int, message: str) -> None:
    with pytest.raises(embgemma.InputError, match=message):
        engine.embed(["a text"], prompt_name, dim)


def test_a_null_text_is_refused(engine: Engine) -> None:
    ffi, c = engine.library.ffi, engine.library.c
    status = c.eg_embed(engine.context, ffi.new("char *[2]"), ffi.NULL, 2, ffi.NULL, 128, ffi.new("float[256]"))
    assert status == c.EG_ERROR_ARGUMENT
    assert "text 0" in engine.library.text(c.eg_error_message())


def test_a_damaged_tokenizer_is_refused(path: Path, tmp_path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(b"EGTOKENS") + 100] ^= 1
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(data)
    with pytest.raises(embgemma.ModelFileError, match="tokenizer"):
        Engine(damaged)


# ---- a C program ------------------------------------------------------------------------------------------------


def embed_by_program(folder: Path, model_file: Path, texts: Sequence[tuple[str, str]], dim: int) -> Vectors:
    """Vectors (texts, dim) of (prompt name, text) by engine/golden.c, compiled against the package's library."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    package: Any = resources.files("embgemma.kernels")
    library = Path(str(package / LIBRARY_NAME)).resolve()
    include = Path(str(package / HEADER_NAME)).parent
    source, program = Path(__file__).parent / "engine" / "golden.c", folder / "golden"
    run(compiler, "-O2", f"-I{include}", source, library, f"-Wl,-rpath,{library.parent}", "-o", program)
    with (folder / "texts").open("wb") as file:
        for name, text in texts:
            file.write(f"{len(name.encode())} {len(text.encode())}\n{name}\0{text}".encode())
    run(program, model_file, folder / "texts", folder / "vectors")
    return np.fromfile(folder / "vectors", np.float32).reshape(-1, dim)


def test_program(path: Path, model: embgemma.EmbeddingModel, tmp_path: Path) -> None:
    found = embed_by_program(tmp_path, path, [("query", text) for text in TEXTS], 128)
    np.testing.assert_array_equal(found, model.encode(TEXTS, prompt_name="query"))


@pytest.mark.filterwarnings("ignore::embgemma.TruncationWarning")
def test_golden_texts(converted: Callable[[Scheme], Path], golden: Path, tmp_path: Path) -> None:
    rows = json.loads((golden / "texts.json").read_text("utf-8"))["rows"]
    expected = np.load(golden / "fp32.npz")["embeddings"]
    texts = [(row["prompt"] or "", row["text"]) for row in rows]
    found = embed_by_program(tmp_path, converted("int8"), texts, expected.shape[1])
    cosines = np.sum(found.astype(float) * expected, axis=1)
    assert cosines.mean() > GOLDEN_MEAN
    assert cosines.min() > GOLDEN_MIN
    model = embgemma.load(converted("int8"), backend="native")
    by_python = [model.encode(row["text"], prompt_name=row["prompt"]) for row in rows]
    np.testing.assert_array_equal(found, by_python)
