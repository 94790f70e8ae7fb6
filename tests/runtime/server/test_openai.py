"""OpenAI's calls: what they answer, and what they refuse."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embgemma.server import ollama_calls, openai_calls
from tests.runtime.server.conftest import NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import embgemma
    from tests.runtime.server.conftest import Running

CALLS = {
    "/v1/embeddings": openai_calls.FIELDS,
    "/api/embed": ollama_calls.FIELDS,
    "/api/embeddings": ollama_calls.OLD_FIELDS,
}
TEXTS = ["the of and", "you 你好 😀", " ", "is that for it. " * 3]


@pytest.fixture
def client(server: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as opened:
        yield opened


@pytest.mark.parametrize("inputs", [TEXTS[0], TEXTS, TEXTS * 200])
@pytest.mark.parametrize("encoding", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}])
def test_vectors_are_those_of_encode(
    client: openai.OpenAI, model: embgemma.EmbeddingModel, inputs: Any, encoding: dict[str, Any]
) -> None:
    found = client.embeddings.create(model=NAME, input=inputs, **encoding)
    rows: list[Any] = [row.embedding for row in found.data]
    if encoding.get("encoding_format") == "base64":
        rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in rows]
    texts = [inputs] if isinstance(inputs, str) else inputs
    assert np.array_equal(np.array(rows, np.float32), model.encode(texts))
    assert [row.index for row in found.data] == list(range(len(texts)))
    assert found.usage.prompt_tokens == found.usage.total_tokens == sum(map(len, model.token_ids(texts)))
    assert found.model == NAME


@pytest.mark.parametrize("dim", [1, 32, 64])
def test_dimensions(client: openai.OpenAI, model: embgemma.EmbeddingModel, dim: int) -> None:
    found = client.embeddings.create(model=NAME, input=TEXTS, dimensions=dim)
    expected = model.encode(TEXTS, truncate_dim=dim, normalize_embeddings=True)
    assert np.array_equal(np.array([row.embedding for row in found.data], np.float32), expected)


@pytest.mark.parametrize("one", [True, False])
def test_token_ids(client: openai.OpenAI, model: embgemma.EmbeddingModel, one: bool) -> None:
    ids = model.token_ids(TEXTS, prompt_name="query")
    found = client.embeddings.create(model=NAME, input=ids[0] if one else ids)
    expected = model.encode_query(TEXTS[:1] if one else TEXTS)
    assert np.array_equal(np.array([row.embedding for row in found.data], np.float32), expected)


@pytest.mark.parametrize(
    ("fields", "prompt"),
    [
        ({}, None),
        ({"input_type": "query"}, "query"),
        ({"input_type": "search_query"}, "query"),
        ({"input_type": "document"}, "document"),
        ({"input_type": "passage"}, "document"),
        ({"prompt_name": "query"}, "query"),
        ({"prompt_name": None, "input_type": None}, None),
    ],
)
def test_prompts(client: openai.OpenAI, model: embgemma.EmbeddingModel, fields: Any, prompt: str | None) -> None:
    found = client.embeddings.create(model=NAME, input=TEXTS, extra_body=fields)
    expected = model.encode(TEXTS, prompt_name=prompt)
    assert np.array_equal(np.array([row.embedding for row in found.data], np.float32), expected)


@pytest.mark.parametrize(("given", "fields"), [("query", {}), ("document", {"input_type": "query"})])
def test_another_default_prompt(
    start_server: Callable[..., Running], model_path: Path, model: embgemma.EmbeddingModel, given: str, fields: Any
) -> None:
    server = start_server(model_path, "--default-prompt", given)
    answer = server.embed(input=TEXTS[0], **fields)
    assert np.array_equal(np.array(answer.json["data"][0]["embedding"], np.float32), model.encode_query(TEXTS[0]))
    facts = server.ask("GET", f"/v1/models/{NAME}").json
    assert (facts["default_prompt"], facts["fingerprint"]) == (given, model.fingerprint(given))


def test_models(client: openai.OpenAI) -> None:
    assert [each.id for each in client.models.list()] == [NAME]
    assert client.models.retrieve(NAME).owned_by == "embgemma"
    with pytest.raises(openai.NotFoundError, match="the model 'else' is not here; this server has small"):
        client.models.retrieve("else")


def test_long_texts_are_refused_unless_they_may_be_cut(server: Running, model: embgemma.EmbeddingModel) -> None:
    long = "the of and " * 60
    answer = server.embed(input=["the", long])
    assert (answer.status, answer.json["error"]["code"]) == (400, "context_length_exceeded")
    assert answer.message.startswith("input[1] has more than 64 tokens with its prompt")
    answer = server.embed(input=[long], truncate=True)
    with pytest.warns(match="was cut off"):
        expected = model.encode(long)
    assert np.array_equal(np.array(answer.json["data"][0]["embedding"], np.float32), expected)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"input": "a"}x', "not valid JSON"),
        (b"\xff", "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"input": ' + b'{"a":' * 100_000, "nested too deeply"),
        (b'{"input": NaN}', "NaN is no value of JSON"),
        (b'{"input": "a", "dimensions": Infinity}', "Infinity is no value of JSON"),
        (b'{"input": "a", "dimensions": 1e999}', "dimensions is inf; expected"),
        (b'{"input": "a", "dimensions": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'{"input": "a", "dimensions": ' + b"9" * 400 + b"}", "dimensions is "),
        (b'{"input": ["a", "\\ud800"]}', "input[1] has a lone surrogate"),
        (b'{"input": "a", "input": "b"}', "the field 'input' is there twice"),
        (b'{"input": "a", "x": {"y": 1, "z": 2, "y": 3}}', "the field 'y' is there twice"),
        (b'{"\\ud800": 1}', "there is no field"),
        (b'{"' + b"k" * 100_000 + b'": 1}', "there is no field"),
        (b'"a"', "the body is a string; expected a JSON object"),
        (b"null", "the body is null"),
    ],
)
def test_bodies_that_are_refused(server: Running, body: bytes, says: str) -> None:
    answer = server.ask("POST", "/v1/embeddings", body)
    assert answer.status == 400
    assert says in answer.message
    assert len(answer.body) < 1000


@pytest.mark.parametrize("encoding", ["identity", "Identity", ""])
@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/x-www-form-urlencoded", ""])
def test_bodies_of_clumsy_clients(server: Running, encoding: str, kind: str) -> None:
    """The body is JSON, whatever its headers say, and may begin with a byte order mark."""
    body = b'\xef\xbb\xbf{"input": "the"}'
    answer = server.ask("POST", "/v1/embeddings", body, Content_Type=kind, Content_Encoding=encoding)
    assert answer.status == 200
    assert server.ask("POST", "/v1/embeddings", body, Content_Type=kind, Content_Encoding="gzip").status == 415


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({}, "input", "input is null; expected a string"),
        ({"input": None}, "input", "input is null; expected a string"),
        ({"input": ""}, "input", "input[0] is empty"),
        ({"input": ["a", ""]}, "input", "input[1] is empty"),
        ({"input": []}, "input", "input is an empty array"),
        ({"input": [[]]}, "input", "input[0] has token ids of another model"),
        ({"input": 3}, "input", "input is a number"),
        ({"input": {"text": "a"}}, "input", "input is an object"),
        ({"input": ["a", 3]}, "input", "input[1] is a number; expected a string"),
        ({"input": ["a", None]}, "input", "input[1] is null"),
        ({"input": [3, "a"]}, "input", "input[1] is a string; expected a token id, which is a whole number"),
        ({"input": [[2, 1], [2, "a", 1]]}, "input", "input[1][1] is a string; expected a token id"),
        ({"input": [[[2, 1]]]}, "input", "input[0][0] is an array; expected a token id"),
        ({"input": [[2, True, 1]]}, "input", "input[0][1] is a boolean; expected a token id"),
        ({"input": [True]}, "input", "input[0] is a boolean; expected a string, or an array of token ids"),
        ({"input": [[2, 1], "a"]}, "input", "input[1] is a string; expected an array of token ids, as input[0] is"),
        ({"input": [[2, 1.5, 1]]}, "input", "input[0][1] is a number; expected a token id, which is a whole"),
        ({"input": [15339, 1917]}, "input", "check_embedding_ctx_length=False"),
        ({"input": [2, -5, 1]}, "input", "id -5"),
        ({"input": [2, 896, 1]}, "input", "expected 0 to 895"),
        ({"input": [2, 1 << 70, 1]}, "input", "expected integers"),
        ({"input": [2, (1 << 63) + 5, 1]}, "input", "expected"),
        ({"input": [2, *[5] * 70, 1]}, "input", "expected 1 to 64"),
        ({"input": [2, 5, 1], "input_type": "query"}, "input", "token ids hold their prompt"),
        ({"input": "a", "model": "text-embedding-3-small"}, "model", "is not here; this server has small"),
        ({"input": "a", "model": 3}, "model", "model is a number"),
        ({"input": "a", "dimensions": 0}, "dimensions", "from 1 to 64"),
        ({"input": "a", "dimensions": 65}, "dimensions", "from 1 to 64"),
        ({"input": "a", "dimensions": "32"}, "dimensions", "from 1 to 64"),
        ({"input": "a", "dimensions": 32.0}, "dimensions", "from 1 to 64"),
        ({"input": "a", "dimensions": True}, "dimensions", "from 1 to 64"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format", "expected 'float' or 'base64'"),
        ({"input": "a", "input_type": "clustering"}, "input_type", "expected one of 'query'"),
        ({"input": "a", "prompt_name": "else"}, "prompt_name", "expected one of 'query', 'document'"),
        ({"input": "a", "prompt_name": "query", "input_type": "query"}, "prompt_name", "give one of them"),
        ({"input": "a", "truncate": "yes"}, "truncate", "expected true or false"),
        ({"input": "a", "dimension": 32}, "dimension", "there is no field 'dimension'; expected model, input"),
    ],
)
def test_fields_that_are_refused(server: Running, fields: dict[str, Any], param: str, says: str) -> None:
    answer = server.embed(**fields)
    assert answer.status == (404 if says.startswith("is not here") else 400)
    assert answer.json["error"]["param"] == param
    assert says in answer.message


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS | st.sampled_from(("query", "base64", "\ud800", [2, 5, 1])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(call=st.sampled_from(sorted(CALLS)), data=st.data())
def test_whatever_fields_hold_the_answer_is_vectors_or_an_error(
    server: Running, call: str, data: st.DataObject
) -> None:
    fields = data.draw(st.dictionaries(st.sampled_from(CALLS[call]), VALUES, max_size=4))
    answer = server.ask("POST", call, fields)
    assert answer.status in (200, 400, 404)
    assert ("error" in answer.json) == (answer.status != 200)
