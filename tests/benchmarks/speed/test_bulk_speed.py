"""What `embgemma-bench bulk` checks: files of vectors, without Ray."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import embgemma
from embgemma.benchmarks.speed.bulk_speed import check_files, write_texts
from embgemma.integrations.bulk import embed_parquet


def lose_a_row(path: Path) -> None:
    pq.write_table(pq.read_table(path).slice(1), path)


def repeat_a_vector(path: Path) -> None:
    table = pq.read_table(path)
    vectors = table["embedding"].combine_chunks()
    pq.write_table(table.set_column(2, "embedding", vectors.take([0, *range(len(vectors) - 1)])), path)


def test_texts_are_embedded_once_and_rightly(tmp_path: Path) -> None:
    model = embgemma.load().path
    write_texts(tmp_path / "texts", 50, 4)
    assert len(set(pq.read_table(tmp_path / "texts")["text"].to_pylist())) == 50
    assert embed_parquet(tmp_path / "texts", tmp_path / "vectors", model) == 50
    assert check_files(tmp_path / "texts", tmp_path / "vectors", model, 1) > 0


def repeat_a_file(path: Path) -> None:
    shutil.copyfile(path, path.with_name("again.parquet"))


@pytest.mark.parametrize("damage", [Path.unlink, lose_a_row, repeat_a_vector, repeat_a_file])
def test_what_is_lost_or_wrong_is_found(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    model = embgemma.load().path
    write_texts(tmp_path / "texts", 20, 2)
    embed_parquet(tmp_path / "texts", tmp_path / "vectors", model)
    damage(tmp_path / "vectors/00001.parquet")
    with pytest.raises(embgemma.EmbgemmaError, match=r"other texts or vectors|: \d+ texts are lost, \d+ there twice"):
        check_files(tmp_path / "texts", tmp_path / "vectors", model, 1)
