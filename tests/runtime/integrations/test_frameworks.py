"""The adapters in the real packages: same vectors as the model's, and a search of each that finds by meaning."""

from __future__ import annotations

import asyncio
import importlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

import embgemma
from embgemma import InputError

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs

OPTIONS: dict[str, Any] = {"truncate_dim": 128, "threads": 1}
QUERY, ANSWER = "a doctor for animals", 1
TEXTS = [
    "Knead the dough and bake it for forty minutes.",
    "The vet looks after sick dogs and cats.",
    "She has to pay back her debt to the bank.",
    "A storm is coming. " * 9,
    "",
]


@pytest.fixture(scope="module")
def model() -> embgemma.EmbeddingModel:
    return embgemma.load(**OPTIONS)


def adapter(name: str, package: str) -> Any:
    pytest.importorskip(package, reason=f"{package} is not installed")
    return importlib.import_module(f"embgemma.integrations.{name}")


def langchain(**options: Any) -> Any:
    return adapter("langchain", "langchain_core").EmbgemmaEmbeddings(**options)


def llama_index(**options: Any) -> Any:
    return adapter("llama_index", "llama_index.core").EmbgemmaEmbedding(embed_batch_size=2, **options)


def haystack(**options: Any) -> tuple[Any, Any]:
    module = adapter("haystack", "haystack")
    return module.EmbgemmaDocumentEmbedder(**options), module.EmbgemmaTextEmbedder(**options)


def chroma(**options: Any) -> Any:
    return adapter("chroma", "chromadb").EmbgemmaEmbeddingFunction(**options)


def lancedb(**options: Any) -> Any:
    adapter("lancedb", "lancedb")
    return importlib.import_module("lancedb.embeddings").get_registry().get("embgemma").create(**options)


def txtai(**options: Any) -> Any:
    method = f"{adapter('txtai', 'txtai').__name__}.EmbgemmaVectors"
    config = {"method": method, "path": "embgemma-tiny", "vectors": options}
    return importlib.import_module("txtai.vectors").VectorsFactory.create(config, None)


def haystack_documents(texts: list[str]) -> list[Any]:
    return [importlib.import_module("haystack").Document(content=text) for text in texts]


Calls = tuple[Callable[[list[str]], Any], Callable[[str], Any]]  # documents, and a query


def calls_of_langchain() -> Calls:
    embedder = langchain(**OPTIONS)
    return embedder.embed_documents, embedder.embed_query


def calls_of_llama_index() -> Calls:
    embedder = llama_index(**OPTIONS)
    return embedder.get_text_embedding_batch, embedder.get_query_embedding


def calls_of_llama_index_one_by_one() -> Calls:
    embedder = llama_index(**OPTIONS)
    return lambda texts: [embedder.get_text_embedding(text) for text in texts], embedder.get_query_embedding


def async_calls_of_llama_index() -> Calls:
    embedder = llama_index(**OPTIONS)
    return waited_for(embedder.aget_text_embedding_batch), waited_for(embedder.aget_query_embedding)


def calls_of_haystack() -> Calls:
    documents, query = haystack(**OPTIONS)
    return of_documents(documents.run), lambda text: query.run(text)["embedding"]


def async_calls_of_haystack() -> Calls:
    documents, query = haystack(**OPTIONS)
    return of_documents(waited_for(documents.run_async)), lambda text: waited_for(query.run_async)(text)["embedding"]


def calls_of_chroma() -> Calls:
    function = chroma(**OPTIONS)
    return lambda texts: function(texts) if texts else [], lambda text: function.embed_query([text])[0]


def calls_of_lancedb() -> Calls:
    function = lancedb(**OPTIONS)
    return function.compute_source_embeddings, lambda text: function.compute_query_embeddings(text)[0]


def calls_of_txtai() -> Calls:
    vectors = txtai(**OPTIONS)
    return (
        lambda texts: vectors.batchtransform([(None, text, None) for text in texts], "data"),
        lambda text: vectors.transform((None, text, None)),
    )


