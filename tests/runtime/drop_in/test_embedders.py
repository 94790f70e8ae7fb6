"""Embedders of other packages, which import sentence-transformers by themselves, over embgemma and over it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.processes import PYTHON, run

TEXTS = ["the of and", "is that for it", "you 你好 😀"]
CLOSE = 1e-4  # elements of a unit vector; the engine's attention has 16 bits
LIMIT = 300.0  # seconds to import and embed

IN_PLACE_OF_SENTENCE_TRANSFORMERS = """
import sys
import embgemma
sys.modules["sentence_transformers"] = embgemma
"""

EMBEDDERS = {
    "langchain_huggingface": """
from langchain_huggingface import HuggingFaceEmbeddings
options = {"normalize_embeddings": True, "batch_size": 2, "truncate_dim": 64}
embedder = HuggingFaceEmbeddings(
    model_name=path,
    model_kwargs={"device": "cpu"},
    encode_kwargs={"prompt_name": "document", **options},
    query_encode_kwargs={"prompt_name": "query", **options},
)
result = [*embedder.embed_documents(texts), embedder.embed_query(texts[0])]
""",
    "llama_index.embeddings.huggingface": """
from llama_index.embeddings.huggingface import HuggingFaceEmbedding
embedder = HuggingFaceEmbedding(path, query_instruction="query: ", device="cpu", max_length=32, embed_batch_size=2)
result = [*embedder.get_text_embedding_batch(texts), embedder.get_query_embedding(texts[0])]
""",
    "chromadb": """
from chromadb.utils.embedding_functions import SentenceTransformerEmbeddingFunction
embedder = SentenceTransformerEmbeddingFunction(path, truncate_dim=64)
result = [vector.tolist() for vector in embedder(texts)]
""",
}

PROGRAM = """
import json, sys
if __name__ == "__main__":
    path, texts = sys.argv[1], json.loads(sys.argv[2])
    {embedder}
    print("RESULT", json.dumps(result))
"""


def embed(name: str, path: Path, folder: Path, first: str) -> Any:
    program = folder / "program.py"
    program.write_text(first + PROGRAM.format(embedder=EMBEDDERS[name].replace("\n", "\n    ")), encoding="utf-8")
    done = run(PYTHON, program, path, json.dumps(TEXTS), cwd=folder, limit=LIMIT, capture_output=True, text=True)
    return np.array(json.loads(done.stdout.partition("RESULT")[2]))


@pytest.mark.parametrize("name", EMBEDDERS)
def test_embedder(name: str, folder: Path, model_path: Path, tmp_path: Path) -> None:
    for package in (name.partition(".")[0], "sentence_transformers"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    found = embed(name, model_path, tmp_path, IN_PLACE_OF_SENTENCE_TRANSFORMERS)
    expected = embed(name, folder, tmp_path, "")
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=CLOSE)


@pytest.mark.parametrize("name", ["langchain_huggingface", "chromadb"])
def test_embedder_loads_no_torch(name: str, model_path: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    without = IN_PLACE_OF_SENTENCE_TRANSFORMERS + 'sys.modules["torch"] = None\n'
    assert embed(name, model_path, tmp_path, without).shape[1] == 64
