"""Writes embeddings row by row as npy, npz, JSONL or Parquet. A file appears whole under its name, or not at all.

Every file has the fingerprint of its embeddings: see `EmbeddingModel.fingerprint`.
"""

from __future__ import annotations

import io
import json
import shutil
import tempfile
import zipfile
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import numpy as np

from ..kernels.errors import BackendError, InputError
from ..kernels.install import pip_install
from ..output_file import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import TypeAlias

    import numpy.typing as npt

    from ..search.records import Record

    Vector: TypeAlias = npt.NDArray[np.float32]

SUFFIXES = (".npy", ".npz", ".jsonl", ".parquet")
FINGERPRINT = "fingerprint"  # its name in every file that has names

ROW_GROUP_BYTES = 16 << 20  # of embeddings in a Parquet file: what is in memory at a time
MOST_GROUP_ROWS = 1 << 16


class EmbeddingWriter(Protocol):
    """Takes the vector (dim,) of each record, or None for a record that could not be read."""

    def write(self, record: Record, vector: Vector | None) -> None:
        """Takes one record."""

    def finish(self) -> None:
        """Writes what is known only at the end."""


class JsonLinesWriter:
    """One JSON object for each readable record: its line number, its id if it has one, its embedding, the fingerprint.

    Every line has the fingerprint, because lines are filtered, sorted and joined with those of other files.
    """

    def __init__(self, stream: BinaryIO, fingerprint: str) -> None:
        self._stream = stream
        self._last_field = f'"{FINGERPRINT}": "{fingerprint}"'

    def write(self, record: Record, vector: Vector | None) -> None:
        """Writes one line."""
        if vector is None:
            return
        fields = [f'"line": {record.line}']
        if record.id is not None:
            fields.append(f'"id": {json.dumps(record.id)}')
        # 9 significant digits restore the same float32; json.dumps would write 17.
        numbers = ", ".join(map("{:.9g}".format, vector.tolist()))
        fields += [f'"embedding": [{numbers}]', self._last_field]
        self._stream.write(f"{{{', '.join(fields)}}}\n".encode())

    def finish(self) -> None:
        """Does nothing: every line is written."""


class NpyWriter:
    """A float32 array (lines, dim): row i is line i + 1 of the input, all NaN where that line could not be read.

    Unless it is None, the fingerprint is a second array of the file, which a second call of `np.load` reads from an
    open file. `np.load(path)` reads the first.
    """

    def __init__(self, stream: BinaryIO, dim: int, fingerprint: str | None) -> None:
        self._stream = stream
        self._dim = dim
        self._fingerprint = fingerprint
        self._rows = 0
        self._write_header()

    def write(self, record: Record, vector: Vector | None) -> None:  # noqa: ARG002  (a row stores nothing else)
        """Writes one row."""
        row = np.full(self._dim, np.nan) if vector is None else vector
        self._stream.write(row.astype("<f4").tobytes())
        self._rows += 1

    def finish(self) -> None:
        """Writes the fingerprint, and the number of rows into the header; numpy leaves room for it."""
        if self._fingerprint is not None:
            np.lib.format.write_array(self._stream, np.array(self._fingerprint), allow_pickle=False)
        self._stream.seek(0)
        self._write_header()

    def _write_header(self) -> None:
        header = io.BytesIO()
        shape = (self._rows, self._dim)
        np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
        self._stream.write(header.getvalue())


class NpzWriter:
    """`embeddings` float32 (rows, dim), `lines` int64 (rows,), the `fingerprint` () and, if there are, `ids` (rows,).

    Unreadable records have no row; `lines` holds the line of the input of each row. An archive stores the size and
    checksum of an array before its data, so the rows are collected in rows_file.
    """

    def __init__(self, stream: BinaryIO, rows_file: BinaryIO, dim: int, fingerprint: str) -> None:
        self._stream = stream
        self._rows_file = rows_file
        self._rows = NpyWriter(rows_file, dim, None)
        self._fingerprint = fingerprint
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
        arrays[FINGERPRINT] = np.array(self._fingerprint)
        if self._ids:
            arrays["ids"] = np.array(self._ids, str)
        with zipfile.ZipFile(self._stream, "w") as archive:
            with archive.open("embeddings.npy", "w", force_zip64=True) as entry:
                shutil.copyfileobj(self._rows_file, entry)
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, array, allow_pickle=False)


