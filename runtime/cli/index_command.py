"""The command `embgemma index`: what is in files, for `embgemma search`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..find import IN_THE_BOX
from ..inputs import check_path
from ..kernels.errors import InputError
from ..notices import Progress, count_text, tell
from ..search import Index
from ..search.embedder import DEFAULT_DIM, DEFAULT_OVERLAP, DEFAULT_PASSAGE
from ..search.sources import check_exists
from ..search.vectors import PRECISIONS

if TYPE_CHECKING:
    import argparse

    from ..search import Changes

DESCRIPTION = (
    "Indexes text, Markdown, HTML, JSON lines, CSV and TSV in passages. Run it again when files have changed: only "
    "what is new is embedded, and what is gone is removed. Interrupted, it goes on the next time. Hidden files, binary "
    "files and links in folders are left out."
)


def add_index_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of the command, except what runs it."""
    parser.add_argument("paths", nargs="+", metavar="FOLDER|FILE", help="what to index; folders with all under them")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the index, such as notes.db")
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing but what is wrong")
    parser.add_argument(
        "--column", default="text", metavar="NAME", help="field of JSON lines, column of CSV and TSV (default: text)"
    )
    parser.add_argument(
        "--prune",
        action="store_true",
        help="remove the passages of a FOLDER that is missing or empty (otherwise kept: its disk may not be mounted)",
    )
    made = parser.add_argument_group("a new index", "An index keeps these; they may be left out later.")
    made.add_argument(
        "--model", metavar="MODEL", help=f"model file or name, as for `embgemma embed` (default: {IN_THE_BOX})"
    )
    made.add_argument("--dim", type=int, metavar="N", help=f"size of the vectors (default: {DEFAULT_DIM})")
    made.add_argument("--precision", choices=PRECISIONS, help="how vectors are stored (default: int8)")
    made.add_argument(
        "--passage-tokens", type=int, metavar="N", help=f"most tokens of a passage (default: {DEFAULT_PASSAGE})"
    )
    made.add_argument(
        "--overlap", type=int, metavar="N", help=f"tokens that the next passage repeats (default: {DEFAULT_OVERLAP})"
    )


def run_index(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit code."""
    with Progress(quiet=arguments.quiet) as progress, open_or_create(arguments) as index:
        done = 0

        def advance(now: int, total: int) -> None:
            nonlocal done
            if done == 0:
                progress.begin("indexing", total, "B")
            progress.advance(now - done)
            done = now

        changes = index.update(
            arguments.paths, column=arguments.column, prune=arguments.prune, tell=tell, progress=advance
        )
        progress.wrote(Path(arguments.output), _summary(changes, len(index)))
    return 1 if changes.problems else 0


def open_or_create(arguments: argparse.Namespace) -> Index:
    """The index that the arguments name."""
    path = check_path("output", arguments.output)
    engine = {"backend": arguments.backend, "threads": arguments.threads, "isa": arguments.isa}
    given = {name: getattr(arguments, name) for name in ("dim", "precision", "passage_tokens", "overlap")}
    given = {name: value for name, value in given.items() if value is not None}
    if not path.exists() or (path.is_file() and path.stat().st_size == 0):
        for source in arguments.paths:  # before there is an index
            check_exists(source)
        return Index.create(path, IN_THE_BOX if arguments.model is None else arguments.model, **given, **engine)
    index = Index.open(path, arguments.model, **engine)
    for name, value in given.items():
        stored = getattr(index.settings, name)
        if value != stored:
            index.close()
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{path} was made with {option} {stored}: leave {option} out, or name another file")
    return index


def _summary(changes: Changes, passages: int) -> str:
    """What was done, in words."""
    parts = [
        count_text(passages, "passage"),
        f"{count_text(changes.files, 'file')} of which {changes.changed:,} new or changed",
        f"{changes.gone:,} gone" if changes.gone else "",
        f"{count_text(changes.embedded, 'passage')} embedded",
        *(f"{count:,} {kind} skipped" for kind, count in sorted(changes.skipped.items()) if count),
    ]
    return ", ".join(filter(None, parts))
