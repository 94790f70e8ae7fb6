"""Parquet files of texts to files of vectors, without any cluster."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import embgemma
from embgemma import InputError
from embgemma.integrations import bulk
from embgemma.integrations.bulk import ColumnEmbedder, embed_parquet, one_of_process

TEXTS = ["the of and", None, "you 你好 😀", "", None]
KINDS = [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string()), pa.string_view()]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three files of texts, one of them in a folder of its own, one of no rows; and one that is being written."""
    for i, name in enumerate(("a.parquet", "part=1/b.parquet", "empty.parquet", ".new/c.parquet")):
        write(tmp_path / "texts" / name, TEXTS if i < 2 else TEXTS[:0])
    return tmp_path / "texts"


def write(path: Path, texts: list[str | None], **columns: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"id": range(len(texts)), "text": pa.array(texts, pa.string()), **columns})
    pq.write_table(table.replace_schema_metadata({"about": "texts"}), path)


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_folder_to_folder(source: Path, model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "ROWS_AT_ONCE", 2)
    arguments: dict[str, Any] = {"prompt_name": "query", "truncate_dim": 16, "threads": 1}
    assert embed_parquet(source, tmp_path / "out", model_path, **arguments) == 2 * len(TEXTS)
    assert names(tmp_path / "out") == {"a.parquet", "part=1/b.parquet", "empty.parquet"}
    model = embgemma.load(model_path, truncate_dim=16)
    found = pq.read_table(tmp_path / "out/a.parquet")
    assert found.column_names == ["id", "text", "embedding"]
    assert found.schema.metadata[b"about"] == b"texts"
    assert found.schema.metadata[b"fingerprint"].decode() == model.fingerprint("query")
    vectors = found["embedding"].to_pylist()
    assert [vector is None for vector in vectors] == [text is None for text in TEXTS]
    expected = model.encode_query([text for text in TEXTS if text is not None], normalize_embeddings=True)
    assert np.array_equal(np.array([vector for vector in vectors if vector], np.float32), expected)
    assert pq.read_table(tmp_path / "out/empty.parquet").num_rows == 0
    before = (tmp_path / "out/a.parquet").stat()
    (tmp_path / "out/part=1/b.parquet").unlink()
    assert embed_parquet(source, tmp_path / "out", model_path, **arguments) == len(TEXTS)  # it goes on
    shutil.copyfile(source / "a.parquet", source / "copy")
    (source / "copy").replace(source / "a.parquet")
    assert embed_parquet(source, tmp_path / "out", model_path, **arguments) == 0
    assert (tmp_path / "out/a.parquet").stat() == before


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_kinds_of_strings(model_path: Path, kind: Any) -> None:
    embedder = ColumnEmbedder(model_path)
    table = embedder.table(pa.table({"text": pa.array(TEXTS).cast(kind)}))
    assert table["embedding"].to_pylist() == embedder.vectors(pa.array(TEXTS)).to_pylist()


@pytest.mark.parametrize("texts", [[], [None], [None, None]])
def test_no_text(model_path: Path, texts: list[None]) -> None:
    for column in (pa.array(texts), pa.array(texts, pa.string())):
        assert ColumnEmbedder(model_path).vectors(column).to_pylist() == texts


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no column": ({"column": "body"}, "no column 'body'; the columns are id, text"),
    "no text": ({"column": "id"}, "'id' holds int64; expected strings"),
    "taken": ({"output": "id"}, "column 'id' already"),
    "prompt": ({"prompt_name": "nonsense"}, "prompt_name='nonsense'"),
    "size": ({"truncate_dim": 0}, "truncate_dim"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments_write_nothing(source: Path, model_path: Path, tmp_path: Path, case: str) -> None:
    arguments, message = WRONG[case]
    with pytest.raises(InputError, match=message):
        embed_parquet(source, tmp_path / "out", model_path, **arguments)
    assert not (tmp_path / "out").exists() or names(tmp_path / "out") == set()


def test_folders_that_cannot_be(source: Path, model_path: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    for texts in ("none", "missing"):
        with pytest.raises(InputError, match="no Parquet file"):
            embed_parquet(tmp_path / texts, tmp_path / "out", model_path)
    for inside in (source, source / "out"):
        with pytest.raises(InputError, match="give another folder"):
            embed_parquet(source, inside, model_path)
    (source / "z.parquet").write_bytes(b"PAR1 this is none PAR1")
    with pytest.raises(InputError, match=r"z\.parquet"):
        embed_parquet(source, tmp_path / "out", model_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"truncate_dim": 16}, "another model, size or prompt"),
        ({"prompt_name": "query"}, "another model, size or prompt"),
        ({}, "what .*a.parquet was before"),
    ],
)
def test_what_was_made_of_something_else_is_refused(
    source: Path, model_path: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    embed_parquet(source, tmp_path / "out", model_path)
    if not change:
        write(source / "a.parquet", ["of the and", *TEXTS[1:]])  # as many rows, and bytes
    with pytest.raises(InputError, match=f"{message}.*; remove it, or give another folder"):
        embed_parquet(source, tmp_path / "out", model_path, **change)
    (tmp_path / "out" / "a.parquet").write_bytes(b"no Parquet")
    with pytest.raises(InputError, match=r"out.a\.parquet"):
        embed_parquet(source, tmp_path / "out", model_path, **change)


def test_a_file_that_is_made_twice_at_once(source: Path, model_path: Path, tmp_path: Path) -> None:
    embedder = ColumnEmbedder(model_path)
    task, *_ = embedder.tasks(source, tmp_path / "out")
    threads = [threading.Thread(target=embedder.file, args=[task]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names(tmp_path / "out") == {"a.parquet"}
    assert pq.read_table(task.destination).num_rows == len(TEXTS)


def test_a_process_has_one_model(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model_path.parent)
    config = ColumnEmbedder(model_path.name, truncate_dim=16).config()
    monkeypatch.chdir("/")
    first = one_of_process(config)
    assert first is one_of_process(dict(config))
    assert first is not one_of_process({**config, "threads": 1})
    with pytest.raises(InputError, match="fingerprint"):
        one_of_process({**config, "prompt_name": "query"})
