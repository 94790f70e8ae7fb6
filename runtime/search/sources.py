"""Which files there are to index."""

from __future__ import annotations

import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..inputs import check_path
from ..kernels.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@dataclass
class Found:
    """What is at the paths that were named.

    Attributes:
        roots: these paths, absolute.
        files: the files at and under them, in order; a dict for its keys.
        unread: files and folders that could not be looked at.
        skipped: how many of each kind were left out: "hidden", "links", "special".
    """

    roots: list[str] = field(default_factory=list)
    files: dict[str, None] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    _seen: set[str] = field(default_factory=set)  # real paths

    def add(self, path: str) -> None:
        """Adds a file, unless it is there under another name."""
        real = os.path.realpath(path)
        if real not in self._seen:
            self._seen.add(real)
            self.files[path] = None


def check_exists(path: str | os.PathLike[str]) -> None:
    """Raises InputError if there is nothing at a path."""
    if not os.path.lexists(check_path("path", path)):
        raise InputError(f"{path}: there is no such file or folder")


def find_files(
    paths: Iterable[str | os.PathLike[str]], tell: Callable[[str], None], known: Callable[[str], bool]
) -> Found:
    """The files at these paths, and under those that are folders, each once; what cannot be looked at is told.

    Links inside folders are not followed, so that no walk is endless. Raises InputError for a path where there is
    nothing, unless it is known: then it is gone.
    """
    found = Found()
    for path in paths:
        root = os.path.abspath(check_path("path", path))  # noqa: PTH100  (Path.absolute keeps "..")
        if not known(root):
            check_exists(path)
        found.roots.append(root)
        if Path(root).is_dir():
            _walk(root, found, tell)
        elif Path(root).is_file():
            found.add(root)
        elif os.path.lexists(root):
            raise InputError(f"{path}: it is neither a file nor a folder")
    return found


def _walk(root: str, found: Found, tell: Callable[[str], None]) -> None:
    def failed(error: OSError) -> None:
        tell(f"{error.filename}: cannot read the folder: {error.strerror}")
        found.unread.append(error.filename)

    for folder, folders, files in os.walk(root, onerror=failed):
        found.skipped["hidden"] += sum(name.startswith(".") for name in (*folders, *files))
        kept = [name for name in folders if not name.startswith(".")]
        folders[:] = sorted(name for name in kept if not os.path.islink(f"{folder}/{name}"))  # noqa: PTH114  (no errors)
        found.skipped["links"] += len(kept) - len(folders)
        for name in sorted(name for name in files if not name.startswith(".")):
            path = Path(folder, name)
            try:
                mode = path.lstat().st_mode
            except OSError as error:
                tell(f"{path}: cannot read the file: {error.strerror}")
                found.unread.append(str(path))
                continue
            if stat.S_ISREG(mode):
                found.add(str(path))
            else:
                found.skipped["links" if stat.S_ISLNK(mode) else "special"] += 1
