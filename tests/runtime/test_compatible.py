"""Arguments and calls of sentence-transformers, where that library is not needed to know what is right."""

from __future__ import annotations

import copy
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import embgemma
from embgemma import EmbeddingModel, EmbgemmaError, InputError, ModelFileError, TruncationWarning
from embgemma.kernels.errors import VectorError
from embgemma.kernels.safetensors_file import open_safetensors
from embgemma.outputs import quantize
from embgemma.util import quantize_embeddings
from tests import tiny
from tests.runtime.conftest import CONFIG

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEXTS = ["the of and", "", "is that for it", "a", "you 你好 😀", "<bos> [multimodal]"]
DIM = CONFIG.hidden


@pytest.fixture(scope="module")
def model(model_path: Path) -> EmbeddingModel:
    return embgemma.load(model_path, backend="reference")


@pytest.fixture(scope="module")
def pool(model: EmbeddingModel) -> Iterator[Any]:
    started = model.start_multi_process_pool(["cpu", "cpu"])
    yield started
    model.stop_multi_process_pool(started)


class Columns:
    """Like a data frame: iterating gives names of columns."""

    columns = ("a", "b")
    ndim = 2

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)


class Headers:
    """Like the headers of a message: iterating gives keys, and it is no Mapping."""

    def keys(self) -> list[str]:
        return ["a", "b"]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (Columns(), "inputs is of type Columns; .*; pass one of its columns"),
        (Headers(), "inputs is of type Headers"),
        (np.array("the"), "inputs is of type ndarray"),
        (np.array([["the", "of"]]), "inputs is of type ndarray"),
        (os.environ, "inputs is of type _Environ"),
        ({"a": 1}.keys(), "inputs is of type dict_keys"),
        (frozenset("a"), "inputs is of type frozenset"),
        (signal.Signals, "inputs is of type EnumType|EnumMeta"),
        ([("the", "of")], r"inputs\[0\] is of type tuple; .*join a pair of texts into one"),
        (["the", ["of", "and"]], r"inputs\[1\] is of type list; .*flatten"),
        ([{"text": ["the"]}], r"inputs\[0\] is of type list"),
        ({"text": b"the"}, r"inputs\[0\] is of type bytes; .*decode"),
        ([{"text": "the", "image": None}], r"inputs\[0\] is of type dict"),
        ([{"role": "user", "content": "hi"}], r"inputs\[0\] is of type dict; .*the content of a chat message"),
        ([Columns()], r"inputs\[0\] is of type Columns; .*pass one of its columns"),
    ],
)
def test_what_iterates_but_is_no_list_of_texts(model: EmbeddingModel, inputs: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        model.encode(inputs)


def test_places_and_names_of_arguments(model: EmbeddingModel) -> None:
    expected = model.encode(TEXTS, prompt="x: ", truncate_dim=16)
    false = False
    given = model.encode(
        TEXTS, "query", None, 2, false, "sentence_embedding", "float32", True, false, "cpu", false, 16, None, None
    )
    assert np.array_equal(model.encode(TEXTS, None, "x: ", truncate_dim=16), expected)
    assert np.array_equal(given, model.encode(TEXTS, prompt_name="query", truncate_dim=16))
    for call in (model.encode, model.encode_query, model.encode_document):
        assert np.array_equal(call(sentences=TEXTS, prompt="x: ", task="query", truncate_dim=16), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "cuda"}, "device='cuda': embgemma computes on the CPU"),
        ({"device": ["cpu", "mps"]}, "device='mps'"),
        ({"device": 0}, "device='0'"),
        ({"output_value": "tokens"}, "output_value='tokens'; expected one of 'sentence_embedding', 'token_embeddings'"),
        ({"precision": "int4"}, "precision='int4'; expected one of 'float32', 'int8'"),
        ({"precision": "int8", "output_value": None}, "precision='int8' is for embeddings"),
        ({"precision": "int8"}, "precision='int8' takes its range from the embeddings of the call, and one has none"),
        ({"processing_kwargs": {"text": {}}}, r"encode\(\) has no argument 'processing_kwargs' here"),
        ({"normalise_embeddings": False}, "no argument 'normalise_embeddings'"),
        ({"pool": 3}, "pool is of type int; expected what start_multi_process_pool"),
        ({"device": []}, "the list of devices is empty"),
        ({"chunk_size": 0}, "chunk_size=0; expected an integer from 1"),
    ],
)
def test_arguments_that_cannot_be_had(model: EmbeddingModel, arguments: dict[str, Any], message: str) -> None:
    for call in (model.encode, model.encode_query, model.encode_document):
        with pytest.raises(InputError, match=message):
            call("the of", **arguments)


