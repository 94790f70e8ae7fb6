"""Local search: texts and files in one SQLite file, found by meaning.

from embgemma.search import Index

with Index.create("notes.db", "embeddinggemma-300m.int8.safetensors") as index:
    index.update(["notes/"])
    for result in index.search("what did we decide about the roof?", k=5):
        print(result.path, result.line, result.score, result.passage)
"""

from __future__ import annotations

from .database import IndexFileError
from .index import Index, Result
from .update import Changes

__all__ = ["Changes", "Index", "IndexFileError", "Result"]
