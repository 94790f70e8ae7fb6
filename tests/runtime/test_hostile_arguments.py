"""Arguments of every kind are checked before anything is computed: one short InputError, whatever they are."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import embgemma
from embgemma.cli.main import main
from embgemma.export.convert import convert
from embgemma.kernels.errors import EmbgemmaError, InputError
from embgemma.kernels.native import library_problem, load_library

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from embgemma import EmbeddingModel

NUMBERS: list[Any] = [
    0,
    -1,
    2**32,
    2**64,
    10**30,
    10**5000,
    1.5,
    float("nan"),
    True,
    "2",
    "\x1b[2J",
    b"2",
    [1],
    np.bool_(1),
]
NUMBERS += [np.float64(2), np.int64(-1), np.array([2, 3])]
PATHS: list[Any] = ["a\0b", "\ud800.st", 1, b"model", ["model"], [], object(), True]
NAMES: list[Any] = ["", "\x1b[2J", "a\0b", "\ud800", "x" * 10**6, 1, b"native", ["native"]]


@pytest.fixture(scope="module")
def model(model_path: Path) -> Iterator[EmbeddingModel]:
    with embgemma.load(model_path, threads=1) as opened:
        yield opened


def refused(call: Callable[[], object], error: type[EmbgemmaError] = InputError) -> None:
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("argument", ["batch_size", "truncate_dim"])
def test_sizes(model: EmbeddingModel, argument: str) -> None:
    for value in NUMBERS:
        refused(lambda value=value: model.encode(["a"], **{argument: value}))  # type: ignore[misc]


def test_sizes_of_the_tokenizer(model: EmbeddingModel) -> None:
    for value in NUMBERS:
        refused(lambda value=value: model.tokenizer("a", truncation=True, max_length=value))  # type: ignore[misc]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "argument", ["prompt_name", "prompt", "output_value", "precision", "device", "pool", "truncate_dim", "batch_size"]
)
def test_other_values(model: EmbeddingModel, argument: str) -> None:
    for value in [*NAMES, *NUMBERS, {}, object(), None, lambda: 1]:
        with suppress(EmbgemmaError):
            model.encode(["a"], **{argument: value})


@pytest.mark.parametrize(
    "argument", ["truncate_dim", "prompts", "default_prompt_name", "similarity_fn_name", "device", "backend", "isa"]
)
def test_other_values_of_a_model(model_path: Path, argument: str) -> None:
    for value in [*NAMES, *NUMBERS, {1: "a"}, {"a": 1}, object()]:
        with suppress(EmbgemmaError):
            embgemma.load(model_path, **{argument: value}).close()


def test_sizes_of_numpy_are_sizes(model: EmbeddingModel) -> None:
    vectors = model.encode(["a"], batch_size=np.int64(2), truncate_dim=np.uint8(32))
    np.testing.assert_array_equal(vectors, model.encode(["a"], batch_size=2**31 - 1, truncate_dim=32))


def test_threads_names_and_paths(model_path: Path) -> None:
    for threads in [*NUMBERS, 257]:
        refused(lambda threads=threads: embgemma.load(model_path, threads=threads))  # type: ignore[misc]
    for name in NAMES:
        refused(lambda name=name: embgemma.load(model_path, backend=name), EmbgemmaError)  # type: ignore[misc]
        if name:
            refused(lambda name=name: embgemma.load(model_path, isa=name), EmbgemmaError)  # type: ignore[misc]
    for path in PATHS:
        refused(lambda path=path: embgemma.load(path))  # type: ignore[misc]
        refused(lambda path=path: embgemma.SentenceTransformer(path))  # type: ignore[misc]
        refused(lambda path=path: convert(path, "m.safetensors"))  # type: ignore[misc]
        refused(lambda path=path: convert(".", path))  # type: ignore[misc]


@pytest.mark.parametrize(
    "name", ["pipe", "pipe.onnx", "folder", "folder.onnx", "zero", "zero.onnx", "none", "none.onnx"]
)
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.startswith("pipe"):
        os.mkfifo(path)
    elif name.startswith("folder"):
        path.mkdir()
    elif name.startswith("zero"):
        path.symlink_to("/dev/zero")
    refused(lambda: embgemma.load(path), embgemma.ModelFileError)


@pytest.mark.parametrize("ids", [[[1, [2]]], [[2**70]], [[1], [[2]]], [[-(2**63)]], [[None]], [["1"]], [[1.0]]])
def test_token_ids(model: EmbeddingModel, ids: Any) -> None:
    refused(lambda: model.encode_ids(ids))


@pytest.mark.parametrize(
    "value", ["0", "-1", "257", "4294967296", "1" + "0" * 30, "9" * 5000, "nan", "1e3", "", "\x1b[2J"]
)
@pytest.mark.parametrize("option", ["--threads", "--batch-size", "--dim"])
def test_numbers_of_the_command(model_path: Path, option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    if (option, value) == ("--batch-size", "257") or (option, value) == ("--batch-size", "4294967296"):
        value = "2147483648"
    try:
        code = main(["embed", str(model_path), f"{option}={value}", "text"])
    except SystemExit as end:
        code = int(str(end.code))
    message = capsys.readouterr().err.splitlines()[-1]
    assert code == 2
    assert message.isprintable()
    assert len(message) < 400


@pytest.mark.parametrize("values", [iter, tuple, np.array])
def test_token_ids_of_any_iterable(model: EmbeddingModel, values: Any) -> None:
    rows = [[2, 5, 1], [2, 6, 1]]
    np.testing.assert_array_equal(model.encode_ids(values(rows)), model.encode_ids(rows))
    refused(lambda: model.encode_ids(5))


@pytest.mark.parametrize(
    "argument", ["normalize_embeddings", "convert_to_numpy", "convert_to_tensor", "show_progress_bar"]
)
def test_truths(model: EmbeddingModel, argument: str) -> None:
    refused(lambda: model.encode(["a"], **{argument: np.array([1, 2])}))


@pytest.mark.skipif(library_problem() is not None, reason=str(library_problem()))
def test_sizes_that_would_wrap_in_c(model: EmbeddingModel, model_path: Path) -> None:
    library = load_library()
    c, ffi = library.c, library.ffi
    slot, made = ffi.new("eg_model **"), ffi.new("eg_context **")
    library.check(c.eg_model_open(bytes(model_path), slot))
    library.check(c.eg_context_create(slot[0], 1, ffi.NULL, made))
    assert c.eg_context_create(slot[0], 2**32 - 1, ffi.NULL, ffi.new("eg_context **")) == c.EG_ERROR_ARGUMENT
    ids, offsets, out = ffi.new("int32_t[]", [2, 1]), ffi.new("uint64_t[]", [0, 2]), ffi.new("float[]", 4096)
    texts, sizes = ffi.new("char *[]", [ffi.new("char[]", b"a")]), ffi.new("size_t[]", [2**63])
    dim, tokenizer = model.config.hidden, c.eg_model_tokenizer(slot[0])
    for count in (2**64 - 1, 2**63, 2**61, 2**62 // dim + 1):
        assert c.eg_encode(made[0], ids, offsets, count, dim, 1, out) == c.EG_ERROR_ARGUMENT
        assert c.eg_embed(made[0], texts, ffi.NULL, count, ffi.NULL, dim, out) == c.EG_ERROR_ARGUMENT
        assert c.eg_tokenize_batch(tokenizer, b"a", offsets, max(count, 2**61), 9, ids, 2, offsets, b"a") != c.EG_OK
    for wrong in ([0, 2**64 - 1], [0, 2**63], [1, 2], [0, 0], [2, 0]):
        assert c.eg_encode(made[0], ids, ffi.new("uint64_t[]", wrong), 1, dim, 1, out) == c.EG_ERROR_ARGUMENT
    for size in (0, dim + 1, 2**32 - 1):
        assert c.eg_encode(made[0], ids, offsets, 1, size, 1, out) == c.EG_ERROR_ARGUMENT
        assert c.eg_embed(made[0], texts, ffi.NULL, 0, ffi.NULL, size, out) == c.EG_ERROR_ARGUMENT
    assert c.eg_embed(made[0], texts, sizes, 1, ffi.NULL, dim, out) == c.EG_ERROR_ARGUMENT
    assert c.eg_embed(made[0], ffi.new("char *[]", [ffi.NULL]), ffi.NULL, 1, ffi.NULL, dim, out) == c.EG_ERROR_ARGUMENT
    assert c.eg_model_prompt(slot[0], ffi.NULL) == ffi.NULL
    c.eg_context_free(made[0])
    c.eg_model_free(slot[0])
