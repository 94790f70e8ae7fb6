"""A model in the life of processes: threads, the exit of the interpreter, copies for others."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import pytest

import embgemma
from embgemma import EmbeddingModel, ModelFileError
from embgemma.export.synthetic import write_synthetic_model
from tests.processes import PYTHON, run
from tests.runtime.conftest import CONFIG

if TYPE_CHECKING:
    from collections.abc import Callable

TEXTS = ["the of and", "you 你好 😀", ""]
BACKENDS = [name for name in ("native", "numba", "reference") if name in embgemma.available_backends()]
LIMIT = 120.0  # seconds for a child, which imports and perhaps compiles

THREADS = """
import pathlib, sys, threading
import embgemma
model = embgemma.load(sys.argv[1], backend=sys.argv[2], threads=1)
count = lambda: (threading.active_count(), len(list(pathlib.Path("/proc/self/task").glob("*"))))
before = count()
for call in (model.encode, model.encode_query, lambda texts: model.encode(texts, show_progress_bar=shown)):
    shown = sys.argv[3] == "bar"
    call(["the of", "and"] * 300)
if before != count():
    sys.exit(f"{before} threads became {count()}: {threading.enumerate()}")
"""

AT_EXIT = """
import atexit, sys
import embgemma
class Holder:
    def __init__(self):
        self.model = embgemma.load(sys.argv[1], backend=sys.argv[2], threads=1)
        self.show = sys.argv[3] == "bar"
        self.me = self  # a circle: freed as the interpreter goes
    def __del__(self):
        print(self.model.encode(["the of"] * 3, show_progress_bar=self.show).shape, flush=True)
holder = Holder()
holder.model.encode("the", show_progress_bar=holder.show)
if sys.argv[4] == "atexit":
    atexit.register(holder.__del__)
"""


UNDER_THE_OTHER_NAME = """
import sys
import embgemma
sys.modules["sentence_transformers"] = embgemma
from sentence_transformers import SentenceTransformer, SimilarityFunction, util
from sentence_transformers.quantization import quantize_embeddings
from sentence_transformers.sentence_transformer import SentenceTransformer as Same
from sentence_transformers.util import SimilarityFunction as SameFunction, cos_sim, quantize_embeddings as same
assert SentenceTransformer is Same is embgemma.SentenceTransformer
assert SimilarityFunction is SameFunction
model = Same(sys.argv[1], similarity_fn_name=SimilarityFunction.DOT)
rows = model.encode(["the", "of"])
assert abs(cos_sim(rows, rows) - model.similarity(rows, rows)).max() < 1e-6
assert (quantize_embeddings(rows, "ubinary") == same(rows, precision="ubinary")).all()
"""


def test_imports_under_the_other_name(model_path: Path) -> None:
    run(PYTHON, "-c", UNDER_THE_OTHER_NAME, model_path)


@pytest.mark.parametrize("bar", ["bar", "no bar"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_call_starts_no_thread(model_path: Path, backend: str, bar: str) -> None:
    run(PYTHON, "-c", THREADS, model_path, backend, bar, limit=LIMIT)


@pytest.mark.parametrize("moment", ["del", "atexit"])
@pytest.mark.parametrize("bar", ["bar", "no bar"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_call_as_the_interpreter_ends(model_path: Path, backend: str, bar: str, moment: str) -> None:
    done = run(PYTHON, "-c", AT_EXIT, model_path, backend, bar, moment, limit=LIMIT, capture_output=True, text=True)
    if (backend, moment) != ("numba", "del"):  # Numba imports as it runs, which fails by then, but does not hang
        assert "(3, 64)" in done.stdout, done.stderr


def embed(model: EmbeddingModel, texts: list[str]) -> Any:
    return model.encode(texts)


def in_spawned(model: EmbeddingModel) -> Any:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(embed, model, TEXTS).result(LIMIT)


@pytest.fixture
def own_path(model_path: Path, tmp_path: Path) -> Path:
    """A model file that a test may change."""
    return Path(shutil.copyfile(model_path, tmp_path / "own.safetensors"))


@pytest.mark.parametrize(
    "other_side",
    [
        lambda model: pickle.loads(pickle.dumps(model)).encode(TEXTS),
        lambda model: copy.copy(model).encode(TEXTS),
        lambda model: copy.deepcopy([model])[0].encode(TEXTS),
        in_spawned,
        lambda model: joblib.Parallel(2)(joblib.delayed(embed)(model, TEXTS) for _ in range(2))[1],
    ],
    ids=["pickle", "copy", "deepcopy", "spawn", "joblib"],
)
@pytest.mark.parametrize("backend", BACKENDS[::2])
def test_models_pickle_and_copy(
    own_path: Path, backend: str, other_side: Callable[[EmbeddingModel], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own_path.parent)
    with embgemma.load(own_path.name, backend=backend, threads=1) as model:
        monkeypatch.chdir("/")
        model.default_prompt_name = "query"
        model.max_seq_length = 20
        model.prompts["query"] = "another: "
        assert np.array_equal(other_side(model), model.encode(TEXTS))


def test_a_copy_has_its_own_settings_and_engine(own_path: Path) -> None:
    model = embgemma.load(own_path, backend="reference")
    other = copy.deepcopy(model)
    other.prompts["query"] = "x"
    model.close()
    assert model.prompts["query"] != "x"
    assert other.encode("a").shape == (64,)
    with pytest.raises(embgemma.EmbgemmaError, match="closed"):
        pickle.dumps(model)


def other_weights(path: Path) -> None:
    write_synthetic_model(path, CONFIG, "int8", seed=5, force=True)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [(Path.unlink, "No such file"), (lambda path: path.write_bytes(b""), "0 bytes"), (other_weights, "pickled model")],
)
def test_a_pickled_model_wants_the_same_file(own_path: Path, damage: Callable[[Path], None], reason: str) -> None:
    model = embgemma.load(own_path, backend="reference")
    pickled = pickle.dumps(model)
    damage(own_path)
    with pytest.raises(ModelFileError, match=f"own.safetensors: .*{reason}"):
        pickle.loads(pickled)
    with pytest.raises(ModelFileError, match=r"own.safetensors: .*load it again"):
        pickle.dumps(model)
