"""Stores passages with their vectors, in short transactions: whenever it is interrupted, what is stored stays."""

from __future__ import annotations

import time
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from .database import scalar

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .embedder import Embedder
    from .passages import Passage
    from .store import Store

FIRST_BATCH, MOST_BATCH = 64, 1024  # passages to embed between two transactions
MOST_QUEUED = 4096  # passages, those that have a vector included
LONG_SECONDS = 1.0  # a transaction follows this soon

CHUNK_ROWS = 1024  # of sqlite-vec: vectors are stored in blocks of so many
MOST_EMPTY_ROWS = 8192  # in blocks that are partly empty

_COLUMNS = "source, line, last_line, start, title, text, hash"


@dataclass
class Source:
    """A file, or a text that was added.

    Attributes:
        path: of the file, or the id of the text, as bytes.
        hash: of all that its passages depend on; b"" if it must be read again the next time.
        id: in the table, as soon as it is there.
    """

    path: bytes
    added: bool
    hash: bytes
    metadata: str | None = None
    id: int | None = None


def short_hash(data: bytes) -> bytes:
    """16 bytes that tell contents apart."""
    return blake2b(data, digest_size=16).digest()


class Writer:
    """Writes to an index; there is one at a time."""

    def __init__(self, store: Store, embedder: Embedder) -> None:
        self.store, self.embedder, self._connection = store, embedder, store.connection
        self._queue: list[tuple[Source, Passage | None, bytes]] = []  # None: the source ends
        self._new: dict[bytes, str] = {}  # texts to embed, by hash
        self._vectors: dict[bytes, bytes] = {}  # stored vectors of others in the queue, by hash
        self._old: dict[bytes, list[int]] = {}  # passages of older states of the file, by hash
        self._gone: dict[bytes, list[int]] | None = {}  # and of what is gone; None: not looked up yet
        self._batch = FIRST_BATCH
        self.embedded = self.kept = 0

    def write(self, source: Source, passages: Iterable[Passage]) -> None:
        """Stores a source in place of what has its path; vectors of texts that are in the index are not computed."""
        for passage in passages:
            text = self.embedder.text_of(passage)
            key = short_hash(text.encode())
            self._queue.append((source, passage, key))
            if key not in self._new and key not in self._vectors:
                self._find_or_embed(key, text)
            if len(self._new) >= self._batch or len(self._queue) >= MOST_QUEUED:
                self.flush()
        self._queue.append((source, None, b""))

    def _find_or_embed(self, key: bytes, text: str) -> None:
        sql = "SELECT vector FROM vectors WHERE rowid = (SELECT id FROM passages WHERE hash = ? LIMIT 1)"
        with self.store.guard():
            vector = scalar(self._connection, sql, (key,))
        if vector is None:
            self._new[key] = text
        else:
            self._vectors[key] = vector

    def flush(self) -> None:
        """Stores what is queued."""
        if not self._queue:
            return
        started = time.monotonic()
        computed = dict(zip(self._new, self.embedder.embed(list(self._new.values())), strict=True)) if self._new else {}
        vectors = {**self._vectors, **computed}
        with self.store.transaction():
            for source, passage, key in self._queue:
                if source.id is None:
                    self._begin(source)
                if passage is None:
                    self._end(source)
                else:
                    self._put(source, passage, key, vectors[key])
        self.embedded += len(computed)
        self._queue, self._new, self._vectors = [], {}, {}
        if time.monotonic() - started < LONG_SECONDS:
            self._batch = min(2 * self._batch, MOST_BATCH)

    def _begin(self, source: Source) -> None:
        values = (source.path, source.added)
        self._old = self._by_hash("path = ? AND added = ?", values)
        self._connection.execute("UPDATE sources SET hash = NULL WHERE path = ? AND added = ?", values)
        self._connection.execute(
            "INSERT INTO sources(path, added, metadata) VALUES (?, ?, ?)", (*values, source.metadata)
        )
        source.id = self._connection.last_insert_rowid()

    def _put(self, source: Source, passage: Passage, key: bytes, vector: bytes) -> None:
        """Stores a passage: that of an older state of the file, or of one that is gone, moves here."""
        connection = self._connection
        if self._gone is None:
            self._gone = self._by_hash("gone")
        found = self._old.get(key) or self._gone.get(key)
        places = (source.id, passage.line, passage.last_line, passage.start, passage.title, passage.text, key)
        if found:
            connection.execute(
                f"UPDATE passages SET ({_COLUMNS}) = (?, ?, ?, ?, ?, ?, ?) WHERE id = ?", (*places, found.pop())
            )
            self.kept += 1
            return
        connection.execute(f"INSERT INTO passages({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", places)
        connection.execute(self.store.insert_vector, (connection.last_insert_rowid(), vector))

    def _by_hash(self, which: str, values: tuple[Any, ...] = ()) -> dict[bytes, list[int]]:
        """The passages of some sources. One look-up for all: a text may be there many times."""
        found: dict[bytes, list[int]] = {}
        sql = f"SELECT hash, id FROM passages WHERE source IN (SELECT id FROM sources WHERE {which}) ORDER BY id DESC"
        for key, each in self._connection.execute(sql, values):
            found.setdefault(key, []).append(each)
        return found

    def _end(self, source: Source) -> None:
        sql = "SELECT id FROM sources WHERE path = ? AND added = ? AND id <> ?"
        for (old,) in self._connection.execute(sql, (source.path, source.added, source.id)).fetchall():
            self._remove(old)
        self._connection.execute("UPDATE sources SET hash = ? WHERE id = ?", (source.hash, source.id))

    def _remove(self, source: Any) -> None:
        ids = "SELECT id FROM passages WHERE source = ?"
        self._connection.execute(f"DELETE FROM vectors WHERE rowid IN ({ids})", (source,))
        self._connection.execute("DELETE FROM passages WHERE source = ?", (source,))
        self._connection.execute("DELETE FROM sources WHERE id = ?", (source,))

    def mark_gone(self, paths: Iterable[bytes], *, added: bool = False) -> None:
        """Gives up what has these paths, and nothing else; `remove_gone` removes it."""
        self._gone = None
        with self.store.transaction():
            self._connection.execute("UPDATE sources SET gone = 0 WHERE gone")
            self._connection.executemany(
                "UPDATE sources SET gone = 1, hash = NULL WHERE path = ? AND added = ?",
                ((path, added) for path in paths),
            )

    def remove_gone(self) -> int:
        """Removes what is gone; returns the number of sources. Vectors then fill their blocks again."""
        with self.store.transaction():
            gone = self._connection.execute("SELECT id FROM sources WHERE gone").fetchall()
            for (source,) in gone:
                self._remove(source)
            rows = scalar(self._connection, "SELECT count(*) FROM passages")
            slots = CHUNK_ROWS * scalar(self._connection, "SELECT count(*) FROM vectors_chunks")
            if slots > 2 * rows + MOST_EMPTY_ROWS:
                self._pack()
        return len(gone)

    def _pack(self) -> None:
        """Writes all vectors anew: a search reads whole blocks, and new vectors fill none that others have left."""
        connection = self._connection
        table = scalar(connection, "SELECT sql FROM sqlite_schema WHERE name = 'vectors'")
        connection.execute("CREATE TEMP TABLE packed AS SELECT rowid AS id, vector FROM vectors; DROP TABLE vectors")
        connection.execute(table)
        connection.executemany(
            self.store.insert_vector, connection.execute("SELECT id, vector FROM packed ORDER BY id")
        )
        connection.execute("DROP TABLE packed")
