"""The Python API on a small model: shapes, order, prompts, sizes, errors, and identical bits for any batching."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import embgemma
from embgemma import EmbeddingModel, EmbgemmaError, InputError, ModelFileError, TruncationWarning
from embgemma.export.synthetic import write_synthetic_model
from embgemma.kernels.backend import BACKENDS
from embgemma.similarity import SIMILARITY_FUNCTIONS, similarity, similarity_pairwise
from tests import tiny
from tests.processes import PYTHON, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TEXTS = ["the of and", "", "is that for it", "a", "you 你好 😀", "to be or not " * 8, "\n\n", "<bos> [multimodal]"]
DIM = 64  # of the small model
MAX_TOKENS = 64


@pytest.fixture(scope="module", params=BACKENDS)
def model(request: pytest.FixtureRequest, model_path: Path) -> Iterator[EmbeddingModel]:
    if request.param not in embgemma.available_backends():
        pytest.skip(f"backend {request.param} is not available here")
    with embgemma.load(model_path, backend=request.param, threads=2) as opened:
        yield opened


@pytest.fixture(scope="module")
def reference(model_path: Path) -> EmbeddingModel:
    """For what does not depend on the backend."""
    return embgemma.load(model_path, backend="reference")


def test_one_text_gives_a_vector_and_a_list_a_matrix(model: EmbeddingModel) -> None:
    one = model.encode("the of and")
    many = model.encode(["the of and"])
    assert one.shape == (DIM,)
    assert many.shape == (1, DIM)
    assert one.dtype == many.dtype == np.float32
    assert np.array_equal(one, many[0])
    assert model.encode([]).shape == (0, DIM)
    assert model.encode([], truncate_dim=16).shape == (0, 16)
    assert np.linalg.norm(one) == pytest.approx(1, abs=1e-6)


def test_bits_do_not_depend_on_batch_or_order(model: EmbeddingModel) -> None:
    alone = np.stack([model.encode(text) for text in TEXTS])
    assert np.array_equal(alone, model.encode(TEXTS))
    assert np.array_equal(alone, model.encode(TEXTS[::-1])[::-1])
    assert np.array_equal(alone, model.encode(TEXTS, batch_size=2))


def test_bits_do_not_depend_on_threads(model: EmbeddingModel, model_path: Path) -> None:
    for threads in (1, 3):
        other = embgemma.load(model_path, backend=model.backend, threads=threads)
        assert np.array_equal(other.encode(TEXTS), model.encode(TEXTS))


def test_calls_from_several_threads_at_once(model: EmbeddingModel) -> None:
    expected = model.encode(TEXTS)
    with ThreadPoolExecutor(4) as callers:
        assert all(np.array_equal(found, expected) for found in callers.map(model.encode, [TEXTS] * 4))


def test_truncated_embeddings(model: EmbeddingModel) -> None:
    full = model.encode(TEXTS)
    short = model.encode(TEXTS, truncate_dim=16, normalize_embeddings=True)
    prefix = model.encode(TEXTS, truncate_dim=16)
    assert np.array_equal(prefix, full[:, :16])
    for dim in (1, 7, 16, DIM):
        assert model.encode(TEXTS, truncate_dim=dim).shape == (len(TEXTS), dim)
    np.testing.assert_allclose(np.linalg.norm(short, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(short, prefix / np.linalg.norm(prefix, axis=1, keepdims=True), atol=1e-6)
    assert np.array_equal(model.encode(TEXTS, normalize_embeddings=True), full)


def test_token_ids_in(model: EmbeddingModel) -> None:
    ids = model.token_ids(TEXTS)
    expected = model.encode(TEXTS)
    assert np.array_equal(model.encode_ids(ids), expected)
    assert np.array_equal(model.encode_ids([np.array(text) for text in ids]), expected)
    assert np.array_equal(model.encode_ids(ids, truncate_dim=5, normalize_embeddings=False), expected[:, :5])
    assert model.encode_ids([]).shape == (0, DIM)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([[2, 1], []], "text 1 has 0 tokens; expected 1 to 64"),
        ([[2] * 65], "text 0 has 65 tokens"),
        ([[2, 1.5]], r"ids\[0\] has elements of type float64; expected integers"),
        ([[2, -1]], "text 0 has id -1 at token 1; expected 0 to 895"),
        ([[2], [896]], "text 1 has id 896 at token 0"),
        ([[2**40]], r"expected 0 to 895"),
        ([2, 1], r"ids\[0\] has shape \(\)"),
    ],
)
def test_bad_token_ids(reference: EmbeddingModel, ids: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        reference.encode_ids(ids)


@pytest.mark.parametrize("make", [tuple, iter, np.array, lambda texts: (text for text in texts)])
def test_any_ordered_iterable_of_texts(reference: EmbeddingModel, make: Any) -> None:
    assert np.array_equal(reference.encode(make(TEXTS[:4])), reference.encode(TEXTS[:4]))


@pytest.mark.parametrize(
    ("sentences", "message"),
    [
        (None, "inputs is of type NoneType; expected a str or a list of str"),
        (3, "inputs is of type int"),
        (b"abc", "inputs is of type bytes.*decode it first"),
        ({"a": 1}, "inputs is of type dict"),
        ({"a", "b"}, "inputs is of type set"),
        (["a", None], r"inputs\[1\] is of type NoneType; expected str"),
        (["a", b"b"], r"inputs\[1\] is of type bytes"),
        (["a", float("nan")], r"inputs\[1\] is of type float"),
        ([["a", "b"]], r"inputs\[0\] is of type list"),
        (["a", "b\ud800"], r"inputs\[1\] has a lone surrogate '\\ud800' at character 1"),
        (b"caf\xe9".decode("utf-8", "surrogateescape"), r"lone surrogate '\\udce9' at character 3"),
    ],
)
def test_what_is_not_text(reference: EmbeddingModel, sentences: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        reference.encode(sentences)
    with pytest.raises(InputError, match=message):
        reference.token_ids(sentences)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"truncate_dim": 0}, "truncate_dim=0; expected an integer from 1 to"),
        ({"truncate_dim": 10**5000}, "truncate_dim=~1e5000; expected an integer"),
        ({"truncate_dim": -(10**5000)}, "truncate_dim=~-1e5000; expected an integer"),
        ({"truncate_dim": 2.0}, "truncate_dim is of type float"),
        ({"truncate_dim": True}, "truncate_dim=True"),
        ({"batch_size": 0}, "batch_size=0; expected an integer from 1 to"),
        ({"prompt_name": "nonsense"}, "prompt_name='nonsense' is not a prompt of this model; it has query, document"),
        ({"prompt": 3}, "prompt is of type int; expected str"),
        ({"prompt": "\ud800"}, "prompt has a lone surrogate"),
    ],
)
def test_bad_arguments(reference: EmbeddingModel, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        reference.encode("a", **arguments)


def test_input_errors_are_value_errors(reference: EmbeddingModel) -> None:
    with pytest.raises(ValueError, match="expected str"):
        reference.encode([1])


def test_prompts_go_before_the_text(reference: EmbeddingModel) -> None:
    query, document = reference.prompts["query"], reference.prompts["document"]
    assert reference.default_prompt_name is None
    for given, expected in (
        (reference.encode_query("a b"), query + "a b"),
        (reference.encode_document("a b"), document + "a b"),
        (reference.encode_query("a b", prompt_name="document"), document + "a b"),
        (reference.encode_document("a b", prompt="x: "), "x: a b"),
        (reference.encode("a b", prompt_name="query"), query + "a b"),
        (reference.encode("a b", prompt=""), "a b"),
        (reference.encode("a b"), "a b"),
    ):
        assert np.array_equal(given, reference.encode(expected))


def test_prompt_takes_precedence_over_its_name(reference: EmbeddingModel) -> None:
    with pytest.warns(UserWarning, match="prompt_name='query' is ignored") as caught:
        given = reference.encode("a b", prompt="x: ", prompt_name="query")
    assert caught[0].filename == __file__
    assert np.array_equal(given, reference.encode("x: a b"))


def test_default_prompt(model_path: Path) -> None:
    model = embgemma.load(model_path, backend="reference")
    model.default_prompt_name = "document"
    assert np.array_equal(model.encode("a"), model.encode_document("a"))
    del model.prompts["query"]
    assert np.array_equal(model.encode_query("a"), model.encode_document("a"))


def test_long_text_is_cut_with_one_warning(model: EmbeddingModel) -> None:
    long = "the of " * 15_000
    assert len(long) > 100_000
    with pytest.warns(TruncationWarning) as caught:
        embeddings = model.encode(["a", long, "b", long])
    assert len(caught) == 1
    warning = caught[0].message
    assert isinstance(warning, TruncationWarning)
    assert warning.indices == (1, 3)
    assert "2 of 4 texts have more than 64 tokens, the first of them text 1" in str(warning)
    assert caught[0].filename == __file__
    ids = model.token_ids(long)
    assert len(ids) == MAX_TOKENS
    assert ids[-1] == model.config.eos_id
    assert np.array_equal(embeddings[1], model.encode_ids([ids])[0])
    assert np.array_equal(embeddings[1], embeddings[3])


def test_warning_points_at_the_caller_of_encode_query(reference: EmbeddingModel) -> None:
    with pytest.warns(TruncationWarning) as caught:
        reference.encode_query("the of " * 100)
    assert caught[0].filename == __file__


def test_lower_maximum_length(model_path: Path) -> None:
    model = embgemma.load(model_path, backend="reference")
    assert model.max_seq_length == MAX_TOKENS
    model.max_seq_length = 5
    with pytest.warns(TruncationWarning, match="more than 5 tokens"):
        model.encode("the of and to in is that")
    assert len(model.token_ids("the of and to in is that")) == 5
    for wrong in (1, MAX_TOKENS + 1):
        with pytest.raises(InputError, match="max_seq_length"):
            model.max_seq_length = wrong


def test_tokenize_shapes(reference: EmbeddingModel) -> None:
    bos, eos = reference.config.bos_id, reference.config.eos_id
    assert reference.token_ids("") == [bos, eos]
    assert reference.token_ids(["", ""]) == [[bos, eos], [bos, eos]]
    prompted = reference.token_ids("a", prompt_name="query")
    assert prompted == reference.token_ids(reference.prompts["query"] + "a")


def test_batches_never_exceed_the_longest_text(reference: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    encode = type(reference._backend()).encode

    def counting(self: Any, ids: Any, offsets: Any, dim: int, normalize: bool) -> Any:
        sizes.append((len(offsets) - 1, len(ids)))
        return encode(self, ids, offsets, dim, normalize)

    monkeypatch.setattr(type(reference._backend()), "encode", counting)
    reference.encode(["the of and to"] * 40, batch_size=7)
    assert sum(texts for texts, _ in sizes) == 40
    assert max(texts for texts, _ in sizes) == 7
    sizes.clear()
    reference.encode(["the of and to"] * 40, batch_size=1000)
    assert max(tokens for _, tokens in sizes) <= MAX_TOKENS
    assert len(sizes) > 1


def test_progress_bar(reference: EmbeddingModel, capsys: pytest.CaptureFixture[str]) -> None:
    reference.encode(TEXTS)
    assert capsys.readouterr().err == ""
    reference.encode(TEXTS, show_progress_bar=True)
    assert f"{len(TEXTS)}/{len(TEXTS)}" in capsys.readouterr().err


def test_properties(model: EmbeddingModel, model_path: Path) -> None:
    assert model.backend in BACKENDS
    assert model.isa
    assert model.threads >= 1
    assert model.scheme == "int8"
    assert model.path == model_path
    assert model.similarity_fn_name == "cosine"
    assert model.get_embedding_dimension() == model.get_sentence_embedding_dimension() == DIM
    assert model.backend in repr(model)


def test_closed_model(model_path: Path) -> None:
    with embgemma.load(model_path, backend="reference") as model:
        assert model.encode("a").shape == (DIM,)
    assert "closed" in repr(model)
    for call in (lambda: model.encode("a"), lambda: model.encode_ids([[2, 1]]), lambda: model.token_ids("a")):
        with pytest.raises(EmbgemmaError, match="closed"):
            call()
    model.close()


def test_file_without_tokenizer_takes_ids_only(tmp_path: Path, reference: EmbeddingModel) -> None:
    path = tmp_path / "ids-only.safetensors"
    write_synthetic_model(path, reference.config, "int8")
    model = embgemma.load(path, backend="reference")
    assert model.encode_ids([[2, 5, 1]]).shape == (1, DIM)
    with pytest.raises(ModelFileError, match="has no tokenizer that runs here"):
        model.encode("a")


def test_file_with_a_broken_or_foreign_tokenizer(tmp_path: Path, reference: EmbeddingModel) -> None:
    config = reference.config
    for name, small_config, content, message in (
        ("broken", config, b"not a tokenizer", "not a SentencePiece model"),
        ("foreign", replace(config, vocab=config.vocab - 64), tiny.tokenizer_model(), "do not belong together"),
    ):
        path = tmp_path / f"{name}.safetensors"
        write_synthetic_model(path, small_config, "int8", tokenizer_model=content)
        with pytest.raises(ModelFileError, match=f"{name}.safetensors: .*{message}"):
            embgemma.load(path, backend="reference")


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2"])
def test_wrong_number_of_threads(model_path: Path, threads: Any) -> None:
    with pytest.raises(InputError, match=r"threads.*expected an integer from 1 to"):
        embgemma.load(model_path, threads=threads)


def test_unknown_backend(model_path: Path) -> None:
    with pytest.raises(embgemma.BackendError, match="backend='gpu'"):
        embgemma.load(model_path, backend="gpu")


@pytest.mark.parametrize("name", SIMILARITY_FUNCTIONS)
def test_similarity_functions(name: str) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((3, 8)).astype(np.float32), rng.standard_normal((5, 8)).astype(np.float32)
    functions: dict[str, Callable[[Any, Any], float]] = {
        "cosine": lambda x, y: x @ y / np.linalg.norm(x) / np.linalg.norm(y),
        "dot": lambda x, y: x @ y,
        "euclidean": lambda x, y: -np.sqrt(((x - y) ** 2).sum()),
        "manhattan": lambda x, y: -np.abs(x - y).sum(),
    }
    expected = functions[name]
    scores = similarity(name, a, b)
    assert scores.shape == (3, 5)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, [[expected(x, y) for y in b] for x in a], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(similarity_pairwise(name, a, b[:3]), np.diag(scores[:, :3]), rtol=1e-5, atol=1e-6)
    assert similarity(name, a[0], b[0]).shape == (1, 1)


def test_similarity_of_embeddings(model: EmbeddingModel) -> None:
    embeddings = model.encode(TEXTS[:3])
    np.testing.assert_allclose(np.diag(model.similarity(embeddings, embeddings)), 1, atol=1e-6)
    np.testing.assert_allclose(model.similarity_pairwise(embeddings, embeddings), 1, atol=1e-6)
    assert model.similarity(embeddings[0], embeddings).shape == (1, 3)


def test_similarity_of_what_does_not_fit(reference: EmbeddingModel) -> None:
    with pytest.raises(InputError, match="64 and 16 dimensions"):
        reference.similarity(np.ones(64), np.ones(16))
    with pytest.raises(InputError, match="2 and 3 embeddings"):
        reference.similarity_pairwise(np.ones((2, 4)), np.ones((3, 4)))
    with pytest.raises(InputError, match=r"shape \(1, 1, 4\)"):
        reference.similarity(np.ones((1, 1, 4)), np.ones(4))
    with pytest.raises(InputError, match="not numbers of one shape"):
        reference.similarity([[1.0], [1.0, 2.0]], np.ones(4))


def test_similarity_name_that_is_unknown(reference: EmbeddingModel) -> None:
    with pytest.raises(InputError, match="'maxsim'; expected one of 'cosine', 'dot'"):
        reference.similarity_fn_name = "maxsim"
    with pytest.raises(InputError, match="'maxsim'; expected one of 'cosine'"):
        similarity("maxsim", np.ones(4), np.ones(4))


def test_import_loads_no_heavy_package() -> None:
    heavy = ["numba", "torch", "onnx", "onnxruntime", "transformers", "huggingface_hub", "apsw", "sqlite_vec"]
    heavy += [f"embgemma.{room}" for room in ("export", "benchmarks", "hub", "search")]
    code = f"import sys, embgemma; print([name for name in {heavy!r} if name in sys.modules])"
    result = run(PYTHON, "-c", code, capture_output=True, text=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("name", SIMILARITY_FUNCTIONS)
def test_one_embedding_is_the_pair_of_every_other(name: str) -> None:
    many = np.arange(12, dtype=np.float32).reshape(3, 4)
    scores = similarity(name, many[0], many)[0]
    for one in (many[0], many[:1]):
        np.testing.assert_allclose(similarity_pairwise(name, one, many), scores, rtol=1e-5)
        np.testing.assert_allclose(similarity_pairwise(name, many, one), scores, rtol=1e-5)
    single = similarity_pairwise(name, many[0], many[1])
    assert single.shape == ()
    assert single == pytest.approx(scores[1])
    assert similarity_pairwise(name, many[:1], many[1]).shape == (1,)
