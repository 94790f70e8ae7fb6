"""The SQLite file of an index: its tables, and one sentence for whatever goes wrong with it."""

from __future__ import annotations

import json
import os
import re
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..kernels.errors import EmbgemmaError, InputError
from ..kernels.system import utf8_path
from ..output_file import check_destination

try:
    import fcntl
except ImportError:  # not on Windows, where two writers are not kept apart
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterator

    import apsw

APPLICATION_ID = 0x656D6267  # "embg", in the header of the file
SCHEMA = 1
# Large pages: a vector table is read whole for every search.
PAGE_BYTES = 16384
BUSY_MILLISECONDS = 10_000  # to wait for the short transactions of another process

# `hash` of a source is NULL until all of its passages are stored. `added`: it was added as a text, and `path` is its
# id. `gone`: it is to be removed, but its passages may move to another source before.
_TABLES = """
CREATE TABLE settings(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE sources(
    id INTEGER PRIMARY KEY, path BLOB NOT NULL, added INTEGER NOT NULL, gone INTEGER NOT NULL DEFAULT 0,
    hash BLOB, metadata TEXT
);
CREATE INDEX sources_path ON sources(path);
CREATE TABLE passages(
    id INTEGER PRIMARY KEY, source INTEGER NOT NULL, line INTEGER NOT NULL, last_line INTEGER NOT NULL,
    start INTEGER NOT NULL, title TEXT NOT NULL, text TEXT NOT NULL, hash BLOB NOT NULL
);
CREATE INDEX passages_source ON passages(source);
CREATE INDEX passages_hash ON passages(hash);
"""
VECTORS = "CREATE VIRTUAL TABLE vectors USING vec0(vector {type}[{dim}] distance_metric=L2)"


# sqlite-vec says in words alone that SQLite could not write, and may call that a lack of memory.
_UNWRITTEN = re.compile(r"could not (?:write|mark|update|insert|close)|out of memory|disk is full", re.IGNORECASE)


class IndexFileError(EmbgemmaError):
    """The file of an index is damaged, in use, of another release, or cannot be read or written."""


@dataclass(frozen=True)
class Settings:
    """What an index was made with; all of its vectors are alike.

    Attributes:
        model: path of the model file, or the name of the one that comes with the package.
        fingerprint: of that model with the prompt and dim.
        prompt: what goes before every passage: see `Index`.
        dim: size of the vectors.
        precision: "int8" or "float32".
        passage_tokens, overlap: see `Index.create`.
        version: of embgemma.
    """

    model: str
    fingerprint: str
    prompt: str
    dim: int
    precision: str
    passage_tokens: int
    overlap: int
    version: str


def check_new(path: Path) -> None:
    """Raises InputError unless an index may be made here; an empty file may be there."""
    check_destination(path, force=True)
    if path.exists() and path.stat().st_size > 0:
        raise InputError(f"{path}: it exists; open it with Index.open, or run `embgemma index` again")


def create(path: Path, settings: Settings) -> None:
    """Makes the file with its tables, at once or not at all; an empty file may be there."""
    check_new(path)
    with sole_writer(path):
        check_new(path)  # another process may have made it
        was_there = path.exists()
        try:
            _fill(path, settings)
        except BaseException:
            if not was_there:
                path.unlink(missing_ok=True)
            raise


def _fill(path: Path, settings: Settings) -> None:
    with _connection(path, new=True) as connection:
        connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
        kind = "int8" if settings.precision == "int8" else "float"
        with connection:
            connection.execute(_TABLES + VECTORS.format(type=kind, dim=settings.dim))
            rows = [(name, json.dumps(value)) for name, value in asdict(settings).items()]
            connection.executemany("INSERT INTO settings VALUES (?, ?)", rows)
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={SCHEMA}")
        connection.close()


def file_state(path: Path) -> tuple[int, ...]:
    """Changes when a file does, or when another one has its place; () if there is none."""
    try:
        state = path.stat()
    except OSError:  # what is wrong with it is said when it is opened
        return ()
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns


