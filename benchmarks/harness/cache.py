"""Model files that peers need and that take minutes to make: made once, kept in a cache folder."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from .machine import package_version
from .page import GIGA

CACHE_VARIABLE = "XDG_CACHE_HOME"
PACKAGE = Path(__file__).parents[2]
TAG_LENGTH = 12  # hexadecimal digits


def default_cache() -> Path:
    """The folder that is taken unless another is named."""
    base = os.environ.get(CACHE_VARIABLE)
    return (Path(base) if base else Path.home() / ".cache") / "embgemma" / "benchmarks"


def checkpoint_folder(cache: Path, checkpoint: Path) -> Path:
    """The folder for files made of this checkpoint: another, or a changed one, gets another folder."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    facts = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    folder = cache / hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def describe_cache(cache: Path) -> str:
    """Where the cache is and what it takes."""
    size = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
    return f"models and vectors are kept in {cache}: {size / GIGA:.1f} GB, which you may delete"


def cached(path: Path, make: Callable[[Path], object], sources: Sequence[str], packages: Iterable[str] = ()) -> Path:
    """The file at this path, which `make` writes unless it exists; its folder appears when complete, or not at all.

    The folder's name ends in a hash of what made it, so other code or another version makes it anew and removes the
    old one: `sources` are files of this package, or patterns of names, and `packages` are names as pip knows them.
    """
    paths = sorted(path for source in sources for path in PACKAGE.glob(source))
    facts = [(str(path.relative_to(PACKAGE)), path.read_bytes()) for path in paths]
    versions = [(package, package_version(package)) for package in packages]
    stem, tag = path.parent.name, hashlib.sha256(repr((facts, versions)).encode()).hexdigest()[:TAG_LENGTH]
    folder = path.parent.with_name(f"{stem}.{tag}")
    if not folder.exists():
        for left in folder.parent.glob(f".{stem}-*"):  # by a process that was killed
            if not _is_running(left.name.rpartition("-")[2]):
                shutil.rmtree(left, ignore_errors=True)
        unfinished = folder.with_name(f".{stem}-{os.getpid()}")
        try:
            unfinished.mkdir(parents=True)
            make(unfinished / path.name)
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        for old in folder.parent.glob(f"{stem}.*"):
            if old != folder:
                shutil.rmtree(old, ignore_errors=True)
    return folder / path.name


def _is_running(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (OSError, ValueError):
        return True  # of another user, or not a process
    return True