def test_tensors_without_torch(model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert model.encode("the").shape == (DIM,)
    for arguments in ({"convert_to_tensor": True}, {"convert_to_numpy": False}):
        with pytest.raises(InputError, match="torch cannot be imported"):
            model.encode(["the"], **arguments)


def test_quantised_embeddings(model: EmbeddingModel) -> None:
    values = np.array([[-5, 0, 5], [250, 0, 5], [186.5, 0, 260]], np.float32)
    with pytest.warns(UserWarning, match="from 3 embeddings"):
        assert quantize(values, "uint8").tolist() == [[0, 0, 0], [255, 0, 0], [191, 0, 255]]
    with pytest.warns(UserWarning, match="from 3 embeddings"):
        assert quantize(values, "int8").tolist() == [[-128, -128, -128], [127, -128, -128], [63, -128, 127]]
    assert quantize(values, "ubinary").tolist() == [[0b00100000], [0b10100000], [0b10100000]]
    assert quantize(values, "binary").tolist() == [[0b00100000 - 128], [0b10100000 - 128], [0b10100000 - 128]]
    assert quantize(np.tile(values, (40, 1)), "int8").dtype == np.int8
    assert model.encode("the", precision="ubinary").shape == (DIM // 8,)
    ranges = values.min(axis=0), values.max(axis=0)
    for arguments in ({"ranges": ranges}, {"calibration_embeddings": values}):
        assert quantize_embeddings(values[:1], "uint8", **arguments).tolist() == [[0, 0, 0]]  # one has its range


@pytest.mark.parametrize(
    ("embeddings", "arguments"),
    [
        ("x", {}),
        ([["a"]], {}),
        (np.ones((2, 2, 2)), {}),
        (np.ones((2, 4)), {"ranges": [1]}),
        (np.ones((2, 4)), {"ranges": np.ones((2, 3))}),
        (np.ones((2, 4)), {"calibration_embeddings": []}),
        (np.ones((2, 4)), {"calibration_embeddings": np.ones((0, 4))}),
        (np.ones(4), {}),
    ],
)
def test_what_cannot_be_quantised(embeddings: Any, arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        quantize_embeddings(embeddings, "int8", **arguments)
    assert quantize_embeddings(np.ones(8), "ubinary").tolist() == [255]


@pytest.mark.parametrize("precision", ["float32", "int8", "uint8", "binary", "ubinary"])
def test_no_embeddings_are_as_some(model: EmbeddingModel, precision: Any) -> None:
    arguments: dict[str, Any] = {"precision": precision, "truncate_dim": 20}
    some, none = (model.encode(texts, **arguments) for texts in (["the"] * 100, []))
    assert (none.dtype, none.shape) == (some.dtype, (0, *some.shape[1:]))


def test_token_embeddings(model: EmbeddingModel) -> None:
    ids = model.token_ids(TEXTS, prompt_name="query")
    states = model.encode(TEXTS, "query", output_value="token_embeddings", batch_size=2)
    assert [len(state) for state in states] == [len(text) for text in ids]
    assert np.array_equal(model.encode_query(TEXTS[0], output_value="token_embeddings"), states[0])
    everything = model.encode(TEXTS, "query", output_value=None, truncate_dim=16)
    for row, text, state, vector in zip(everything, ids, states, model.encode_query(TEXTS), strict=True):
        assert row["input_ids"].tolist() == text
        assert row["attention_mask"].tolist() == [1] * len(text)
        assert np.array_equal(row["token_embeddings"], state)
        assert np.array_equal(row["sentence_embedding"], vector[:16])
    assert model.encode([], output_value="token_embeddings") == []


def test_pool_gives_the_same(model: EmbeddingModel, pool: Any) -> None:
    with pytest.warns(TruncationWarning) as caught:
        expected = model.encode([*TEXTS, "the of " * 50, "a"], "query")
    with pytest.warns(TruncationWarning) as again:
        found = model.encode([*TEXTS, "the of " * 50, "a"], "query", pool=pool, chunk_size=3)
    assert np.array_equal(found, expected)
    assert str(again[0].message) == str(caught[0].message)
    assert np.array_equal(model.encode_multi_process(TEXTS, pool), model.encode(TEXTS))
    assert np.array_equal(model.encode("the", pool=pool), model.encode("the"))
    assert model.encode([], pool=pool).shape == (0, DIM)
    states = model.encode(TEXTS, output_value="token_embeddings", pool=pool, chunk_size=1)
    assert all(map(np.array_equal, states, model.encode(TEXTS, output_value="token_embeddings")))


def test_pool_cuts_texts_as_the_model_does_now(
    model: EmbeddingModel, pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in (4, 9):
        monkeypatch.setattr(model, "max_seq_length", limit)
        with pytest.warns(TruncationWarning, match=f"more than {limit} tokens"):
            found = model.encode(["the of " * 50, "a"], pool=pool, chunk_size=1)
        with pytest.warns(TruncationWarning):
            assert np.array_equal(found, model.encode(["the of " * 50, "a"]))


def test_pool_of_another_model(pool: Any, tmp_path: Path) -> None:
    other = embgemma.load(tiny.write_model(tmp_path / "other.safetensors", CONFIG, "float32"))
    with pytest.raises(InputError, match="started by a model of another file"):
        other.encode(TEXTS, pool=pool)


def test_pool_survives_errors_and_late_results(model: EmbeddingModel, pool: Any) -> None:
    for chunk_size in (0, "2"):
        with pytest.raises(InputError, match="chunk_size"):
            model.encode(TEXTS, pool=pool, chunk_size=chunk_size)
    pool["input"].put((-1, 0, ["of a call that was interrupted"], "", None, 9))  # fails, and belongs to no call
    pool["output"].put((-1, 0, (np.zeros((1, DIM), np.float32), [])))
    assert np.array_equal(model.encode(TEXTS, pool=pool, chunk_size=1), model.encode(TEXTS))


def test_pool_whose_processes_end(model_path: Path) -> None:
    model = embgemma.load(model_path, backend="reference")
    pool = model.start_multi_process_pool(["cpu"])
    try:
        pool["processes"][0].kill()
        with pytest.raises(EmbgemmaError, match=r"1 processes of the pool have ended, exit codes \[-9\]; .*__main__"):
            model.encode(TEXTS, pool=pool)
    finally:
        model.stop_multi_process_pool(pool)
        model.stop_multi_process_pool(pool)
    with pytest.raises(EmbgemmaError, match="the pool was stopped; start another"):
        model.encode(TEXTS, pool=pool)
    with pytest.raises(InputError, match="pool is of type int"):
        model.stop_multi_process_pool(3)


def test_one_device_is_one_process(model_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(model_path.read_bytes())
    model = embgemma.load(path, backend="reference")
    pool = model.start_multi_process_pool("cpu")
    try:
        assert len(pool["processes"]) == 1
        assert np.array_equal(model.encode(TEXTS, pool=pool), model.encode(TEXTS))
    finally:
        model.stop_multi_process_pool(pool)
    path.unlink()
    with pytest.raises(ModelFileError, match=r"m\.safetensors: the file is gone or"):
        model.start_multi_process_pool(["cpu"])


def test_list_of_devices_is_a_pool_for_one_call(model: EmbeddingModel) -> None:
    assert np.array_equal(model.encode(TEXTS, device=["cpu", "cpu"]), model.encode(TEXTS))
    with pytest.raises(InputError, match="device='cuda'"):
        model.start_multi_process_pool(["cuda"])


def test_settings_of_a_model(model_path: Path) -> None:
    settings: dict[str, Any] = {
        "truncate_dim": 16,
        "prompts": {"query": "q: ", "other": "o: "},
        "default_prompt_name": "other",
        "similarity_fn_name": "dot",
        "device": "cpu",
    }
    plain = embgemma.load(model_path, backend="reference")
    theirs = embgemma.SentenceTransformer(model_path, backend="reference", trust_remote_code=False, **settings)
    for model in (embgemma.load(model_path, backend="reference", **settings), theirs, copy.deepcopy(theirs)):
        assert model.similarity_fn_name == "dot"
        assert model.get_embedding_dimension() == model.get_sentence_embedding_dimension() == 16
        assert np.array_equal(model.encode("the"), plain.encode("o: the")[:16])
        assert np.array_equal(model.encode_query("the", truncate_dim=DIM), plain.encode("q: the"))
        with model.truncate_embeddings(None), model.truncate_sentence_embeddings(5):
            assert model.encode(["the"]).shape == (1, 5)
        assert model.get_embedding_dimension() == 16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"truncate_dim": 0}, "truncate_dim=0"),
        ({"prompts": {"a": 3}}, "prompt is of type int"),
        ({"default_prompt_name": "nonsense"}, "prompt_name='nonsense'"),
        ({"similarity_fn_name": "maxsim"}, "'maxsim'"),
        ({"device": "cuda:0"}, "device='cuda:0'"),
        ({"model_kwargs": {"torch_dtype": "float16"}}, "model_kwargs: torch_dtype='float16': .*convert --scheme"),
        ({"model_kwargs": {"provider": "cpu"}}, "model_kwargs: 'provider' has no meaning for a model file"),
        ({"model_kwargs": ["dtype"]}, "model_kwargs is of type list; expected a dict"),
        ({"tokenizer_kwargs": {"padding_side": "left"}}, "tokenizer_kwargs: 'padding_side' has no meaning"),
        ({"tokenizer_kwargs": {"model_max_length": "9"}}, "model_max_length is of type str"),
        ({"revision": "v2"}, "revision='v2' has no meaning"),
        ({"model_name_or_path": None}, "model_name_or_path is missing"),
        ({"processor_kwargs": {"a": 1}}, "processor_kwargs: 'a' has no meaning"),
        ({"config_kwargs": {"a": 1}}, "config_kwargs: 'a' has no meaning"),
    ],
)
def test_settings_that_are_refused(model_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        embgemma.SentenceTransformer(**{"model_name_or_path": model_path, "backend": "reference", **arguments})
    if not any("kwargs" in name for name in arguments):
        with pytest.raises((InputError, TypeError)):
            embgemma.load(model_path, backend="reference", **arguments)


def test_settings_without_effect_here_and_one_by_another_name(model_path: Path) -> None:
    model = embgemma.SentenceTransformer(
        model_path,
        revision="main",
        model_kwargs={"attn_implementation": "sdpa", "torch_dtype": "float32", "dtype": "auto"},
        tokenizer_kwargs={"model_max_length": 9},
    )
    assert model.max_seq_length == 9
    model = embgemma.SentenceTransformer(model_path, processor_kwargs={"model_max_length": 1 << 20})
    assert model.max_seq_length == CONFIG.max_tokens  # the model has no more


def test_a_size_above_the_models_gives_what_there_is(model: EmbeddingModel, model_path: Path) -> None:
    expected = model.encode(TEXTS)
    with pytest.warns(UserWarning, match=f"truncate_dim=1000 is above the {DIM} dimensions"):
        assert np.array_equal(model.encode(TEXTS, truncate_dim=1000, normalize_embeddings=True), expected)
    other = embgemma.load(model_path, backend="reference", truncate_dim=1000)
    with pytest.warns(UserWarning, match="truncate_dim=1000"):
        assert np.array_equal(other.encode(TEXTS), expected)
    assert other.get_embedding_dimension() == DIM


class Torch:
    """Stands for a torch.dtype or a torch.device."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        return self.name


def test_what_torch_gives_is_named(model: EmbeddingModel) -> None:
    dtype, device = type("dtype", (Torch,), {}), type("device", (Torch,), {})
    assert model.to(dtype("torch.float32")) is model.to(device("cpu"), dtype=dtype("torch.float32")) is model
    assert model.device == device("cpu")
    assert model.device != device("cuda")
    assert model.device != dtype("cpu")
    for places, names in (([dtype("torch.float16")], {}), (["cpu"], {"dtype": dtype("torch.bfloat16")})):
        with pytest.raises(InputError, match=r"torch\.b?float16: weights have the precision .*--scheme"):
            model.to(*places, **names)


def test_what_a_torch_module_has(model: EmbeddingModel) -> None:
    assert model.to("cpu") is model.to(device="cpu") is model.cpu() is model.eval() is model.float() is model
    assert model.device == "cpu"
    assert model.device.type == "cpu"
    assert model.get_max_seq_length() == model.max_seq_length
    assert model.requires_grad_(False) is model.train(False) is model
    assert bool(model)
    with pytest.raises(InputError, match="does not train"):
        model.train()
    assert model.training is False
    assert model.get_backend() == model.backend
    uses: Any = (
        lambda: model[0].max_seq_length,
        lambda: list(model),
        lambda: len(model),
        lambda: model({"input_ids": [[2, 1]]}),
    )
    for use in uses:
        with pytest.raises(InputError, match="no torch module"):
            use()
    for places, names in ((["cuda"], {}), ([], {"dtype": "float16"}), (["cpu", "float16"], {})):
        with pytest.raises(InputError):
            model.to(*places, **names)
    for name, reason in (
        ("fit", "train"),
        ("_first_module", "no torch module"),
        ("named_parameters", "no torch module"),
        ("model_card_data", "convert"),
        ("half", "--scheme"),
        ("save_pretrained", "convert"),
        ("nonsense", "no attri"),
    ):
        assert not hasattr(model, name)
        with pytest.raises(AttributeError, match=reason):
            getattr(model, name)


def test_an_object_with_a_text_is_a_text(model: EmbeddingModel) -> None:
    expected = model.encode_query(TEXTS)
    np.testing.assert_array_equal(model.encode_query([{"text": text} for text in TEXTS]), expected)
    np.testing.assert_array_equal(model.encode_query({"text": TEXTS[0]}), expected[0])
    assert model.token_ids({"text": "the"}) == model.token_ids("the")
    assert model.is_singular_input({"text": "the"})


def test_preprocess(model: EmbeddingModel) -> None:
    features = model.tokenize(TEXTS)
    assert [row[mask == 1].tolist() for row, mask in zip(*list(features.values())[:2], strict=True)] == model.token_ids(
        TEXTS
    )
    assert features["input_ids"].dtype == np.int64
    assert model.preprocess("the", prompt="x: ")["input_ids"].tolist() == [model.token_ids("x: the")]
    assert model.preprocess([]) == {}


def test_tokenizer(model: EmbeddingModel) -> None:
    long = "the of " * 100
    tokenizer = model.tokenizer
    assert tokenizer(TEXTS)["input_ids"] == model.token_ids(TEXTS)
    assert tokenizer("the of", add_special_tokens=False)["input_ids"] == model.token_ids("the of")[1:-1]
    assert len(tokenizer.encode(long)) > model.max_seq_length
    assert tokenizer.encode(long, truncation=True) == model.token_ids(long)
    assert tokenizer.encode(long, truncation=True, max_length=7) == [*model.token_ids(long)[:6], tokenizer.eos_token_id]
    ids = model.token_ids(long)
    for arguments in ({}, {"truncation": True}, {"truncation": None}, {"truncation": "only_first"}):
        assert tokenizer.encode(long, max_length=5, **arguments) == [*ids[:4], tokenizer.eos_token_id]
        assert tokenizer.encode(long, max_length=5, add_special_tokens=False, **arguments) == ids[1:6]
    assert len(tokenizer.encode(long, truncation=True, add_special_tokens=False)) == model.max_seq_length
    assert len(tokenizer.encode(long, truncation=False, max_length=5)) > model.max_seq_length
    for wrong in ("foo", "only_second", "", 1, b"longest_first"):
        with pytest.raises(InputError, match="truncation"):
            tokenizer(long, truncation=wrong)
    with pytest.raises(InputError, match="no argument 'return_offsets_mapping'"):
        tokenizer("the", return_offsets_mapping=True)


def test_padding_and_arrays_of_the_tokenizer(model: EmbeddingModel) -> None:
    tokenizer = model.tokenizer
    expected = model.preprocess(TEXTS)
    for padding in (True, "longest"):
        found = tokenizer(TEXTS, padding=padding, return_tensors="np")
        assert np.array_equal(found.input_ids, expected["input_ids"])
        assert np.array_equal(found.attention_mask, expected["attention_mask"])
    with pytest.warns(UserWarning, match="max_length has no effect"):
        assert np.array_equal(
            tokenizer(TEXTS, padding=True, max_length=3, return_tensors="np").input_ids, found.input_ids
        )
    assert tokenizer(["", "the"], padding="max_length", max_length=7).attention_mask == [
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
    ]
    assert len(tokenizer("the", padding="max_length").input_ids) == model.max_seq_length
    assert tokenizer("the", return_tensors="np").input_ids.tolist() == [model.token_ids("the")]
    assert list(tokenizer("the", return_attention_mask=False)) == ["input_ids"]
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"return_tensors": "np"}, "padding=True"),
        ({"return_tensors": "tf", "padding": True}, "return_tensors='tf'"),
        ({"padding": "left"}, "padding='left'"),
    ]
    for arguments, message in wrong:
        with pytest.raises(InputError, match=message):
            tokenizer(TEXTS, **arguments)
    for name in ("tokenize", "decode", "bos_token", "get_vocab"):
        with pytest.raises(AttributeError, match=rf"'{name}': .*AutoTokenizer"):
            getattr(tokenizer, name)


def test_setting_the_tokenizer_sets_the_model(model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "max_seq_length", model.max_seq_length)
    model.tokenizer.model_max_length = 4
    assert model.max_seq_length == model.tokenizer.model_max_length == len(model.token_ids("the of " * 9)) == 4
    for name in ("padding_side", "truncation_side", "bos_token_id", "add_bos_token"):
        with pytest.raises(AttributeError):
            setattr(model.tokenizer, name, "left")


@pytest.mark.parametrize("arguments", [{}, {"output_value": "token_embeddings"}, {"device": ["cpu"], "chunk_size": 2}])
def test_errors_count_texts_from_the_first_of_the_call(tmp_path: Path, arguments: dict[str, Any]) -> None:
    path = tiny.write_model(tmp_path / "broken.safetensors", CONFIG, "float32")
    model = embgemma.load(path, backend="reference")
    row = open_safetensors(path).entries["embedding.weight"].begin + model.token_ids("😀")[1] * DIM * 4
    with path.open("r+b") as file:
        file.seek(row)
        file.write(np.full(DIM, np.nan, np.float32).tobytes())
    model = embgemma.load(path, backend="reference")
    with pytest.raises(VectorError, match=r"broken.safetensors: text 5 has no vector"):
        model.encode(["the", "of", "the", "and", "a", "😀", "to"], batch_size=2, **arguments)