def open_existing(path: Path) -> tuple[apsw.Connection, Settings]:
    """Opens an index; raises InputError if there is none, IndexFileError if it cannot be read."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: it is a folder or a device; expected a file that `embgemma index` made")
    if not path.is_file():
        raise InputError(f"{path}: there is no such index; make it with `embgemma index FOLDER -o {path}`")
    with _connection(path, new=False) as connection:
        if connection.pragma("application_id") != APPLICATION_ID:
            raise _no_index(path)
        schema = connection.pragma("user_version")
        if schema > SCHEMA:
            raise IndexFileError(
                f"{path}: a newer release made this index (its layout is {schema}, this release reads {SCHEMA}): "
                "upgrade embgemma, or index into another file"
            )
        with as_written(path):
            stored = dict(connection.execute("SELECT name, value FROM settings"))
            values = {each.name: json.loads(stored[each.name]) for each in fields(Settings)}
        for each in fields(Settings):
            if each.type != type(values[each.name]).__name__:
                raise _damaged(path, f"its {each.name} is {values[each.name]!r}")
        return connection, Settings(**values)


@contextmanager
def _connection(path: Path, *, new: bool) -> Iterator[apsw.Connection]:
    """A connection, which stays open unless the block raises."""
    with errors_of(path):
        connection = _connect(path, new=new)
        try:
            yield connection
        except BaseException:
            connection.close()
            raise


def _connect(path: Path, *, new: bool) -> apsw.Connection:
    try:
        import apsw  # Python's own sqlite3 is often built without extensions
        import sqlite_vec
    except ImportError as error:
        raise InputError(f"an index needs two more packages ({error}): run `pip install apsw sqlite-vec`") from error
    flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if new else 0)  # read only, where that is so
    connection = apsw.Connection(utf8_path(path, "SQLite"), flags=flags)
    connection.set_busy_timeout(BUSY_MILLISECONDS)
    connection.enable_load_extension(True)
    connection.load_extension(sqlite_vec.loadable_path())
    connection.enable_load_extension(False)
    connection.execute("PRAGMA trusted_schema=OFF; PRAGMA cache_spill=OFF")  # readers go on until a commit
    return connection


@contextmanager
def errors_of(path: Path) -> Iterator[None]:
    """Makes errors of SQLite in the block IndexFileErrors that begin with the path."""
    try:
        import apsw
    except ImportError:
        yield
        return
    try:
        yield
    except apsw.FullError as error:
        raise _full(path) from error
    except (apsw.BusyError, apsw.LockedError) as error:
        raise IndexFileError(f"{path}: another process is using this index; try again when it is done") from error
    except apsw.NotADBError as error:
        raise _no_index(path) from error
    except apsw.ReadOnlyError as error:
        moved = getattr(error, "extendedresult", None) == apsw.SQLITE_READONLY_DBMOVED  # which its stub lacks
        raise (_moved(path) if moved else _unusable(path, error)) from error
    except (apsw.PermissionsError, apsw.CantOpenError, apsw.IOError) as error:
        raise _unusable(path, error) from error
    except apsw.ConnectionClosedError as error:
        raise EmbgemmaError("the index is closed; open it again") from error
    except apsw.Error as error:
        raise (_full(path) if _UNWRITTEN.search(str(error)) else _damaged(path, error)) from error


@contextmanager
def as_written(path: Path) -> Iterator[None]:
    """Around the reading of what is in the index: values of another kind are damage."""
    try:
        yield
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise _damaged(path, error) from error


def _full(path: Path) -> IndexFileError:
    return IndexFileError(f"{path}: the disk is full; nothing that was written is lost: make room, and run it again")


def _unusable(path: Path, reason: object) -> IndexFileError:
    return IndexFileError(f"{path}: cannot read or write the file: {reason}")


def _moved(path: Path) -> IndexFileError:
    return IndexFileError(f"{path}: the file was removed, moved or replaced while it was written to; run it again")


def _no_index(path: Path) -> IndexFileError:
    return IndexFileError(f"{path}: this is no index; expected a file that `embgemma index` made")


def _damaged(path: Path, reason: object) -> IndexFileError:
    return IndexFileError(f"{path}: the index is damaged ({reason}); remove it, and index again")


@contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """Keeps other processes and threads from writing to the index; raises IndexFileError if one is at it.

    The lock is that of a file beside the index, which goes at the end. If the process is killed, it stays without a
    lock. (Locks of the index itself are SQLite's, and would be lost when we close it.)
    """
    if fcntl is None:
        yield
        return
    place = Path(f"{path}-lock")
    while True:
        try:
            lock = place.open("ab")
        except OSError as error:
            raise IndexFileError(f"{path}: cannot write beside the index: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise IndexFileError(f"{path}: another process is writing to this index; wait until it is done") from None
        except OSError:  # a file system without locks
            break
        with suppress(FileNotFoundError):  # its last owner has removed it
            if os.path.samestat(os.fstat(lock.fileno()), place.stat()):
                break
        lock.close()
    try:
        yield
    finally:
        place.unlink(missing_ok=True)
        lock.close()


def scalar(connection: apsw.Connection, sql: str, values: tuple[Any, ...] = ()) -> Any:
    """The first value of the first row; None if there is no row."""
    return connection.execute(sql, values).get
