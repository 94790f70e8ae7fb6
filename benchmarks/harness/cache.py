"""Model files that peers need and that take minutes to make: made once, kept in a cache folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CACHE_VARIABLE = "XDG_CACHE_HOME"
PACKAGE = Path(__file__).parents[2]
TAG_LENGTH = 12  # hexadecimal digits


def default_cache() -> Path:
    """Where this user's caches lie."""
    base = os.environ.get(CACHE_VARIABLE)
    return (Path(base) if base else Path.home() / ".cache") / "embgemma" / "benchmarks"


def checkpoint_folder(cache: Path, checkpoint: Path) -> Path:
    """The folder for files made of this checkpoint: another, or a changed one, gets another folder."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    facts = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    folder = cache / hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def cached(folder: Path, make: Callable[[Path], object], sources: Sequence[str], packages: Sequence[str] = ()) -> Path:
    """A folder of this name, filled by `make` unless it exists; it appears when complete, or not at all.

    Its name also tells what made it, so that other code or another version makes it anew and removes the old one:
    `sources` are files, or folders of Python files, of this package, and `packages` are names as pip knows them.
    """
    facts = [(str(path), (PACKAGE / path).read_bytes()) for source in sources for path in _files(source)]
    versions = [(package, _version(package)) for package in packages]
    stem, tag = folder.name, hashlib.sha256(repr((facts, versions)).encode()).hexdigest()[:TAG_LENGTH]
    folder = folder.with_name(f"{stem}.{tag}")
    if not folder.exists():
        unfinished = Path(tempfile.mkdtemp(prefix=f".{stem}-", dir=folder.parent))
        try:
            make(unfinished)
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        for old in folder.parent.glob(f"{stem}.*"):
            if old != folder:
                shutil.rmtree(old, ignore_errors=True)
    return folder


def _files(source: str) -> list[Path]:
    """The source itself or the Python files in it, relative to the package."""
    path = PACKAGE / source
    return sorted(Path(source) / one.name for one in path.glob("*.py")) if path.is_dir() else [Path(source)]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
