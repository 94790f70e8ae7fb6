"""An index of the small model, and a folder of texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import embgemma
from embgemma.search import Index

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def model(model_path: Path) -> Iterator[embgemma.EmbeddingModel]:
    with embgemma.load(model_path, backend="auto", threads=1) as opened:
        yield opened


@pytest.fixture
def index(tmp_path: Path, model: embgemma.EmbeddingModel) -> Iterator[Index]:
    with Index.create(tmp_path / "notes.db", model, passage_tokens=24, overlap=0) as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files with a passage or two each."""
    place = tmp_path / "docs"
    (place / "sub").mkdir(parents=True)
    (place / "a.md").write_text("# One\nthe of and.\n\n# Two\nto be it.\n", "utf-8")
    (place / "sub" / "b.txt").write_text("is that for it.\n", "utf-8")
    (place / "rows.jsonl").write_text('{"text": "with by"}\n{"text": "你好 not on"}\n', "utf-8")
    return place
