"""What all adapters share, and what they cost those who use none. None of their packages is needed here."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

import embgemma
from embgemma.integrations.base import Embedder, or_none
from tests.processes import PYTHON, run

TEXTS = ["the of and", "you 你好 😀", "", "to be or not " * 9]
PACKAGES = {
    "langchain": ("langchain_core", "pip install langchain-core"),
    "llama_index": ("llama_index.core", "pip install llama-index-core"),
    "haystack": ("haystack", "pip install haystack-ai"),
    "chroma": ("chromadb", "pip install chromadb"),
    "lancedb": ("lancedb", "pip install lancedb"),
    "txtai": ("txtai", "pip install txtai"),
    "llm": ("llm", "pip install llm"),
    "mteb": ("mteb", "pip install mteb-core"),
    "ray": ("ray", "[ray]"),
    "spark": ("pyspark", "[spark]"),
    "daft": ("daft", "[daft]"),
    "bulk": ("pyarrow", "[parquet]"),
}
FORBIDDEN = {package.partition(".")[0] for package, _ in PACKAGES.values()} | {"pandas", "pydantic", "torch"}

LACKING = """
import sys
import embgemma
sys.modules["{package}"] = None
try:
    import embgemma.integrations.{name}
except ImportError as error:
    assert isinstance(error, embgemma.BackendError)
    print(error)
"""


@pytest.fixture(scope="module")
def embedder(model_path: Path) -> Embedder:
    return Embedder(model_path, truncate_dim=16, threads=1)


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_that_lacks_is_named(name: str) -> None:
    package, command = PACKAGES[name]
    program = LACKING.format(package=package, name=name)
    (said,) = run(PYTHON, "-c", program, capture_output=True, text=True).stdout.splitlines()
    assert "needs the package" in said
    assert command in said


def test_every_adapter_is_in_that_list() -> None:
    folder = Path(__file__).parents[3] / "runtime/integrations"
    assert {path.stem for path in folder.glob("*.py")} - {"__init__", "base"} == set(PACKAGES)


def test_plain_import_loads_none_of_them() -> None:
    program = "import sys, embgemma; embgemma.load().encode_query('a'); print(*sys.modules)"
    loaded = set(run(PYTHON, "-c", program, capture_output=True, text=True).stdout.split())
    assert {name.partition(".")[0] for name in loaded} & FORBIDDEN == set()
    assert "embgemma.integrations" not in loaded


def test_prompts_order_and_length(embedder: Embedder, model_path: Path) -> None:
    model = embgemma.load(model_path, truncate_dim=16)
    for found, encode in ((embedder.documents, model.encode_document), (embedder.queries, model.encode_query)):
        assert np.array_equal(found(TEXTS), encode(TEXTS, normalize_embeddings=True))
        assert np.linalg.norm(found(TEXTS), axis=1) == pytest.approx(1)
        assert found([]).shape == (0, 16)
    assert embedder.document_lists([]) == []
    assert embedder.document_lists(TEXTS) == embedder.documents(TEXTS).tolist()
    assert embedder.query_list("the") == embedder.queries(["the"])[0].tolist()


@pytest.mark.parametrize("text", ["the", {"text": "the"}])
def test_one_text_is_no_list(embedder: Embedder, text: object) -> None:
    with pytest.raises(embgemma.InputError, match="texts is one text; expected a list"):
        embedder.documents(text)


def test_none_for_none(embedder: Embedder) -> None:
    first, none, last = or_none(embedder.documents, ["the", None, "of"])
    assert none is None
    assert np.array_equal([first, last], embedder.documents(["the", "of"]))
    assert or_none(embedder.documents, [None]) == [None]
    assert or_none(embedder.documents, []) == []


def test_pickles(embedder: Embedder) -> None:
    other = pickle.loads(pickle.dumps(embedder))
    assert np.array_equal(other.documents(TEXTS), embedder.documents(TEXTS))
    assert other.config() == embedder.config()


@pytest.mark.parametrize(
    "change", [{"truncate_dim": 32}, {"prompts": {"document": "another: "}}, {"model": "embgemma-tiny"}]
)
def test_a_stored_configuration_refuses_other_vectors(embedder: Embedder, change: dict[str, object]) -> None:
    config = embedder.config()
    assert np.array_equal(Embedder(**config).documents(TEXTS), embedder.documents(TEXTS))
    assert np.array_equal(Embedder(**{**config, "threads": 2}).documents(TEXTS), embedder.documents(TEXTS))
    with pytest.raises(embgemma.InputError, match=r"fingerprint of its vectors is .* embed the documents again"):
        Embedder(**{**config, **change})
