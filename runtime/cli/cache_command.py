"""The command `embgemma cache`: what `pull` keeps, and how to be rid of it."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from ..kernels.errors import InputError, printable
from ..kernels.model_file import SCHEMES
from .signals import check_standard_output

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

_HEADINGS = ("NAME", "REVISION", "COMMIT", "SCHEME", "SIZE", "LAST USED")
_COMMIT_LENGTH = 12  # hexadecimal digits that are shown


def add_cache_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of the command."""
    parser.add_argument(
        "action",
        nargs="?",
        default="list",
        choices=("list", "remove", "path"),
        help="list: the models (default); remove: all of NAME, or what the options say; path: the folder of the cache",
    )
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="remove: of the model, such as google/embeddinggemma-300m"
    )
    parser.add_argument("--scheme", choices=(*SCHEMES, "checkpoint"), help="remove: that model file, or the download")
    parser.add_argument("--revision", metavar="REV", help="remove: what was pulled as that branch, tag or commit")


def run_cache(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit code."""
    from ..hub import cache  # only this command needs it

    removes = arguments.action == "remove"
    if not removes and (arguments.name, arguments.scheme, arguments.revision) != (None, None, None):
        raise InputError(f"`cache {arguments.action}` takes no name and no option; `cache remove NAME` does")
    if removes and arguments.name is None:
        raise InputError("`cache remove` takes the NAME of a model; `embgemma cache` lists what is there")
    if removes:
        freed = cache.remove(arguments.name, arguments.scheme, arguments.revision)
        sys.stderr.write(f"embgemma: removed {printable(arguments.name)} ({freed / 1e6:.1f} MB)\n")
        return 0
    check_standard_output()
    if arguments.action == "path":
        sys.stdout.write(f"{cache.home()}\n")
        return 0
    rows = list(_rows())
    if not rows:
        sys.stderr.write(f"embgemma: nothing is in the cache, {printable(str(cache.home()))}\n")
        return 0
    widths = [max(map(len, column)) for column in zip(_HEADINGS, *rows, strict=True)]
    for row in (_HEADINGS, *rows):
        sys.stdout.write("  ".join(map(str.ljust, map(printable, row), widths)).rstrip() + "\n")
    return 0


def _rows() -> Iterator[tuple[str, ...]]:
    """What the cache holds, a line each."""
    from ..hub import cache

    for entry in cache.entries():
        used = time.strftime("%Y-%m-%d", time.localtime(entry.last_used()))
        revisions = ", ".join(entry.revisions)
        yield entry.name, revisions, entry.commit[:_COMMIT_LENGTH], entry.scheme, _size(cache.size(entry.path)), used
    for name, commit, size in cache.checkpoints():
        yield name, "", commit[:_COMMIT_LENGTH], "checkpoint", _size(size), ""


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
