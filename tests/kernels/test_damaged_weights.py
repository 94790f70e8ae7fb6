"""Whatever number a file holds where no check at its opening sees it, a call gives the right vectors or an error."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from embgemma import EmbeddingModel
from embgemma.kernels import Backend, available_backends, create_backend
from embgemma.kernels.batch import finish_vectors
from embgemma.kernels.embedding_rows import LEVELS, WORD_BITS, row_bytes
from embgemma.kernels.errors import ModelFileError, VectorError
from embgemma.kernels.model_file import read_model_file
from embgemma.kernels.safetensors_file import open_safetensors
from tests.conftest import SMALL_CONFIG, synthetic_models
from tests.kernels.changed_file import write_changed
from tests.kernels.test_backends_agree import CHOICES, FLOAT_TOLERANCE, Choice, distance, encode

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from embgemma.kernels.model_file import ModelFile, Scheme

CONFIG = replace(SMALL_CONFIG, layers=2, heads=2, full_attention_layers=(1,))
NAN, INFINITY, HUGE = float("nan"), float("inf"), 3e38  # a sum of two of the last overflows

# The second text has a token, which no other has, whose row of the embedding table is damaged.
DAMAGED_ROW = 77
TEXTS = [np.array(ids, np.int32) for ids in ([2, 5, 1], [2, *range(100, 140), DAMAGED_ROW, 8, 1], [1])]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Scheme], ModelFile]:
    return synthetic_models(tmp_path_factory.mktemp("models"), CONFIG)


@pytest.fixture(params=CHOICES, ids=lambda choice: "-".join(filter(None, choice)))
def choice(request: pytest.FixtureRequest) -> Choice:
    name, isa = request.param
    if name not in available_backends():
        pytest.skip(f"backend {name} is not available here")
    return name, isa


@contextmanager
def damaged(file: ModelFile, choice: Choice, name: str, value: float) -> Iterator[Backend]:
    """A backend in one of whose tensors a number became `value` after the file was opened."""
    tensor = file.tensors[name].copy()
    place = (
        (DAMAGED_ROW, 0)[: tensor.ndim]
        if name.startswith("embedding")
        else tuple(length // 3 for length in tensor.shape)
    )
    tensor[place] = value
    backend, isa = choice
    if backend != "native":
        yield create_backend(replace(file, tensors={**file.tensors, name: tensor}), backend=backend, threads=2)
        return
    opened = create_backend(file, backend=backend, isa=isa, threads=2)
    start = open_safetensors(file.path).entries[name].begin
    with file.path.open("r+b", buffering=0) as stream:
        stream.seek(start)
        kept = stream.read(tensor.nbytes)
        stream.seek(start)
        stream.write(tensor.tobytes())
        try:
            yield opened
        finally:
            stream.seek(start)
            stream.write(kept)


def floats(file: ModelFile) -> list[str]:
    """The tensors that hold floats: scales, norms, and all weights of a float32 file."""
    return [name for name, tensor in file.tensors.items() if tensor.dtype.kind == "f"]


@pytest.mark.parametrize("scheme", ["float32", "int8", "int4"])
@pytest.mark.parametrize("value", [NAN, -NAN, INFINITY, -INFINITY])
def test_a_number_that_is_not_finite_is_an_error_wherever_it_is(
    model: Callable[[Scheme], ModelFile], choice: Choice, scheme: Any, value: float
) -> None:
    file = model(scheme)
    for name in floats(file):
        text = 1 if name.startswith("embedding") else 0
        with damaged(file, choice, name, value) as backend:
            for normalize in (True, False):
                with pytest.raises(VectorError, match=f"text {text} has no vector.*--check"):
                    encode(backend, TEXTS, CONFIG.hidden, normalize)
            if not name.startswith("head"):
                with pytest.raises(VectorError, match=f"text {text} has no vector"):
                    backend.encode_tokens(np.concatenate(TEXTS), np.cumsum([0, *map(len, TEXTS)]))


@pytest.mark.parametrize("scheme", ["float32", "int8"])
@pytest.mark.parametrize("value", [HUGE, -HUGE, 1e25])
def test_overflow_gives_the_right_vector_or_an_error(
    model: Callable[[Scheme], ModelFile], choice: Choice, scheme: Any, value: float
) -> None:
    file = model(scheme)
    for name in floats(file):
        if file.tensors[name].dtype == np.float16:
            continue
        with damaged(file, choice, name, value) as backend, damaged(file, ("reference", None), name, value) as exact:
            try:
                found = encode(backend, TEXTS)
            except VectorError:
                continue
            assert np.max(distance(found, encode(exact, TEXTS))) < max(FLOAT_TOLERANCE, 0.1), name


@pytest.fixture
def uneven(model: Callable[[Scheme], ModelFile], tmp_path: Path) -> ModelFile:
    """A file whose words have 1 to WORD_BITS bits, those of set bits the most: other rows than these have room."""
    file = model("int4")
    lengths = np.zeros_like(file.tensors["embedding.code_length"])
    lengths[:, LEVELS // 2 :][:, : WORD_BITS + 1] = [*range(1, WORD_BITS + 1), WORD_BITS]
    return read_model_file(write_changed(tmp_path / "uneven.safetensors", file, {"embedding.code_length": lengths}))


def test_a_row_whose_words_run_past_its_end_is_an_error(uneven: ModelFile, choice: Choice, tmp_path: Path) -> None:
    ends = np.cumsum(row_bytes(uneven.tensors["embedding.rate"], CONFIG.hidden))
    weight = uneven.tensors["embedding.weight"].copy()
    weight[ends[DAMAGED_ROW - 1] : ends[DAMAGED_ROW]] = 0xFF
    path = write_changed(tmp_path / "damaged.safetensors", uneven, {"embedding.weight": weight})
    backend, isa = choice
    good, opened = (
        create_backend(file, backend=backend, isa=isa, threads=2) for file in (uneven, read_model_file(path))
    )
    with pytest.raises(VectorError, match=r"text 1 has no vector.*--check"):
        encode(opened, TEXTS)
    np.testing.assert_array_equal(encode(opened, TEXTS[::2]), encode(good, TEXTS[::2]))
    assert np.isfinite(encode(good, TEXTS)).all()


def test_a_model_that_gives_zero_is_an_error(model: Callable[[Scheme], ModelFile], choice: Choice) -> None:
    file = model("int8")
    for name in ("final_norm", "head.scale"):
        zero = replace(file, tensors={**file.tensors, name: np.zeros_like(file.tensors[name])})
        if choice[0] != "native":
            with pytest.raises(VectorError, match="text 0"):
                encode(create_backend(zero, backend=choice[0], threads=1), TEXTS)


def test_the_error_counts_texts_of_all_batches_and_names_the_file(
    model: Callable[[Scheme], ModelFile], choice: Choice
) -> None:
    file = model("float32")
    with damaged(file, choice, "embedding.weight", NAN) as backend:
        opened = EmbeddingModel(file, backend)
        with pytest.raises(ModelFileError, match=rf"{file.path}: text 6 has no vector.*--check"):
            opened.encode_ids([[2, *range(100, 130), 1]] * 6 + [TEXTS[1].tolist()])  # a batch has up to max_tokens


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_vectors_without_a_direction_are_refused(dtype: npt.DTypeLike) -> None:
    good = np.full((3, 4), 0.25, dtype)
    for wrong in (NAN, INFINITY, 0.0, 1e-30, 1e30):
        for normalize in (True, False):
            vectors = good.copy()
            vectors[1:, :] = wrong
            with pytest.raises(VectorError, match="text 1") as caught:
                finish_vectors(vectors, normalize)
            assert pickle.loads(pickle.dumps(caught.value)).text == 1
    assert np.array_equal(finish_vectors(good, False), good)
