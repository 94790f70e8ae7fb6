"""Files and folders that appear whole under their name, or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from .kernels.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # disk full, quota used up, file too large


def check_destination(path: Path, *, force: bool) -> None:
    """Raises InputError unless a file may be written at `path`. Call it before the work, not after."""
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: the folder {path.parent} does not exist; create it first")
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder; give the name of a file")
    if path.exists() and not force:
        raise InputError(f"{path} exists; choose another name, or replace it with --force")


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a file that gets the name `path` when the block succeeds.

    Until then it has a temporary name in the same folder. If the block raises (full disk, Ctrl-C), the temporary file
    is removed and `path` stays as it was. An OSError of the temporary file names `path`.
    """
    temporary = _temporary(path)
    try:
        with _errors_name(path, temporary), temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Makes a folder that gets the name `path`, and replaces a folder there, when the block succeeds.

    Failures are handled as in `whole_file`. For a moment neither the old nor the new folder has the name.
    """
    temporary, old = _temporary(path), _temporary(path)
    try:
        with _errors_name(path, temporary):
            temporary.mkdir()
            yield temporary
        if path.exists():
            path.rename(old)
        temporary.rename(path)
    finally:
        if old.exists() and not path.exists():
            old.rename(path)
        for left in (temporary, old):
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _errors_name(path: Path, temporary: Path) -> Iterator[None]:
    """Makes errors name `path` instead of the temporary file, and instead of no file when the disk is full."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in _FULL:
            place = path
        elif error.filename is not None and Path(error.filename).is_relative_to(temporary):
            place = path / Path(error.filename).relative_to(temporary)
        else:
            raise
        raise OSError(error.errno, error.strerror, str(place)) from error


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
