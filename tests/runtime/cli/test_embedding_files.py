"""Each format that `embgemma embed` writes: what is in it, its fingerprint, and its memory."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import embgemma
from embgemma.cli import embedding_files
from embgemma.cli.embedding_files import SUFFIXES, open_writer
from embgemma.cli.main import main
from embgemma.search.records import Record

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = ["the of and", "is that for it", "you"]


def contents(path: Path) -> dict[str, Any]:
    """What a reader of each format finds: embeddings, fingerprint, and, where the format has them, lines and ids."""
    if path.suffix == ".npy":
        with path.open("rb") as file:
            return {"embedding": np.load(file), "fingerprint": str(np.load(file))}
    if path.suffix == ".npz":
        with np.load(path) as archive:
            names = {"embedding": "embeddings", "line": "lines", "id": "ids"}
            found = {name: archive[stored] for name, stored in names.items() if stored in archive}
            return {**found, "fingerprint": archive["fingerprint"].item()}
    if path.suffix == ".parquet":
        table = pytest.importorskip("pyarrow.parquet").read_table(path)
        columns = {name: np.array(table[name].to_pylist()) for name in table.column_names}
        return {**columns, "fingerprint": table.schema.metadata[b"fingerprint"].decode()}
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    (fingerprint,) = {row.pop("fingerprint") for row in rows}
    return {**{name: np.array([row[name] for row in rows]) for name in rows[0]}, "fingerprint": fingerprint}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ((), {}),
        (("--prompt-name", "query", "--dim", "16"), {"prompt_name": "query", "truncate_dim": 16}),
        (("--prompt", "a prompt: "), {"prompt": "a prompt: "}),
    ],
    ids=["plain", "query", "prompt"],
)
def test_every_file_has_its_embeddings_and_their_fingerprint(
    model_path: Path, tmp_path: Path, suffix: str, options: tuple[str, ...], arguments: dict[str, Any]
) -> None:
    output = tmp_path / f"out{suffix}"
    model = embgemma.load(model_path, backend="reference")
    assert main(["embed", str(model_path), "--backend", "reference", *options, "-o", str(output), *TEXTS]) == 0
    found = contents(output)
    assert found.pop("fingerprint") == model.fingerprint(**arguments)
    expected = model.encode(TEXTS, normalize_embeddings=True, **arguments)
    assert np.array_equal(found.pop("embedding").astype(np.float32), expected)
    assert {name: column.tolist() for name, column in found.items()} == (
        {} if suffix == ".npy" else {"line": [1, 2, 3]}
    )


def test_an_npy_file_is_a_plain_one_to_numpy(tmp_path: Path) -> None:
    path = tmp_path / "out.npy"
    with open_writer(path, 2, "a fingerprint", ids=False, force=False) as writer:
        writer.write(Record(1, ""), np.ones(2, np.float32))
        writer.write(Record(2, ""), None)
    for mode in (None, "r"):
        np.testing.assert_array_equal(np.load(path, mmap_mode=mode), [[1, 1], [np.nan, np.nan]])


@pytest.mark.parametrize("count", [0, 1, 7, 8])
def test_parquet_files_are_written_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(embedding_files, "ROW_GROUP_BYTES", 4 * 3 * 3)
    path = tmp_path / "out.parquet"
    with open_writer(path, 3, "a fingerprint", ids=True, force=False) as writer:
        for i in range(count):
            writer.write(Record(i + 1, "", f"é{i}" if i % 2 else i), np.full(3, i, np.float32))
            writer.write(Record(1000, "", problem="unreadable"), None)
    file = parquet.ParquetFile(path)
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [3] * (count // 3) + [
        count % 3
    ] * (count % 3 > 0)
    assert [str(field.type) for field in file.schema_arrow] == ["int64", "string", "fixed_size_list<element: float>[3]"]
    assert file.schema_arrow.metadata[b"fingerprint"] == b"a fingerprint"
    table = file.read()
    assert table["line"].to_pylist() == [*range(1, count + 1)]
    assert table["id"].to_pylist() == [f"é{i}" if i % 2 else str(i) for i in range(count)]
    assert table["embedding"].to_pylist() == [[float(i)] * 3 for i in range(count)]


def test_parquet_without_pyarrow_says_what_to_install(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["embed", str(model_path), "a", "-o", str(tmp_path / "out.parquet")]) == 1
    assert "needs the package pyarrow; run `" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