def waited_for(call: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda argument: asyncio.run(call(argument))


def of_documents(run: Callable[[Any], Any]) -> Callable[[list[str]], Any]:
    return lambda texts: [document.embedding for document in run(haystack_documents(texts))["documents"]]


CALLS = [
    calls_of_langchain,
    calls_of_llama_index,
    calls_of_llama_index_one_by_one,
    async_calls_of_llama_index,
    calls_of_haystack,
    async_calls_of_haystack,
    calls_of_chroma,
    calls_of_lancedb,
    calls_of_txtai,
]


@pytest.mark.parametrize("calls", CALLS)
def test_vectors_are_those_of_the_model(calls: Callable[[], Calls], model: embgemma.EmbeddingModel) -> None:
    documents, query = calls()
    close = 1e-7 if calls is calls_of_txtai else 0  # which brings vectors to length 1 once more
    many = TEXTS * 3
    found = np.array(documents(many), np.float32)
    np.testing.assert_allclose(found, model.encode_document(many, normalize_embeddings=True), rtol=0, atol=close)
    expected = model.encode_query(QUERY, normalize_embeddings=True)
    np.testing.assert_allclose(np.array(query(QUERY), np.float32), expected, rtol=0, atol=close)
    assert len(documents([])) == 0


@pytest.mark.parametrize(
    ("make", "embed"),
    [
        (langchain, lambda e: e.embed_documents(TEXTS)),
        (llama_index, lambda e: e.get_text_embedding_batch(TEXTS)),
        (lambda **options: haystack(**options)[1], lambda e: e.run(QUERY)["embedding"]),
        (chroma, lambda e: np.array(e(TEXTS)).tolist()),
        (lancedb, lambda e: np.array(e.compute_source_embeddings(TEXTS)).tolist()),
    ],
    ids=["langchain", "llama_index", "haystack", "chroma", "lancedb"],
)
def test_pickles(make: Callable[..., Any], embed: Callable[[Any], Any]) -> None:
    embedder = make(**OPTIONS)
    assert embed(pickle.loads(pickle.dumps(embedder))) == embed(embedder)


@pytest.mark.parametrize("make", [langchain, llama_index, haystack, chroma, lancedb, txtai])
@pytest.mark.parametrize("wrong", [{"truncate_dim": 0}, {"nonsense": 1}])
def test_wrong_options_are_named(make: Callable[..., Any], wrong: dict[str, Any]) -> None:
    with pytest.raises((ImportError, TypeError, ValueError)) as raised:
        make(**wrong)
    assert next(iter(wrong)) in str(raised.value.__cause__ or raised.value)


def test_llama_index_searches() -> None:
    embedder = llama_index(**OPTIONS)
    core = importlib.import_module("llama_index.core")
    documents = [core.Document(text=text) for text in TEXTS[:4]]
    index = core.VectorStoreIndex.from_documents(documents, embed_model=embedder)
    (hit,) = index.as_retriever(similarity_top_k=1).retrieve(QUERY)
    assert hit.text == TEXTS[ANSWER]
    other = type(embedder).from_dict(embedder.to_dict())
    assert other.get_query_embedding(QUERY) == embedder.get_query_embedding(QUERY)


def test_haystack_searches() -> None:
    documents, query = haystack(**OPTIONS)
    haystack_ = importlib.import_module("haystack")
    stores = importlib.import_module("haystack.document_stores.in_memory")
    retrievers = importlib.import_module("haystack.components.retrievers.in_memory")
    store = stores.InMemoryDocumentStore(embedding_similarity_function="cosine")
    store.write_documents(documents.run(haystack_documents(TEXTS[:4]))["documents"])
    pipeline = haystack_.Pipeline()
    pipeline.add_component("query", query)
    pipeline.add_component("retriever", retrievers.InMemoryEmbeddingRetriever(store, top_k=1))
    pipeline.connect("query.embedding", "retriever.query_embedding")
    found = pipeline.run({"query": {"text": QUERY}})["retriever"]["documents"]
    assert found[0].content == TEXTS[ANSWER]
    again = haystack_.Pipeline.loads(pipeline.dumps(), allowed_modules=[type(query).__module__])
    assert again.get_component("query").run(QUERY) == query.run(QUERY)


def test_haystack_documents_with_fields_and_without_text() -> None:
    module = adapter("haystack", "haystack")
    embedder = module.EmbgemmaDocumentEmbedder(meta_fields_to_embed=["title", "year"], embedding_separator=" | ")
    again = importlib.import_module("haystack.core.serialization").component_from_dict(
        type(embedder), embedder.to_dict(), "documents"
    )
    document = module.Document(content="the text", meta={"title": "A", "year": None})
    expected = embgemma.load().encode_document(["A | the text"]).tolist()
    assert [each.embedding for each in again.run([document])["documents"]] == expected
    assert document.embedding is None
    with pytest.raises(InputError, match=r"documents\[1\] has no text"):
        embedder.run([document, module.Document(content=None)])
    with pytest.raises(InputError, match=r"documents\[0\] is of type str; expected a Document"):
        embedder.run("text")
    with pytest.raises(InputError, match="meta_fields_to_embed is 'title'; expected a list"):
        module.EmbgemmaDocumentEmbedder(meta_fields_to_embed="title")


def test_chroma_opens_the_model_again(tmp_path: Path) -> None:
    function = chroma(**OPTIONS)
    chromadb = importlib.import_module("chromadb")
    chromadb.PersistentClient(str(tmp_path / "db")).create_collection("notes", embedding_function=function).add(
        ids=[str(i) for i in range(len(TEXTS))], documents=TEXTS
    )
    chromadb.api.client.SharedSystemClient.clear_system_cache()
    collection = chromadb.PersistentClient(str(tmp_path / "db")).get_collection("notes")
    assert collection.query(query_texts=[QUERY], n_results=1)["ids"] == [[str(ANSWER)]]
    assert collection.configuration["embedding_function"].get_config() == function.get_config()
    with pytest.raises(InputError, match="fingerprint"):
        function.build_from_config({**function.get_config(), "truncate_dim": 64})


OTHERS: list[dict[str, Any]] = [{"truncate_dim": 64}, {"prompts": {"document": "another: "}}]


@pytest.mark.parametrize("change", OTHERS)
def test_chroma_refuses_other_vectors(tmp_path: Path, change: dict[str, Any]) -> None:
    function, same, other = (chroma(**{**OPTIONS, **each}) for each in ({}, {"threads": 2}, change))
    client = importlib.import_module("chromadb").PersistentClient(str(tmp_path))
    client.create_collection("notes", embedding_function=function).add(ids=["1"], documents=TEXTS[:1])
    for open_it in (client.get_collection, client.get_or_create_collection):
        found = open_it("notes", embedding_function=pickle.loads(pickle.dumps(same)))
        assert found.query(query_texts=TEXTS[:1], n_results=1)["ids"] == [["1"]]
        with pytest.raises(ValueError, match=f"new: embgemma-{other.fingerprint} vs persisted: {function.name()}"):
            open_it("notes", embedding_function=other)


@pytest.mark.parametrize("change", OTHERS)
def test_caches_of_llama_index_tell_models_apart(change: dict[str, Any]) -> None:
    embedder, other = llama_index(**OPTIONS), llama_index(**{**OPTIONS, **change})
    ingestion, schema = (importlib.import_module(f"llama_index.core.{name}") for name in ("ingestion", "schema"))
    cache = ingestion.IngestionCache()

    def found(model: Any) -> list[float]:
        pipeline = ingestion.IngestionPipeline(transformations=[model], cache=cache, disable_cache=False)
        return list(pipeline.run(nodes=[schema.TextNode(text=TEXTS[0], id_="1")])[0].embedding)

    for _ in range(2):
        for model in (embedder, other):
            assert found(model) == model.get_text_embedding(TEXTS[0])
    with pytest.raises(InputError, match="fingerprint"):
        type(embedder).from_dict({**embedder.to_dict(), **change})


def test_llama_index_confuses_no_query_with_a_document() -> None:
    cache = importlib.import_module("llama_index.core.storage.kvstore").SimpleKVStore() if llama_index() else None
    with pytest.raises(ValueError, match="confuses queries with documents"):
        llama_index(embeddings_cache=cache)
    embedder = llama_index()
    with pytest.raises(ValueError, match="confuses queries with documents"):
        embedder.embeddings_cache = cache


def test_lancedb_opens_the_model_again(tmp_path: Path) -> None:
    function = lancedb(**OPTIONS)
    module = importlib.import_module("lancedb")
    pydantic = importlib.import_module("lancedb.pydantic")
    note = pydantic.pydantic.create_model(
        "Note",
        __base__=pydantic.LanceModel,
        text=(str, function.SourceField()),
        vector=(pydantic.Vector(function.ndims()), function.VectorField()),
    )
    table = module.connect(tmp_path).create_table("notes", schema=note)
    table.add([{"text": text} for text in TEXTS])
    again = module.connect(tmp_path).open_table("notes")
    assert again.search(QUERY).metric("cosine").limit(1).to_list()[0]["text"] == TEXTS[ANSWER]
    assert function.compute_source_embeddings(["a", None])[1] is None
    with pytest.raises(InputError, match="fingerprint"):
        type(function).create(**{**function.safe_model_dump(), "truncate_dim": 64})


def test_txtai_searches(tmp_path: Path) -> None:
    method = f"{adapter('txtai', 'txtai').__name__}.EmbgemmaVectors"
    embeddings = importlib.import_module("txtai").Embeddings(
        method=method, path="embgemma-tiny", vectors=OPTIONS, backend="numpy"
    )
    embeddings.index(TEXTS[:4])
    assert embeddings.search(QUERY, 1)[0][0] == ANSWER
    embeddings.save(str(tmp_path / "index"))
    again = importlib.import_module("txtai").Embeddings()
    again.load(str(tmp_path / "index"))
    assert again.search(QUERY, 1)[0][0] == ANSWER
    stored = tmp_path / "index" / "config.json"
    stored.write_text(stored.read_text("utf-8").replace('"truncate_dim": 128', '"truncate_dim": 64'), "utf-8")
    with pytest.raises(ImportError) as raised:  # txtai wraps what is wrong
        importlib.import_module("txtai").Embeddings().load(str(tmp_path / "index"))
    assert "the fingerprint of its vectors is" in str(raised.value.__cause__)


def test_llm_finds_the_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBGEMMA_HOME", str(tmp_path))
    adapter("llm", "llm")
    llm = importlib.import_module("llm")
    documents, queries = (llm.get_embedding_model(f"embgemma-tiny{suffix}") for suffix in ("", "-query"))
    full = embgemma.load()
    assert list(documents.embed_multi(TEXTS, batch_size=2)) == full.encode_document(TEXTS).tolist()
    assert queries.embed(QUERY) == full.encode_query(QUERY).tolist()
    assert list(documents.embed_multi([])) == []
    collection = llm.Collection("notes", model=documents)
    collection.embed_multi((str(i), text) for i, text in enumerate(TEXTS))
    assert collection.similar(QUERY, 1)[0].id == str(ANSWER)
    assert collection.similar_by_vector(queries.embed(QUERY), 1)[0].id == str(ANSWER)


def test_llm_names_what_is_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    module = adapter("llm", "llm")
    names: list[str] = []
    entry = mock.Mock()
    entry.name = "google/embeddinggemma-300m"
    for entries in (mock.Mock(return_value=[entry, entry]), mock.Mock(side_effect=InputError("no home"))):
        monkeypatch.setattr(module, "entries", entries)
        module.register_embedding_models(lambda model: names.append(model.model_id))
    both = [name for name in names if name.startswith("embgemma-tiny")]
    assert both == ["embgemma-tiny", "embgemma-tiny-query"] * 2
    assert set(names) - set(both) == {f"embgemma/{entry.name}", f"embgemma/{entry.name}-query"}


PAIRS = [
    ("A man plays a guitar.", "A man is playing the guitar.", 5.0),
    ("A dog runs in the park.", "A dog is running in a park.", 4.8),
    ("A woman cooks soup.", "A woman is making dinner.", 3.2),
    ("The stock market fell.", "Shares lost value today.", 3.0),
    ("A boy swims.", "Two cars stand in a garage.", 0.2),
    ("The king is old.", "Salt dissolves in water.", 0.0),
]


def test_mteb_runs_a_task() -> None:
    encoder = adapter("mteb", "mteb").EmbgemmaEncoder(**OPTIONS)
    mteb, datasets = importlib.import_module("mteb"), importlib.import_module("datasets")
    sts = importlib.import_module("mteb.abstasks.sts")
    columns = dict(zip(("sentence1", "sentence2", "score"), zip(*PAIRS, strict=True), strict=True))
    known = importlib.import_module("mteb.tasks").STS13STS.metadata

    class Task(sts.AbsTaskSTS):  # type: ignore[name-defined]
        metadata = known.model_copy(update={"name": "OurPairs"})

        def load_data(self, *_: Any, **__: Any) -> None:
            self.dataset = datasets.DatasetDict(test=datasets.Dataset.from_dict(columns))
            self.data_loaded = True

    calls = mock.Mock(wraps=encoder.model.encode)
    encoder.model.encode = calls
    result = mteb.evaluate(encoder, Task(), cache=None, encode_kwargs={"batch_size": 4})
    assert result.task_results[0].scores["test"][0]["cosine_spearman"] > 0.8
    assert {call.kwargs["prompt_name"] for call in calls.call_args_list} == {"STS"}
    assert encoder.mteb_model_meta.name == "embgemma/embgemma-tiny"


TYPED = {"Reranking": "query: ", "Retrieval-query": "a: ", "Retrieval-document": "b: ", "Clustering": "c: "}


@pytest.mark.parametrize(
    ("kind", "of", "expected"),
    [
        ("Reranking", "query", "Reranking"),
        ("Reranking", "document", "document"),
        ("Retrieval", "query", "Retrieval-query"),
        ("Retrieval", "document", "Retrieval-document"),
        ("Summarization", "query", "query"),
        ("Summarization", "document", "document"),
        ("Clustering", None, "Clustering"),
        ("Summarization", None, None),
    ],
)
def test_mteb_gets_the_prompt_of_a_task(kind: str, of: str | None, expected: str | None) -> None:
    encoder = adapter("mteb", "mteb").EmbgemmaEncoder(prompts=TYPED, **OPTIONS)
    encoder.model.prompts.pop("Summarization", None)
    prompt_type = importlib.import_module("mteb.types").PromptType(of) if of else None
    encoder.model.encode = mock.Mock()
    task = mock.Mock(type=kind)
    task.name = "Ours"
    encoder.encode([{"text": ["a"]}], task_metadata=task, hf_split="", hf_subset="", prompt_type=prompt_type)
    assert encoder.model.encode.call_args.kwargs["prompt_name"] == expected
