"""Files and folders that appear whole under their name, or not at all."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from .kernels.errors import EmbgemmaError, InputError
from .kernels.system import replace
from .notices import size_text

try:
    import fcntl
except ImportError:  # not on Windows, where folders that killed processes leave are not removed
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # disk full, quota used up, file too large

# A workplace is a folder of this name that holds what is not finished, what it replaces, and the lock of its owner.
_PREFIX, _SUFFIX = ".embgemma-", ".tmp"
_NEW, _OLD, _LOCK = "new", "old", "lock"
_IN_A_WORKPLACE = re.compile(rf"{re.escape(_PREFIX)}[0-9a-f]+{re.escape(_SUFFIX)}[\\/]{_NEW}[\\/]")


@contextmanager
def looking_at(path: Path) -> Iterator[None]:
    """Makes errors of the block, which looks at where it may write, InputErrors: too long a name, no rights."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; give another name") from error


def check_destination(path: Path, *, force: bool) -> None:
    """Raises InputError unless a file may be written at `path`. Call it before the work, not after."""
    with looking_at(path):
        check_parent(path)
        if path.is_dir():
            raise InputError(f"cannot write {path}: it is a folder; give the name of a file")
        if path.exists() and not path.is_file():
            raise InputError(f"cannot write {path}: it is no regular file; give another name")
        if os.path.lexists(path) and not force:
            raise _exists(path)


def check_parent(path: Path) -> None:
    """Raises InputError unless there is a folder for what is to be written at `path`."""
    if path.parent.is_dir():
        if not os.access(path.parent, os.W_OK):
            raise InputError(f"cannot write {path}: the folder {path.parent} takes no files from you; name another")
        return
    if os.path.lexists(path.parent):
        raise InputError(f"cannot write {path}: {path.parent} is no folder; give the name of one")
    raise InputError(f"cannot write {path}: the folder {path.parent} does not exist; create it first")


def check_room(path: Path, size: float) -> None:
    """Raises InputError unless the disk has room for a file of so many bytes at `path`."""
    with looking_at(path):
        disk = shutil.disk_usage(path.parent)
    if disk.total > 0 and disk.free < size:  # some disks tell nothing
        raise InputError(
            f"cannot write {path}: it takes {size_text(size)}, and {size_text(disk.free)} are free there; make room, "
            "or give a name on another disk"
        )


def _exists(path: Path) -> InputError:
    return InputError(f"{path} exists; choose another name, or replace it with --force")


def keep_inputs(path: Path, inputs: Iterable[Path]) -> None:
    """Raises InputError if what is at `path` is one of these files, under whatever name, or a folder with one in it."""
    for each in inputs if path.exists() else ():
        with suppress(OSError):
            if path.samefile(each) or path.resolve() in each.resolve().parents:
                raise InputError(f"cannot write {path}: {each} is read from there; give the output another name")


@contextmanager
def whole_file(path: Path, *, force: bool = False) -> Iterator[BinaryIO]:
    """Opens a file that gets the name `path` when the block succeeds, and replaces a file there only if force is set.

    Until then it is in a workplace beside `path`. If the block raises (full disk, Ctrl-C), the file is removed and
    `path` stays as it was. An OSError of the unfinished file names `path`.
    """
    with _errors_name(path), workplace(path.parent) as place:
        made = place / path.name
        with made.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if not force:
            _take_name(made, path)
        replace(made, path)


def _take_name(made: Path, path: Path) -> None:
    """Raises InputError if another process has written `path` by now; otherwise the name is ours."""
    try:
        try:
            path.hardlink_to(made)
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            path.open("xb").close()
    except FileExistsError:
        raise _exists(path) from None


@contextmanager
def whole_folder(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Makes a folder that gets the name `path` when the block succeeds, and replaces a folder there if force is set.

    Failures are handled as in `whole_file`. For a moment neither the old nor the new folder has the name.
    """
    with _errors_name(path), workplace(path.parent) as place:
        made = place / path.name
        made.mkdir()
        yield made
        if path.exists():
            if not force:
                raise _exists(path)
            old = place.with_name(_OLD)
            old.mkdir()
            path.rename(old / path.name)
        made.rename(path)


@contextmanager
def workplace(parent: Path) -> Iterator[Path]:
    """Makes a folder in `parent` for what is not finished, and removes it at the end of the block.

    If this process is killed, the next one that works in `parent` removes it.
    """
    _remove_abandoned(parent)
    place = parent / f"{_PREFIX}{secrets.token_hex(4)}{_SUFFIX}"
    place.mkdir()
    lock = _lock(place)
    try:
        (place / _NEW).mkdir()
        yield place / _NEW
    finally:
        if lock is not None:
            lock.close()
        _remove(place)


def _lock(place: Path) -> BinaryIO | None:
    """Shows that a process works here: the system releases its lock when it ends, on other hosts and in containers too.

    The lock has no name before it is taken. None where the file system has no locks: then nobody removes the folder.
    """
    if fcntl is None:
        return None
    lock = (place / secrets.token_hex(4)).open("xb")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        return None
    Path(lock.name).rename(place / _LOCK)
    return lock


def _remove_abandoned(parent: Path) -> None:
    """Removes the workplaces of processes that were killed."""
    with suppress(OSError):
        for path in parent.glob(f"{_PREFIX}*{_SUFFIX}/{_LOCK}") if fcntl is not None else ():
            with suppress(OSError):
                with path.open("r+b") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises while its owner works
                _remove(path.parent)


def _remove(place: Path) -> None:
    """Removes a workplace; what was to be replaced gets its name back unless there is something new."""
    for old in (place / _OLD).glob("*"):
        path = place.parent / old.name
        with suppress(OSError):  # another process does the same
            if not path.exists():
                old.rename(path)
    shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _errors_name(path: Path) -> Iterator[None]:
    """Makes errors name `path` instead of what is in a workplace, and instead of no file when the disk is full."""
    try:
        yield
    except EmbgemmaError as error:
        error.args = (_IN_A_WORKPLACE.sub("", str(error)), *error.args[1:])
        raise
    except OSError as error:
        real = _real_path(path, error)
        if real is None:
            raise
        raise OSError(error.errno, error.strerror, str(real)) from error


def _real_path(path: Path, error: OSError) -> Path | None:
    """What an error of making `path` should name instead; None where it names the right file."""
    if error.filename is None:
        return path if error.errno in FULL else None
    found = Path(error.filename)
    if not found.is_relative_to(path.parent):
        return None
    place, *parts = found.relative_to(path.parent).parts or ("",)
    return path.joinpath(*parts[2:]) if place.startswith(_PREFIX) else None  # parts: _NEW, the name, what is in it
