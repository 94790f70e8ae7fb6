"""Model files that peers need and that take minutes to make: made once, kept in a cache folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

CACHE_VARIABLE = "XDG_CACHE_HOME"
RECIPE = 1  # raise it when a peer makes its files in another way: old ones are then not found


def default_cache() -> Path:
    """Where this user's caches lie."""
    base = os.environ.get(CACHE_VARIABLE)
    return (Path(base) if base else Path.home() / ".cache") / "embgemma" / "benchmarks"


def checkpoint_folder(cache: Path, checkpoint: Path) -> Path:
    """The folder for files made of this checkpoint: another, or a changed one, gets another folder."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    facts = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    folder = cache / hashlib.sha256(repr((RECIPE, facts)).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def cached(folder: Path, make: Callable[[Path], object]) -> Path:
    """The folder, filled by `make` unless it exists; it appears when complete, or not at all."""
    if not folder.exists():
        unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            make(unfinished)
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return folder
