"""Ollama's calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import ollama
import pytest

import embgemma
from tests.runtime.server.conftest import NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.runtime.server.conftest import Running

TEXTS = ["the of and", "you 你好 😀"]


@pytest.fixture
def client(server: Running) -> Iterator[ollama.Client]:
    with ollama.Client(server.url) as opened:
        yield opened


@pytest.mark.parametrize("name", [NAME, f"{NAME}:latest"])
def test_embed(client: ollama.Client, model: embgemma.EmbeddingModel, name: str) -> None:
    found = client.embed(name, TEXTS, keep_alive="5m", options={"num_ctx": 512})
    assert np.array_equal(np.array(found.embeddings, np.float32), model.encode(TEXTS))
    assert (found.model, found.prompt_eval_count) == (name, sum(map(len, model.token_ids(TEXTS))))
    assert found.total_duration is not None
    assert found.total_duration > 0
    found = client.embed(name, TEXTS[0], dimensions=32)
    expected = model.encode(TEXTS[:1], truncate_dim=32, normalize_embeddings=True)
    assert np.array_equal(np.array(found.embeddings, np.float32), expected)
    assert client.embed(name, TEXTS[0], dimensions=0).embeddings == client.embed(name, TEXTS[0]).embeddings


def test_the_older_call(client: ollama.Client, model: embgemma.EmbeddingModel) -> None:
    found = client.embeddings(NAME, TEXTS[1])
    assert np.array_equal(np.array(found.embedding, np.float32), model.encode(TEXTS[1]))


def test_nothing_to_embed(client: ollama.Client) -> None:
    assert client.embed(NAME, "").embeddings == client.embed(NAME, []).embeddings == []
    assert client.embeddings(NAME, "").embedding == []


def test_long_texts_are_cut_unless_they_may_not(client: ollama.Client) -> None:
    assert len(client.embed(NAME, "the of and " * 60).embeddings) == 1
    with pytest.raises(ollama.ResponseError, match="more than 64 tokens"):
        client.embed(NAME, "the of and " * 60, truncate=False)


def test_models(client: ollama.Client, server: Running, model: embgemma.EmbeddingModel) -> None:
    for listed in (client.list(), client.ps()):
        (found,) = listed.models
        assert (found.model, found.size) == (NAME, model.path.stat().st_size)
        assert len(str(found.digest)) >= 12  # of which the command `ollama` prints so many
    shown = client.show(NAME)
    assert shown.capabilities == ["embedding"]
    assert shown.modelinfo is not None
    assert shown.modelinfo["gemma3.embedding_length"] == 64
    assert server.ask("POST", "/api/show", {"name": NAME}).status == 200
    assert server.ask("GET", "/api/version").json == {"version": embgemma.__version__}
    assert server.ask("HEAD", "/").status == 200  # by which it sees that there is a server
    with pytest.raises(ollama.ResponseError, match="the model 'else' is not here"):
        client.show("else")
    with pytest.raises(ollama.ResponseError, match="the model 'else' is not here"):
        client.embed("else", "the")


@pytest.mark.parametrize("dim", [-1, 0.0, False, "64", 65, [0]])
def test_sizes_that_are_refused(server: Running, dim: object) -> None:
    answer = server.ask("POST", "/api/embed", {"input": "the", "dimensions": dim})
    assert (answer.status, "expected a whole number from 0 to 64" in answer.json["error"]) == (400, True)


def test_errors_have_their_shape(server: Running) -> None:
    for path, body in [("/api/embed", {"input": [2, 5, 1]}), ("/api/embed", {"inputs": "a"}), ("/api/generate", {})]:
        answer = server.ask("POST", path, body)
        assert answer.status in (400, 404)
        assert isinstance(answer.json["error"], str)
