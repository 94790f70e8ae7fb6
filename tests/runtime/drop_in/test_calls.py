"""The same calls of sentence-transformers and of embgemma, side by side: values, shapes, types and errors."""

from __future__ import annotations

import importlib
import inspect
import warnings
from typing import Any

import numpy as np
import pytest

import embgemma
from embgemma import EmbeddingModel, InputError, util

TEXTS = ["the of and", "", "is that for it", "a", "you 你好 😀", "<bos> [multimodal]", "to be or not " * 8, "\n\n"]
MANY = [f"{i} {text}" for i in range(14) for text in TEXTS]  # ranges of int8 want a hundred
# The engine's attention has 16 bits; elements of a unit vector and of a state of length 14.
CLOSE, STATES_CLOSE = 1e-4, 2e-2
ONE_STEP = 1  # a value at the edge of two codes

ENCODE = ("encode", "encode_query", "encode_document")
CALLS: dict[str, tuple[Any, dict[str, Any]]] = {
    "one": ("the of and", {}),
    "list": (TEXTS, {}),
    "tuple": (tuple(TEXTS), {}),
    "array": (np.array(TEXTS), {}),
    "an object": ({"text": "the of"}, {"prompt_name": "query"}),
    "objects": ([{"text": text} for text in TEXTS], {}),
    "array of objects": (np.array(TEXTS, object), {}),
    "prompt": (TEXTS, {"prompt": "x: "}),
    "no prompt": (TEXTS, {"prompt": ""}),
    "prompt name": (TEXTS, {"prompt_name": "query"}),
    "both prompts": (TEXTS, {"prompt_name": "nonsense", "prompt": "x: "}),
    "size": (TEXTS, {"truncate_dim": 16}),
    "size and length": (TEXTS, {"truncate_dim": 16, "normalize_embeddings": True}),
    "length": (TEXTS, {"normalize_embeddings": True}),
    "more than the size": (TEXTS, {"truncate_dim": 1000}),
    "batches": (TEXTS, {"batch_size": 3, "show_progress_bar": False, "device": "cpu"}),
    "old name": (None, {"sentences": TEXTS}),
    "tensor": (TEXTS, {"convert_to_tensor": True}),
    "tensor of one": ("the", {"convert_to_tensor": True, "convert_to_numpy": False}),
    "list of tensors": (TEXTS, {"convert_to_numpy": False}),
    "tensor not array": ("the", {"convert_to_numpy": False}),
    "no precision": (TEXTS, {"precision": None}),
    "binary": (TEXTS, {"precision": "binary"}),
    "ubinary": (TEXTS, {"precision": "ubinary", "convert_to_tensor": True}),
    "binary of one": ("the", {"precision": "binary", "truncate_dim": 20}),
    "int8": (MANY, {"precision": "int8"}),
    "uint8": (MANY, {"precision": "uint8", "convert_to_numpy": False}),
    "states": (TEXTS, {"output_value": "token_embeddings", "convert_to_numpy": False}),
    "states of one": ("the", {"output_value": "token_embeddings", "convert_to_tensor": True}),
    "coded states": (TEXTS, {"output_value": "token_embeddings", "precision": "ubinary"}),
    "everything": ("the of", {"output_value": None, "truncate_dim": 9, "convert_to_numpy": False}),
}