class ParquetWriter:
    """Columns `line` int64, `id` string if there are ids, `embedding` list of dim float32, in row groups.

    The fingerprint is in the metadata of the schema. Unreadable records have no row.
    """

    def __init__(self, stream: BinaryIO, dim: int, fingerprint: str, *, ids: bool) -> None:
        arrow, parquet = _pyarrow()
        columns = [("line", arrow.int64()), *([("id", arrow.string())] if ids else [])]
        columns.append(("embedding", arrow.list_(arrow.float32(), dim)))
        self._schema = arrow.schema(columns, {FINGERPRINT: fingerprint})
        self._table = arrow.table
        self._list = arrow.FixedSizeListArray.from_arrays
        self._writer = parquet.ParquetWriter(stream, self._schema, use_dictionary=False)
        self._most = min(MOST_GROUP_ROWS, max(1, ROW_GROUP_BYTES // (4 * dim)))
        self._rows: list[tuple[int, str, Vector]] = []

    def write(self, record: Record, vector: Vector | None) -> None:
        """Keeps one row, and writes a group when there are enough."""
        if vector is not None:
            self._rows.append((record.line, str(record.id), vector))
        if len(self._rows) == self._most:
            self._write_rows()

    def finish(self) -> None:
        """Writes the last rows, and what is where."""
        self._write_rows()
        self._writer.close()

    def give_up(self) -> None:
        """Forgets a file that is not finished: pyarrow would complain that it cannot write its end."""
        self._writer.is_open = False

    def _write_rows(self) -> None:
        if self._rows:
            lines, ids, vectors = zip(*self._rows, strict=True)
            columns = {"line": lines, "id": ids, "embedding": self._list(np.concatenate(vectors), len(vectors[0]))}
            self._writer.write_table(self._table([columns[name] for name in self._schema.names], schema=self._schema))
            self._rows.clear()


def _pyarrow() -> tuple[Any, Any]:
    """pyarrow and its module for Parquet, which are large; raises BackendError where they are not installed."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise BackendError(f"a Parquet file needs the package pyarrow; run `{pip_install('parquet')}`") from error
    return pa, pq


def check_format(path: Path, *, ids: bool) -> None:
    """Raises InputError unless there is a writer for the suffix of `path`, with ids if there are, or BackendError."""
    if path.suffix not in SUFFIXES:
        raise InputError(f"the name of the output, {path}, must end in {', '.join(SUFFIXES)}")
    if path.suffix == ".npy" and ids:
        raise InputError(f"{path}: an npy file holds no ids; leave --id-field out, or write .npz, .jsonl or .parquet")
    if path.suffix == ".parquet":
        _pyarrow()


@contextmanager
def open_writer(path: Path, dim: int, fingerprint: str, *, ids: bool, force: bool) -> Iterator[EmbeddingWriter]:
    """A writer that `check_format` knows; see `whole_file`; the end of the block finishes the file."""
    with ExitStack() as stack:
        stream = stack.enter_context(whole_file(path, force=force))
        writer: EmbeddingWriter
        if path.suffix == ".npz":
            rows_file = stack.enter_context(tempfile.TemporaryFile(dir=path.parent))
            writer = NpzWriter(stream, rows_file, dim, fingerprint)
        elif path.suffix == ".parquet":
            writer = ParquetWriter(stream, dim, fingerprint, ids=ids)
            stack.callback(writer.give_up)
        elif path.suffix == ".npy":
            writer = NpyWriter(stream, dim, fingerprint)
        else:
            writer = JsonLinesWriter(stream, fingerprint)
        yield writer
        writer.finish()
