"""The command `embgemma search`: the passages of an index that fit a query."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING

from ..kernels.errors import printable
from ..search import Index
from .signals import check_standard_output

if TYPE_CHECKING:
    import argparse

    from ..search import Result

MOST_COLUMNS = 100  # longer lines are hard to read


def add_search_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of the command, except what runs it."""
    parser.add_argument("index", metavar="INDEX", help="file that `embgemma index` made")
    parser.add_argument("query", metavar="QUERY", help="what to look for, in words")
    parser.add_argument("-k", type=int, default=5, metavar="N", help="how many passages to show (default: 5)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--model", metavar="MODEL", help="the model of the index, if it has moved")


def run_search(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit code."""
    check_standard_output()
    engine = {"backend": arguments.backend, "threads": arguments.threads, "isa": arguments.isa}
    with Index.open(arguments.index, arguments.model, **engine) as index:
        results = index.search(arguments.query, arguments.k)
    if arguments.json:
        lines = [json.dumps(asdict(result)) for result in results]  # in ASCII: nothing acts on a terminal
    else:
        columns = min(shutil.get_terminal_size().columns, MOST_COLUMNS)
        lines = "\n\n".join(_shown(result, columns) for result in results).splitlines()
    sys.stdout.buffer.writelines(f"{line}\n".encode() for line in lines)
    return 0


def _shown(result: Result, columns: int) -> str:
    """Where a passage is, how well it fits, and the passage in lines of so many columns."""
    below = os.path.relpath(result.path) if os.path.isabs(result.path) else result.path  # noqa: PTH117
    place = result.path if below.startswith(os.pardir) else below
    words = printable(" ".join(result.passage.split()))
    text = textwrap.fill(words, columns, break_long_words=False, break_on_hyphens=False)
    return f"{printable(place)}:{result.line}  {result.score:.3f}\n{text}"
