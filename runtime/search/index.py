"""An index: passages of texts with their vectors in one SQLite file, searched by meaning."""

from __future__ import annotations

import json
import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..find import IN_THE_BOX, path_in_the_box
from ..inputs import check_choice, check_integer, check_path, check_texts
from ..kernels.errors import InputError
from ..model import EmbeddingModel, load
from .database import IndexFileError, as_written, check_new, create, sole_writer
from .embedder import Embedder, check_lengths, new_settings
from .passages import Chunk, Passage
from .store import Store
from .update import Update
from .vectors import PRECISIONS
from .writer import Source, Writer, short_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType

    import numpy as np
    import numpy.typing as npt

    from .database import Settings
    from .update import Changes

MOST_RESULTS = 1000


@dataclass(frozen=True)
class Result:
    """A passage that was found.

    Attributes:
        path: of its file, absolute; or the id of a text that was added.
        line, last_line: of the file, from 1.
        start: characters of the text before it: of the file, of what an HTML page shows, or of the field of a row.
        score: cosine with the query.
        title: heading or name of the file, or "".
        metadata: of a text that was added, or None.
    """

    path: str
    line: int
    score: float
    passage: str
    title: str = ""
    last_line: int = 0
    start: int = 0
    metadata: Any = None


class Index:
    """An index that is open; `create` makes one, `open` opens one, and a `with` block or `close` closes it.

    Several threads may use it at once. One process writes at a time; others search meanwhile.

    Passages are embedded as documents. Where the model's prompt for these has "title: none", as that of EmbeddingGemma,
    their heading or the name of their file is the title.

    If another process changes the file, or puts another one in its place, the next call opens it again, and raises what
    `open` raises for one that is gone, is damaged, or was made with another model.

    The path and the words of what is found are checked. Vectors have no checksum: a damaged bit may change a score.

    Attributes:
        path: of the file.
    """

    def __init__(self, store: Store, model: EmbeddingModel, *, closes_model: bool) -> None:
        self._model, self._closes_model = model, closes_model
        self._writing = threading.RLock()  # of the thread that changes something
        self._following = threading.Lock()
        self.path: Path = store.path
        self._use(store)

    def _use(self, store: Store) -> None:
        self._store, self._embedder = store, Embedder(self._model, store.settings)

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        model: EmbeddingModel | str | os.PathLike[str] = IN_THE_BOX,
        *,
        dim: int | None = None,
        precision: str = "int8",
        passage_tokens: int | None = None,
        overlap: int | None = None,
        **options: Any,
    ) -> Index:
        """Makes an empty index.

        Args:
            path: of the file to make.
            model: a model, or what `embgemma.load` takes; by default the one that comes with the package.
            dim: size of the vectors; None for 256, or that of the model if less.
            precision: how they are stored, "int8" or "float32".
            passage_tokens: most tokens of a passage, 128 if None.
            overlap: most tokens at the end of a passage that the next one repeats, 32 if None.
            options: of `embgemma.load`, if model is a path.

        Raises:
            InputError: an argument is out of range, the file exists, or a package is missing.
            IndexFileError: it cannot be written.
        """
        place = check_path("path", path).resolve()
        check_new(place)
        check_choice("precision", precision, PRECISIONS)
        with _model(model, options) as (opened, closes):
            name = IN_THE_BOX if opened.path == path_in_the_box() else None  # it has another path in each environment
            settings = new_settings(opened, name, dim, precision, passage_tokens, overlap)
            create(place, settings)
            return cls(Store(place), opened, closes_model=closes)

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], model: EmbeddingModel | str | os.PathLike[str] | None = None, **options: Any
    ) -> Index:
        """Opens an index with its model, or with `model`, which must be the same; options are as in `create`.

        Raises:
            InputError: there is no such file, or a package is missing.
            IndexFileError: it is no index, damaged, of a newer release, or made with another model.
            ModelFileError: its model cannot be opened.
        """
        place = check_path("path", path).resolve()
        with _opened(place) as store:
            made_with = store.settings.model
            if model is None and not (made_with == IN_THE_BOX or Path(made_with).exists()):
                raise IndexFileError(
                    f"{path}: the model of this index, {made_with}, is gone: give its path by --model or model="
                )
            with _model(made_with if model is None else model, options) as (opened, closes):
                _check_model(store, opened)
                return cls(store, opened, closes_model=closes)

    def search(self, query: str, k: int = 10) -> list[Result]:
        """The k passages that fit the query best, or all if there are fewer; the best comes first.

        Raises InputError if the query has no words, or k is not from 1 to 1000.
        """
        if not isinstance(query, str):
            raise InputError(f"query is of type {type(query).__name__}; expected str")
        if not query.strip():
            raise InputError("query is empty; expected words to look for")
        check_integer("k", k, 1, MOST_RESULTS)
        return self.nearest(self._current()[1].embed_query(query), k)

    def nearest(self, vector: npt.NDArray[np.float32], k: int = 10) -> list[Result]:
        """What `search` gives for a query of which this is the unit vector (dim,), with the model's prompt for it."""
        store, embedder = self._current()
        if vector.shape != (store.settings.dim,):
            raise InputError(f"vector has the shape {vector.shape}; expected {(store.settings.dim,)}, as in the index")
        found = store.nearest(vector, check_integer("k", k, 1, MOST_RESULTS))
        with as_written(self.path):
            for _, (_, line, last_line, start, title, text, _, digest) in found:
                if short_hash(embedder.text_of(Passage(text, line, last_line, start, title)).encode()) != digest:
                    raise ValueError("a passage is not what was embedded")
        return [
            Result(
                path=os.fsdecode(path),
                line=line,
                score=score,
                passage=text,
                title=title,
                last_line=last_line,
                start=start,
                metadata=metadata,
            )
            for score, (path, line, last_line, start, title, text, metadata, _) in found
        ]

    def update(
        self,
        paths: Iterable[str | os.PathLike[str]],
        *,
        column: str = "text",
        prune: bool = False,
        tell: Callable[[str], None] | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> Changes:
        """Makes the index hold what the files at these paths, and under those that are folders, hold now.

        Files that have not changed are not read further, passages that have not changed keep their vectors, and what is
        gone is removed. When this is interrupted, all that is stored stays, and the next call goes on.

        Args:
            paths: files and folders. Those of earlier calls stay as they are.
            column: the field of JSON lines, and the column of CSV and TSV, that holds the texts.
            prune: whether what the index has of a folder goes too if the whole folder is missing or empty, as it also
                is when its disk is not mounted. Otherwise that is told as a problem.
            tell: gets a sentence for each file that cannot be read; the rest goes on.
            progress: gets the bytes of the files that are done, and those of all.

        Raises:
            InputError: there is nothing at a path.
            IndexFileError: another process is writing, or the disk is full.
        """
        told, counted = tell or (lambda _: None), progress or (lambda *_: None)
        with self._writer() as writer:
            return Update(writer, column, prune, told, counted).run(paths)

    def add(
        self, texts: Iterable[str], ids: Sequence[str] | None = None, metadata: Sequence[Any] | None = None
    ) -> list[str]:
        """Adds texts that are no files, in passages as well; a text takes the place of that with its id.

        Args:
            texts: the texts.
            ids: one for each; None for hashes of the texts.
            metadata: a value of JSON for each, which results give back.

        Returns:
            the ids.
        """
        texts = check_texts(texts)
        keys = [short_hash(text.encode()).hex() for text in texts] if ids is None else check_texts(ids)
        values = [None] * len(texts) if metadata is None else list(metadata)
        if not len(keys) == len(values) == len(texts):
            raise InputError(f"{len(texts)} texts, {len(keys)} ids and {len(values)} metadata; expected one for each")
        if ids is not None and len(set(keys)) < len(keys):
            raise InputError("an id is there twice; expected another for each text")
        try:
            stored = [json.dumps(value, allow_nan=False) for value in values]
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"metadata has no form in JSON: {error}") from error
        with self._writer() as writer:
            for key, text, value in zip(keys, texts, stored, strict=True):
                digest = short_hash(f"{value}\0{text}".encode())
                if writer.store.hash_of(key.encode(), added=True) != digest:
                    chunks = [Chunk(text, 1, 0, fresh=True)]
                    source = Source(key.encode(), added=True, hash=digest, metadata=value)
                    writer.write(source, writer.embedder.passages(chunks))
            writer.flush()
        return keys

    def remove(self, ids: Iterable[str]) -> int:
        """Removes texts that were added; returns how many of these there were."""
        with self._writer() as writer:
            writer.mark_gone((key.encode() for key in check_texts(ids)), added=True)
            return writer.remove_gone()

    @property
    def settings(self) -> Settings:
        """What it was made with."""
        return self._current()[0].settings

    @property
    def model(self) -> EmbeddingModel:
        """What embeds its passages and its queries."""
        return self._model

    def __len__(self) -> int:
        """The number of passages."""
        return self._current()[0].count()

    def close(self) -> None:
        """Closes the file, and the model if it was given as a path."""
        self._store.close()
        if self._closes_model:
            self._model.close()

    def __reduce__(self) -> str:
        raise InputError("an index cannot be copied or pickled; open its file again with Index.open")

    def __enter__(self) -> Index:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _writer(self) -> Iterator[Writer]:
        with self._writing, sole_writer(self.path):
            yield Writer(*self._current())

    def _current(self) -> tuple[Store, Embedder]:
        """The file as it is now. One that another thread still uses is closed when that is done."""
        with self._following:
            if not self._store.is_current():
                with _opened(self.path) as store:
                    _check_model(store, self._model)
                    self._use(store)
            return self._store, self._embedder


@contextmanager
def _opened(path: Path) -> Iterator[Store]:
    """The store of an index, which is closed if the block raises."""
    store = Store(path)
    try:
        yield store
    except BaseException:
        store.close()
        raise


def _check_model(store: Store, model: EmbeddingModel) -> None:
    """Raises IndexFileError unless the model made an index."""
    settings, path = store.settings, store.path
    found = model.fingerprint(prompt=settings.prompt, truncate_dim=settings.dim)
    if found != settings.fingerprint:
        raise IndexFileError(
            f"{path}: another model made this index (its fingerprint is {settings.fingerprint}, that of {model.path} "
            f"is {found}): give that model, or index into another file"
        )
    with as_written(path):
        check_lengths(model, settings.prompt, settings.passage_tokens, settings.overlap)


@contextmanager
def _model(
    model: EmbeddingModel | str | os.PathLike[str], options: dict[str, Any]
) -> Iterator[tuple[EmbeddingModel, bool]]:
    """The model, and whether it was opened here; then it is closed if the block raises."""
    if isinstance(model, EmbeddingModel):
        yield model, False
        return
    opened = load(model, **options)
    try:
        yield opened, True
    except BaseException:
        opened.close()
        raise
