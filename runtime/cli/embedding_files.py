"""Writes embeddings row by row as npy, npz or JSONL. A file appears whole under its name, or not at all."""

from __future__ import annotations

import io
import json
import shutil
import tempfile
import zipfile
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import numpy as np

from ..output_file import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import TypeAlias

    import numpy.typing as npt

    from ..search.records import Record

    Vector: TypeAlias = npt.NDArray[np.float32]

SUFFIXES = (".npy", ".npz", ".jsonl")


class EmbeddingWriter(Protocol):
    """Takes the vector (dim,) of each record, or None for a record that could not be read."""

    def write(self, record: Record, vector: Vector | None) -> None:
        """Takes one record."""

    def finish(self) -> None:
        """Writes what is known only at the end."""


class JsonLinesWriter:
    """One JSON object for each readable record: its line number, its id if it has one, and its embedding."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, record: Record, vector: Vector | None) -> None:
        """Writes one line."""
        if vector is None:
            return
        fields = [f'"line": {record.line}']
        if record.id is not None:
            fields.append(f'"id": {json.dumps(record.id)}')
        # 9 significant digits restore the same float32; json.dumps would write 17.
        numbers = ", ".join(map("{:.9g}".format, vector.tolist()))
        fields.append(f'"embedding": [{numbers}]')
        self._stream.write(f"{{{', '.join(fields)}}}\n".encode())

    def finish(self) -> None:
        """Does nothing: every line is written."""


class NpyWriter:
    """A float32 array (lines, dim): row i is line i + 1 of the input, all NaN where that line could not be read."""

    def __init__(self, stream: BinaryIO, dim: int) -> None:
        self._stream = stream
        self._dim = dim
        self._rows = 0
        self._write_header()

    def write(self, record: Record, vector: Vector | None) -> None:  # noqa: ARG002  (a row stores nothing else)
        """Writes one row."""
        row = np.full(self._dim, np.nan) if vector is None else vector
        self._stream.write(row.astype("<f4").tobytes())
        self._rows += 1

    def finish(self) -> None:
        """Writes the number of rows into the header; numpy leaves room for it."""
        self._stream.seek(0)
        self._write_header()

    def _write_header(self) -> None:
        header = io.BytesIO()
        shape = (self._rows, self._dim)
        np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
        self._stream.write(header.getvalue())


class NpzWriter:
    """`embeddings` float32 (rows, dim), `lines` int64 (rows,) and, where there are ids, `ids` (rows,) as strings.

    Unreadable records have no row; `lines` holds the line of the input of each row. An archive stores the size and
    checksum of an array before its data, so the rows are collected in rows_file.
    """

    def __init__(self, stream: BinaryIO, rows_file: BinaryIO, dim: int) -> None:
        self._stream = stream
        self._rows_file = rows_file
        self._rows = NpyWriter(rows_file, dim)
        self._lines: list[int] = []
        self._ids: list[str] = []

    def write(self, record: Record, vector: Vector | None) -> None:
        """Keeps one row."""
        if vector is None:
            return
        self._rows.write(record, vector)
        self._lines.append(record.line)
        if record.id is not None:
            self._ids.append(str(record.id))

    def finish(self) -> None:
        """Writes the archive."""
        self._rows.finish()
        self._rows_file.seek(0)
        arrays: dict[str, npt.NDArray[Any]] = {"lines": np.array(self._lines, np.int64)}
        if self._ids:
            arrays["ids"] = np.array(self._ids, str)
        with zipfile.ZipFile(self._stream, "w") as archive:
            with archive.open("embeddings.npy", "w", force_zip64=True) as entry:
                shutil.copyfileobj(self._rows_file, entry)
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, array, allow_pickle=False)


@contextmanager
def open_writer(path: Path, dim: int, *, force: bool) -> Iterator[EmbeddingWriter]:
    """A writer for the suffix of `path`, one of SUFFIXES; see `whole_file`; the end of the block finishes the file."""
    with ExitStack() as stack:
        stream = stack.enter_context(whole_file(path, force=force))
        writer: EmbeddingWriter
        if path.suffix == ".npz":
            writer = NpzWriter(stream, stack.enter_context(tempfile.TemporaryFile(dir=path.parent)), dim)
        else:
            writer = NpyWriter(stream, dim) if path.suffix == ".npy" else JsonLinesWriter(stream)
        yield writer
        writer.finish()
