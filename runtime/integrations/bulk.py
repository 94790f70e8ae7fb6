"""Columns and Parquet files of texts to columns of vectors: what Ray, Spark and Daft do in each of their processes."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ..find import IN_THE_BOX
from ..inputs import check_path
from ..kernels.errors import InputError, reading
from ..output_file import whole_file
from .base import Embedder, needs

with needs("pyarrow", "parquet"):
    import pyarrow as pa
    import pyarrow.parquet as pq

# In the metadata of a file's schema: of its vectors, as `embgemma embed` writes it, and of the file of their texts.
FINGERPRINT, SOURCE = b"fingerprint", b"embgemma.source"
ROWS_AT_ONCE = 1 << 13
TEXT_KINDS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
VECTOR = pa.list_(pa.float32())  # not of a fixed size, of which pyarrow 25 cannot read nulls
PART = 1 << 20  # bytes that are read at once
INSTEAD = "remove it, or give another folder"


class Task(NamedTuple):
    """A partition: a Parquet file of texts, and the file that gets the vectors as well."""

    source: str
    destination: str


class ColumnEmbedder(Embedder):
    """Embeds a column of texts; a text that is null has no vector."""

    def __init__(
        self,
        model: str | os.PathLike[str] = IN_THE_BOX,
        *,
        column: str = "text",
        output: str = "embedding",
        prompt_name: str = "document",
        **options: Any,
    ) -> None:
        """Opens the model.

        Args:
            model: a model file or a name, as for `embgemma.load`; every process must find it.
            column: the column that holds the texts.
            output: the column that gets the vectors.
            prompt_name: the prompt of the model to put before every text.
            options: the other arguments of `embgemma.load`, such as truncate_dim and threads.

        Raises:
            InputError: the model has no such prompt; and what `embgemma.load` raises.
        """
        self._own = {"column": column, "output": output, "prompt_name": prompt_name}
        super().__init__(model, **options)

    @property
    def fingerprint(self) -> str:
        """Names the vectors."""
        return self.embedding_model.fingerprint(self._own["prompt_name"])

    def config(self) -> dict[str, Any]:
        """The arguments that make such an embedder in another process, which refuses another model."""
        config = {**super().config(), **self._own}
        path = Path(config["model"])
        return {**config, "model": str(path.absolute()) if path.exists() else config["model"]}

    def vectors(self, column: Any) -> Any:
        """An array of Arrow, of lists of `dim` float32, for one of strings: a vector for each text, null for null.

        Raises InputError for a column of something else.
        """
        self._check(column.type)
        texts = column.to_pylist()
        missing = np.array([text is None for text in texts], bool)
        vectors = self.embedding_model.encode(
            [text for text in texts if text is not None],
            prompt_name=self._own["prompt_name"],
            normalize_embeddings=True,
            show_progress_bar=False,
        )
        offsets = np.concatenate([[0], np.cumsum(np.where(missing, 0, self.dim))])
        numbers = pa.array(vectors.reshape(-1))
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), numbers, mask=pa.array(missing))

    def schema(self, schema: Any) -> Any:
        """The schema of a table after `table`; raises InputError for one that cannot be embedded."""
        column, output = self._own["column"], self._own["output"]
        if column not in schema.names:
            raise InputError(f"there is no column {column!r}; the columns are {', '.join(schema.names)}")
        self._check(schema.field(column).type)
        if output in schema.names:
            raise InputError(f"there is a column {output!r} already; give the vectors another name")
        added = schema.append(pa.field(output, VECTOR))
        return added.with_metadata({**(schema.metadata or {}), FINGERPRINT: self.fingerprint.encode()})

    def table(self, table: Any) -> Any:
        """A table of Arrow with one column more."""
        schema = self.schema(table.schema)
        vectors = self.vectors(table.column(self._own["column"]))
        return pa.Table.from_arrays([*table.columns, vectors], schema=schema)

    def file(self, task: Task) -> int:
        """Writes a partition, which appears whole under its name; gives its number of rows.

        Memory does not grow with the number of rows. It may be done twice, also at once: the result is the same.
        """
        with Path(task.source).open("rb") as file, whole_file(Path(task.destination), force=True) as stream:
            source = pq.ParquetFile(file)
            schema = self.schema(source.schema_arrow)
            made_of = f"{_moment(file)} {_digest(file)}".encode()
            with pq.ParquetWriter(stream, schema.with_metadata({**schema.metadata, SOURCE: made_of})) as writer:
                for batch in source.iter_batches(ROWS_AT_ONCE):
                    writer.write_table(self.table(pa.Table.from_batches([batch])))
            return int(source.metadata.num_rows)

    def tasks(self, source: Any, destination: Any) -> list[Task]:
        """The Parquet files in a folder, and in those within, that have no vectors in another folder yet.

        Makes its folders. Raises InputError for files without such texts, and for vectors that were not made of them by
        this model.
        """
        source, destination = check_path("source", source).absolute(), check_path("destination", destination).absolute()
        files = [path for path in sorted(source.rglob("*.parquet")) if not _hidden(path.relative_to(source))]
        if not files:
            raise InputError(f"{source}: there is no Parquet file in it, so there is nothing to embed")
        if destination.is_relative_to(source):
            raise InputError(f"{destination} is in {source}, so vectors would be read as texts; give another folder")
        tasks = [Task(str(path), str(destination / path.relative_to(source))) for path in files]
        left = [task for task in tasks if not self._is_done(task)]
        for task in left:
            with reading(task.source, InputError):
                self.schema(pq.read_schema(task.source))
            Path(task.destination).parent.mkdir(parents=True, exist_ok=True)
        return left

    def _check(self, kind: Any) -> None:
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not any(is_kind(kind) for is_kind in TEXT_KINDS):
            raise InputError(f"the column {self._own['column']!r} holds {kind}; expected strings")

    def _is_done(self, task: Task) -> bool:
        if not Path(task.destination).exists():
            return False
        with reading(task.destination, InputError):
            found = pq.read_schema(task.destination).metadata or {}
        if found.get(FINGERPRINT) != self.fingerprint.encode():
            raise InputError(f"{task.destination} holds vectors of another model, size or prompt; {INSTEAD}")
        moment, _, digest = found.get(SOURCE, b"").decode().rpartition(" ")
        with Path(task.source).open("rb") as file:
            if moment != _moment(file) and digest != _digest(file):
                raise InputError(f"{task.destination} holds vectors of what {task.source} was before; {INSTEAD}")
        return True


def _moment(file: BinaryIO) -> str:
    """Changes as a rule when a file does, and when it is copied."""
    state = os.fstat(file.fileno())
    return f"{state.st_size} {state.st_mtime_ns}"


def _digest(file: BinaryIO) -> str:
    """Changes when a file does."""
    digest = hashlib.sha256()
    file.seek(0)
    while part := file.read(PART):
        digest.update(part)
    return digest.hexdigest()


def _hidden(path: Path) -> bool:
    """Whether a path is one that Arrow and Spark do not read either, such as of a file that is being written."""
    return any(part.startswith((".", "_")) for part in path.parts)


def one_of_process(config: dict[str, Any]) -> ColumnEmbedder:
    """A ColumnEmbedder with these arguments: the same one whenever this process asks for it."""
    return _one_of_process(json.dumps(config, sort_keys=True))


@functools.lru_cache(maxsize=1)
def _one_of_process(config: str) -> ColumnEmbedder:
    return ColumnEmbedder(**json.loads(config))


def embed_parquet(source: Any, destination: Any, model: str | os.PathLike[str] = IN_THE_BOX, **options: Any) -> int:
    """Embeds every Parquet file of a folder into another one, in this process; gives the number of new rows.

    A file there has the name of its source and all its columns. What is there already is not made again, so a run that
    was stopped goes on. For the arguments and errors see `ColumnEmbedder`, and its `tasks`.
    """
    embedder = ColumnEmbedder(model, **options)
    return sum(map(embedder.file, embedder.tasks(source, destination)))