def quietly(call: Any, inputs: Any, arguments: dict[str, Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call(**arguments) if inputs is None else call(inputs, **arguments)


def compare(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for name in expected:
            compare(found[name], expected[name])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            compare(one, other)
    elif isinstance(expected, str | int):
        assert found == expected
    else:
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        compare_values(np.asarray(found), np.asarray(expected))


def compare_values(found: Any, expected: Any) -> None:
    if expected.dtype == np.float32:
        close = CLOSE if np.abs(expected).max(initial=0) <= 1 else STATES_CLOSE
        np.testing.assert_allclose(found, expected, atol=close, rtol=0)
    elif np.array_equal(found, expected):
        return
    elif expected.shape[-1] == 192:
        assert np.abs(found.astype(int) - expected.astype(int)).max() <= ONE_STEP
    else:
        assert np.unpackbits((found ^ expected).view(np.uint8)).mean() < 0.01  # values at zero


@pytest.mark.parametrize("method", ENCODE)
@pytest.mark.parametrize("case", CALLS)
def test_encode(theirs: Any, ours: EmbeddingModel, case: str, method: str) -> None:
    expected = quietly(getattr(theirs, method), *CALLS[case])
    compare(quietly(getattr(ours, method), *CALLS[case]), expected)


WRONG: dict[str, tuple[Any, dict[str, Any]]] = {
    "none": (None, {"inputs": None}),
    "number": (3, {}),
    "bytes": (b"a", {}),
    "dict": ({"a": 1}, {}),
    "set": ({"a", "b"}, {}),
    "list of none": ([None], {}),
    "list of numbers": ([1], {}),
    "chat": ([{"role": "user", "content": "x"}], {}),
    "array of no dimension": (np.array("a"), {}),
    "prompt name": ("a", {"prompt_name": "nonsense"}),
    "batch size": ("a", {"batch_size": 0}),
    "precision": ("a", {"precision": "int4"}),
    "range of one": (["a"], {"precision": "int8"}),
    "unknown argument": ("a", {"normalise": True}),
}


@pytest.mark.parametrize("case", WRONG)
def test_errors_of_one_type(theirs: Any, ours: EmbeddingModel, case: str) -> None:
    with pytest.raises(ValueError) as expected:  # noqa: PT011  # the message is theirs
        quietly(theirs.encode, *WRONG[case])
    with pytest.raises(expected.type) as found:
        quietly(ours.encode, *WRONG[case])
    assert found.type is InputError


def test_default_prompt_and_missing_prompts(theirs: Any, ours: EmbeddingModel, monkeypatch: Any) -> None:
    for model in (theirs, ours):
        monkeypatch.setattr(model, "default_prompt_name", "document")
    compare(ours.encode(TEXTS), theirs.encode(TEXTS))
    for model in (theirs, ours):
        monkeypatch.setattr(model, "prompts", {"document": "x: "})
    for method in ENCODE:
        compare(getattr(ours, method)(TEXTS), getattr(theirs, method)(TEXTS))
        compare(getattr(ours, method)(TEXTS, prompt=""), getattr(theirs, method)(TEXTS, prompt=""))


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan", None])
def test_similarity(theirs: Any, ours: EmbeddingModel, name: str | None, monkeypatch: Any) -> None:
    import torch

    for model in (theirs, ours):
        monkeypatch.setattr(model, "similarity_fn_name", name)
    assert ours.similarity_fn_name == theirs.similarity_fn_name
    tensors = theirs.encode(TEXTS, convert_to_tensor=True)
    for left, right in ((tensors, tensors[:3]), (tensors[0], tensors), (list(tensors), tensors.numpy())):
        compare(ours.similarity(left, right), theirs.similarity(left, right))
    pairs = ((tensors, tensors.flip(0)), (tensors[0], tensors), (tensors, tensors[:1]), (tensors[0], tensors[1]))
    for left, right in pairs:
        compare(ours.similarity_pairwise(left, right), theirs.similarity_pairwise(left, right))
    arrays = ours.similarity(tensors.numpy(), tensors.numpy()), theirs.similarity(tensors, tensors).numpy()
    compare(*arrays)  # arrays in, arrays out
    assert ours.similarity(tensors.to(torch.bfloat16), tensors).dtype == torch.float32


def test_what_a_model_says_of_itself(theirs: Any, ours: EmbeddingModel) -> None:
    for name in (
        "prompts",
        "default_prompt_name",
        "similarity_fn_name",
        "max_seq_length",
        "truncate_dim",
        "modalities",
    ):
        assert getattr(ours, name) == getattr(theirs, name), name
    for name in ("get_embedding_dimension", "get_max_seq_length", "get_model_kwargs"):
        assert getattr(ours, name)() == getattr(theirs, name)(), name
    assert str(ours.device) == str(theirs.device)
    assert ours.device.type == theirs.device.type
    assert ours.device == theirs.device
    assert theirs.device == ours.device
    assert ours.eval() is ours.train(False) is ours.to(theirs.device) is ours
    with ours.truncate_embeddings(9), theirs.truncate_embeddings(9):
        compare(ours.encode(TEXTS), theirs.encode(TEXTS))
        assert ours.get_embedding_dimension() == theirs.get_embedding_dimension() == 9


def test_tokens(theirs: Any, ours: EmbeddingModel) -> None:
    for prompt in (None, "task: "):
        found, expected = ours.preprocess(TEXTS, prompt), theirs.preprocess(TEXTS, prompt)
        assert list(found) == list(expected)
        for name in ("input_ids", "attention_mask"):
            compare_values(found[name], expected[name].numpy())
        assert found.get("prompt_length") == expected.get("prompt_length")


def test_tokenizers(theirs: Any, ours: EmbeddingModel) -> None:
    long = "the of " * 200
    lengths: list[dict[str, Any]] = [{}, {"max_length": 9}, {"max_length": 2}]
    for arguments in lengths:
        for cut in ({}, {"truncation": True}, {"truncation": "only_first"}, {"truncation": False}):
            for around in (True, False):
                found, expected = (
                    model.tokenizer.encode(long, add_special_tokens=around, **cut, **arguments)
                    for model in (ours, theirs)
                )
                assert found == expected, (arguments, cut, around)
    pads: list[dict[str, Any]] = [{"padding": True}, {"padding": "max_length", "truncation": True}]
    for arguments in (*pads, {**pads[0], "truncation": True, "max_length": 4}, {**pads[1], "max_length": 9}):
        compare(*({**model.tokenizer(TEXTS, return_tensors="pt", **arguments)} for model in (ours, theirs)))
    assert ours.tokenizer.pad_token_id == theirs.tokenizer.pad_token_id
    assert ours.tokenizer(TEXTS)["input_ids"] == theirs.tokenizer(TEXTS)["input_ids"]
    assert ours.tokenizer("the")["attention_mask"] == theirs.tokenizer("the")["attention_mask"]


def test_long_texts_are_cut_alike(theirs: Any, ours: EmbeddingModel) -> None:
    compare(quietly(ours.encode, "the of " * 200, {}), theirs.encode("the of " * 200))


SIGNATURES = """encode encode_query encode_document encode_multi_process start_multi_process_pool
    stop_multi_process_pool similarity similarity_pairwise preprocess tokenize supports is_singular_input to eval
    get_max_seq_length get_embedding_dimension get_sentence_embedding_dimension get_model_kwargs truncate_embeddings
    truncate_sentence_embeddings train"""


@pytest.mark.parametrize("name", SIGNATURES.split())
def test_signatures(theirs: Any, name: str) -> None:
    found, expected = (
        [(each.name, each.kind, each.default) for each in inspect.signature(getattr(of, name)).parameters.values()]
        for of in (EmbeddingModel, type(theirs))
    )
    assert found == expected


@pytest.mark.parametrize("name", ["semantic_search", "paraphrase_mining", "paraphrase_mining_embeddings"])
def test_signatures_of_util(theirs: Any, name: str) -> None:
    del theirs  # skips where there is none
    other = importlib.import_module("sentence_transformers.util")
    found, expected = (inspect.signature(getattr(of, name)).parameters for of in (util, other))
    assert list(found) == list(expected)
    for parameter in found.values():
        if parameter.name != "score_function":
            assert parameter.default == expected[parameter.name].default


def test_search_and_mining(theirs: Any, ours: EmbeddingModel) -> None:
    other, torch = importlib.import_module("sentence_transformers.util"), pytest.importorskip("torch")
    queries, corpus = ours.encode(TEXTS), ours.encode(MANY)
    tensors = torch.from_numpy(queries), torch.from_numpy(corpus)
    chunks = {"query_chunk_size": 3, "corpus_chunk_size": 40, "top_k": 4}
    expected = other.semantic_search(*tensors, **chunks)
    for found in (
        util.semantic_search(queries, corpus, **chunks),
        util.semantic_search(*tensors, score_function=other.cos_sim, **chunks),
    ):
        scores = [[[hit["score"] for hit in hits] for hits in each] for each in (found, expected)]
        compare_values(*(np.array(each, np.float32) for each in scores))
        assert [[set(hit) for hit in hits] for hits in found] == [[set(hit) for hit in hits] for hits in expected]
    found, expected = (of.paraphrase_mining(model, TEXTS) for of, model in ((util, ours), (other, theirs)))
    assert sorted(pair[1:] for pair in found) == sorted(pair[1:] for pair in expected)
    compare_values(*(np.array([pair[0] for pair in pairs], np.float32) for pairs in (found, expected)))


def test_signature_of_the_class(theirs: Any) -> None:
    found, expected = (inspect.signature(of).parameters for of in (embgemma.SentenceTransformer, type(theirs)))
    for name, parameter in expected.items():
        assert (found[name].kind, found[name].default) == (parameter.kind, parameter.default), name


def test_series_and_frames_of_pandas(ours: EmbeddingModel) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"text": TEXTS, "number": range(len(TEXTS))})
    for column in (frame["text"], frame["text"].sample(frac=1, random_state=0), frame["text"].index.map(str)):
        compare_values(ours.encode(column), ours.encode(list(column)))
    for refused in (frame, frame[["text"]], frame["number"], frame.T, frame.groupby("number"), frame.set_index("text")):
        with pytest.raises(InputError, match="expected"):
            ours.encode(refused)
