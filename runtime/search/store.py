"""An index as a store of passages: what is in it, and which of its vectors are nearest."""

from __future__ import annotations

import json
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .database import as_written, errors_of, file_state, open_existing, scalar
from .vectors import cosine, to_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

# SQLite finds candidates by the distance of stored vectors; their cosines with the query, which is not rounded, decide.
MORE_CANDIDATES = 10
MOST_CANDIDATES = 4096  # of sqlite-vec


class Store:
    """The open file of an index; threads take turns."""

    def __init__(self, path: Path) -> None:
        self._state: tuple[int, ...] | None = file_state(path)  # before it is opened, so that no later change is missed
        self.path = path
        self.connection, self.settings = open_existing(path)
        self._lock = threading.Lock()
        int8 = self.settings.precision == "int8"
        self._value = "vec_int8(?)" if int8 else "?"
        self.insert_vector = f"INSERT INTO vectors(rowid, vector) VALUES (?, {self._value})"

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Around all uses of the connection."""
        with self._lock, errors_of(self.path):
            yield

    @contextmanager
    def transaction(self, kind: str = "IMMEDIATE") -> Iterator[None]:
        """Around uses of it that happen together, or not at all; "DEFERRED" for those that only read one state."""
        with self.guard():
            self.connection.execute(f"BEGIN {kind}")
            try:
                yield
                self.connection.execute("COMMIT")
                if kind == "IMMEDIATE" and self._state:
                    self._state = (*self._state[:2], *file_state(self.path)[2:])
            finally:
                if self.connection.in_transaction:  # SQLite may have rolled it back by itself, as on a full disk
                    self.connection.execute("ROLLBACK")

    def is_current(self) -> bool:
        """Whether nobody else has changed the file since it was opened, or put another one in its place.

        SQLite itself may miss the second.
        """
        with self._lock:
            return self._state is None or self._state == file_state(self.path)

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._state = None
            self.connection.close()

    def count(self) -> int:
        """The number of passages."""
        with self.guard():
            return int(scalar(self.connection, "SELECT count(*) FROM passages"))

    def hash_of(self, path: bytes, *, added: bool) -> bytes | None:
        """The hash of a source; None if it is not there, or not whole."""
        sql = "SELECT hash FROM sources WHERE path = ? AND added = ? AND hash IS NOT NULL"
        with self.guard():
            found: bytes | None = scalar(self.connection, sql, (path, added))
        return found

    def paths_under(self, root: str) -> list[bytes]:
        """The files at or under a path."""
        place = os.fsencode(root)
        separator = os.fsencode(os.sep)
        first = place.rstrip(separator) + separator
        last = first[:-1] + bytes([first[-1] + 1])
        sql = "SELECT path FROM sources WHERE NOT added AND (path = ? OR (path >= ? AND path < ?))"
        with self.guard():
            return [path for (path,) in self.connection.execute(sql, (place, first, last))]

    def nearest(self, query: npt.NDArray[np.float32], k: int) -> list[tuple[float, tuple[Any, ...]]]:
        """The k passages with the highest cosine with a unit vector (dim,): score, and path, line, last_line, start,
        title, text, metadata and hash.

        All stored vectors have about the same length, so the nearest have the highest cosines.
        """
        precision = self.settings.precision
        (stored,) = to_bytes(query[None], precision)
        nearest = f"SELECT rowid FROM vectors WHERE vector MATCH {self._value} AND k = ?"
        vector = "SELECT vector FROM vectors WHERE rowid = ?"
        passage = (
            "SELECT s.path, p.line, p.last_line, p.start, p.title, p.text, s.metadata, p.hash "
            "FROM passages p JOIN sources s ON s.id = p.source WHERE p.id = ? "
            "AND s.id IN (SELECT id FROM sources INDEXED BY sources_path WHERE path = s.path)"
        )
        with self.transaction("DEFERRED"):
            execute = self.connection.execute
            ids = execute(nearest, (stored, min(2 * k + MORE_CANDIDATES, MOST_CANDIDATES))).fetchall()
            with as_written(self.path):
                found = [(cosine(query, scalar(self.connection, vector, each), precision), each) for each in ids]
                found.sort(key=lambda each: (-each[0], each[1]))
                return [(score, _checked(execute(passage, each).fetchone())) for score, each in found[:k]]


def _checked(row: tuple[Any, ...] | None) -> tuple[Any, ...]:
    """A row of `nearest` with its metadata read; raises ValueError if it is not as it was written."""
    if row is None or [type(value) for value in row[:6]] != [bytes, int, int, int, str, str]:
        raise ValueError("a passage is incomplete")
    return (*row[:6], None if row[6] is None else json.loads(row[6]), row[7])
