"""Brings an index up to date with files."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ..inputs import check_unicode
from ..kernels.errors import InputError
from ..notices import count_text
from .readers import TABLES, Faults, read_chunks
from .records import UTF_16_MARKS
from .sources import find_files
from .writer import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .passages import Chunk
    from .sources import Found
    from .writer import Writer

READERS = 1  # counts up when files are read in another way, so that all are read again
LOOKED_AT = 8192  # bytes at the start of a file, which tell whether it is binary
HASHED_AT_ONCE = 1 << 20  # bytes
_BESIDE = ("", "-journal", "-wal", "-shm", "-lock")  # an index, and what is beside it while it is written


@dataclass
class Changes:
    """What an update did.

    Attributes:
        files: that are in the index now, of those that were named.
        changed: files that were new or had changed.
        gone: files that are no longer there, and not in the index either.
        embedded, kept: passages that were computed, and passages of changed files that were there before.
        skipped: how many files were left out, by the reason: "hidden", "binary", "links", "special".
        problems: how many could not be read, or not wholly.
    """

    files: int = 0
    changed: int = 0
    gone: int = 0
    embedded: int = 0
    kept: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    problems: int = 0


class Update:
    """One call of `Index.update`; see there for the arguments."""

    def __init__(
        self,
        writer: Writer,
        column: str,
        prune: bool,
        tell: Callable[[str], None],
        progress: Callable[[int, int], object],
    ) -> None:
        check_unicode("column", column)
        self._store, self._embedder, self._writer = writer.store, writer.embedder, writer
        self._column, self._prune, self._tell, self._progress = column, prune, tell, progress
        self._changes = Changes()
        self._gone: list[bytes] = []
        self._done = self._total = 0  # bytes

    def run(self, paths: Iterable[str | os.PathLike[str]]) -> Changes:
        """Makes it."""
        store, writer, changes = self._store, self._writer, self._changes
        found = find_files(paths, self._problem, lambda root: bool(store.paths_under(root)))
        own = tuple(f"{store.path.name}{suffix}" for suffix in _BESIDE)
        for path in [
            path for path in found.files if path.endswith(own) and Path(path).resolve().parent == store.path.parent
        ]:
            del found.files[path]
        changes.skipped = found.skipped
        self._gone += self._not_there(found)
        writer.mark_gone(self._gone)
        self._total = sum(map(_size, found.files))
        for path in found.files:
            self._file(Path(path))
        writer.flush()
        writer.mark_gone(self._gone)
        changes.gone = writer.remove_gone()
        changes.embedded, changes.kept = writer.embedded, writer.kept
        return changes

    def _not_there(self, found: Found) -> Iterator[bytes]:
        """Files of the index that are no longer where one looked."""
        there = {os.fsencode(path) for path in found.files}
        there.update(path for unread in found.unread for path in self._store.paths_under(unread))
        for root in map(Path, found.roots):
            gone = [path for path in self._store.paths_under(str(root)) if path not in there]
            if gone and gone != [os.fsencode(root)] and not self._prune and not (root.is_dir() and any(root.iterdir())):
                # As when a disk is not mounted: to embed all of it once more would take long.
                self._problem(
                    f"{root}: it is missing or empty; the index keeps what it had of it, "
                    f"{count_text(len(gone), 'file')}, until `prune` (--prune) is given"
                )
            else:
                yield from gone

    def _problem(self, message: str) -> None:
        self._changes.problems += 1
        self._tell(message)

    def _file(self, path: Path) -> None:
        """Brings one file up to date."""
        size = _size(path)
        try:
            with path.open("rb") as stream:
                self._read(path, stream)
        except FileNotFoundError:
            self._gone.append(os.fsencode(path))
        except OSError as error:
            self._problem(f"{path}: cannot read the file: {error.strerror}")
        self._done += size
        self._progress(self._done, self._total)

    def _read(self, path: Path, stream: BinaryIO) -> None:
        name, suffix = os.fsencode(path), path.suffix.lower()
        start = stream.read(LOOKED_AT)
        if b"\0" in start and not start.startswith(UTF_16_MARKS):
            self._changes.skipped["binary"] += 1
            self._gone.append(name)
            return
        digest = blake2b(f"{READERS}\0{suffix}\0{self._column if suffix in TABLES else ''}\0".encode(), digest_size=16)
        while start:
            digest.update(start)
            start = stream.read(HASHED_AT_ONCE)
        self._changes.files += 1
        if self._store.hash_of(name, added=False) == digest.digest():
            return
        stream.seek(0)
        self._changes.changed += 1
        source, faults = Source(name, added=False, hash=digest.digest()), Faults()
        title = os.fsencode(path.stem).decode(errors="replace")
        chunks = read_chunks(stream, suffix, title, self._column, faults)
        self._writer.write(source, self._embedder.passages(self._counted(chunks, stream, source, faults)))
        if faults.count:
            self._problem(f"{path}: {faults}")

    def _counted(self, chunks: Iterable[Chunk], stream: BinaryIO, source: Source, faults: Faults) -> Iterator[Chunk]:
        """The chunks; a file with faults gets no hash, so that it is read again the next time, and told again."""
        try:
            for chunk in chunks:
                yield chunk
                self._progress(self._done + stream.tell(), self._total)
        except InputError as error:
            faults.stop(str(error))
        if faults.count:
            source.hash = b""


def _size(path: str | Path) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0
