"""Model files that peers need and that take minutes to make: made once, kept in a cache folder."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from ...output_file import whole_folder
from .machine import package_version
from .page import GIGA

CACHE_VARIABLE = "XDG_CACHE_HOME"
PACKAGE = Path(__file__).parents[2]
TAG_LENGTH = 12  # hexadecimal digits
MOST_CHECKPOINTS = 2  # whose models are kept: they take up to 7 GB each
VECTORS_FOLDER = "vectors"
_CHECKPOINT = "[0-9a-f]" * 16


def default_cache() -> Path:
    """The folder that is taken unless another is named."""
    base = os.environ.get(CACHE_VARIABLE)
    return (Path(base) if base else Path.home() / ".cache") / "embgemma" / "benchmarks"


def checkpoint_folder(cache: Path, checkpoint: Path) -> Path:
    """The folder for files made of this checkpoint: another, or a changed one, gets another folder."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    facts = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return recent_folder(cache / hashlib.sha256(repr(facts).encode()).hexdigest()[:16], _CHECKPOINT, MOST_CHECKPOINTS)


def recent_folder(folder: Path, pattern: str, most: int) -> Path:
    """Makes the folder if there is none, and removes all but the `most` used last of those of its kind beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    os.utime(folder)
    alike = sorted(folder.parent.glob(pattern), key=lambda path: path.stat().st_mtime_ns)
    for old in alike[:-most]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def describe_cache(cache: Path) -> str:
    """Where the cache is, what it takes, and how to be rid of it."""
    size = 0
    for path in cache.rglob("*"):
        with suppress(OSError):  # another process has just removed it
            size += path.lstat().st_size
    other = "" if cache == default_cache() else f" --cache {cache}"
    return (
        f"{cache} keeps {size / GIGA:.1f} GB of models and vectors; `embgemma-bench cache --empty{other}` removes them"
    )


def empty_cache(cache: Path) -> None:
    """Removes what the benchmark has put there, and nothing else."""
    for pattern in (_CHECKPOINT, VECTORS_FOLDER):
        for path in cache.glob(pattern):
            shutil.rmtree(path)


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
        folder.parent.mkdir(parents=True, exist_ok=True)
        with whole_folder(folder, force=True) as made:
            make(made / path.name)
        for old in folder.parent.glob(f"{stem}.*"):
            if old != folder:
                shutil.rmtree(old, ignore_errors=True)
    return folder / path.name
