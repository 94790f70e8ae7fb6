"""`embgemma-bench`: how fast, how small and how exact the runtime is on this machine, beside others and its limits."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ..cli.exit import exit_code
from ..cli.signals import check_standard_output, prepare_standard_streams
from ..kernels.errors import InputError
from ..notices import tell
from . import results
from .compare import compare_report
from .compare.compare import run_comparison
from .harness.cache import default_cache, describe_cache, empty_cache
from .harness.page import Page, to_json
from .peers import PEERS
from .quality import quality, vocabulary
from .roofline import roofline_report
from .roofline.roofline import run_roofline
from .speed import bulk_speed, report, search_speed, serve_speed, tokenizer_speed
from .speed import options as shared
from .speed.bench import run
from .speed.first_search import first_search
from .speed.model_source import explain_full_disk, open_source
from .speed.result import Result

PROGRAM = "embgemma-bench"

EPILOG = """\
What is timed: token ids in, unit vector out, in one process of its own; tokenisation is not timed. All lengths are
warmed up and then take turns. "floor" is the time in which this machine could read the weights once and do all
multiplications at its measured rates; "of limit" is floor / median.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        arguments.insert(0, "speed")
    prepare_standard_streams()
    parser = build_parser()
    options = parser.parse_args(arguments)
    if getattr(options, "device", "cpu") != "cpu":
        parser.error(f"--device {options.device}: embgemma runs on the CPU only; use --device cpu")
    code = exit_code(PROGRAM, lambda: _print_page(options))
    if code == 0 and "cache" in options and options.cache.exists():
        tell(describe_cache(options.cache), PROGRAM)
    return code


def _print_page(options: argparse.Namespace) -> int:
    check_standard_output()
    sys.stdout.write(f"{options.run(options)}\n")
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The commands and their arguments."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description=f"{__doc__}\nWithout COMMAND it is `speed`. `embgemma-bench COMMAND --help` lists what each takes.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (what, add_arguments) in COMMANDS.items():
        command = commands.add_parser(
            name, help=what, description=what, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        add_arguments(command)
    return parser


def _add_timed(parser: argparse.ArgumentParser) -> None:
    shared.add_timed(parser)
    shared.add_format(parser)
    parser.epilog = EPILOG


def _add_speed(parser: argparse.ArgumentParser) -> None:
    _add_timed(parser)
    others = parser.add_argument_group("instead")
    others.add_argument("--compare", type=shared.peers, metavar="NAME,NAME,…", help="as `compare NAME,NAME,…`")
    others.add_argument("--roofline", action="store_true", help="as `roofline`")
    shared.add_plot(others)
    parser.set_defaults(run=_run_speed)


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "compare",
        type=shared.peers,
        nargs="?",
        default="all",
        metavar="NAME,NAME,…",
        help=f"other runtimes, each measured in turn with ours for --seconds: {', '.join(PEERS)}, or all",
    )
    _add_timed(parser)
    shared.add_plot(parser)
    parser.set_defaults(run=_run_compare)


def _add_roofline(parser: argparse.ArgumentParser) -> None:
    _add_timed(parser)
    parser.set_defaults(run=_run_roofline)


def _add_cache(parser: argparse.ArgumentParser) -> None:
    # Not stored as `cache`, of which every command speaks at its end.
    parser.add_argument(
        "--cache", dest="folder", type=shared.folder, default=default_cache(), metavar="FOLDER", help="%(default)s"
    )
    parser.add_argument("--empty", action="store_true", help="remove what is kept there")
    parser.set_defaults(run=_run_cache)


def _run_cache(options: argparse.Namespace) -> str:
    if options.empty:
        empty_cache(options.folder)
    return describe_cache(options.folder)


def _run_speed(options: argparse.Namespace) -> str:
    if options.compare:
        return _run_compare(options)
    return _run_roofline(options) if options.roofline else _of_one_model(options, run, _page_after_a_search)


def _page_after_a_search(result: Result) -> Page:
    page = report.page(result)
    return dataclasses.replace(page, facts={"search": first_search(), **page.facts})


def _run_roofline(options: argparse.Namespace) -> str:
    return _of_one_model(options, run_roofline, roofline_report.page)


def _of_one_model(options: argparse.Namespace, measure: Callable[..., Any], page: Callable[[Any], Page]) -> str:
    if len(options.scheme) > 1:
        raise InputError("--scheme takes several schemes only with `compare`")
    with open_source(options.model, options.checkpoint, options.cache, options.scheme[0]) as source:
        found = measure(source, shared.settings_of(options))
    return to_json(found) if options.json else page(found).text(options.markdown)


def _run_compare(options: argparse.Namespace) -> str:
    checkpoint = shared.checkpoint_of(options, "a comparison")
    with explain_full_disk(options.cache):
        found = run_comparison(checkpoint, options.cache, options.compare, options.scheme, shared.settings_of(options))
    if options.plot:
        from .compare.plot import write_plot

        write_plot(found, options.plot)
    return to_json(found) if options.json else compare_report.page(found).text(options.markdown)


COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "speed": ("time, memory and load of our own runtime", _add_speed),
    "compare": ("our runtime beside others, in turn: speed, memory, error", _add_compare),
    "roofline": ("the operations of a call: time, bytes, multiplications, share of the machine's limit", _add_roofline),
    "quality": ("the error of every format, and what it loses on evaluation sets", quality.add_arguments),
    "vocabulary": ("what a file with a part of the vocabulary covers, and what it loses", vocabulary.add_arguments),
    "search": ("what an index takes on top of its embeddings, and a search in it", search_speed.add_arguments),
    "serve": ("the server beside encode on the same texts, and its time with many clients", serve_speed.add_arguments),
    "bulk": ("Parquet files of texts to files of vectors on local Ray, beside encode", bulk_speed.add_arguments),
    "tokenizer": ("the C tokenizer beside sentencepiece", tokenizer_speed.add_arguments),
    "cache": ("the models and vectors that are kept: their size; --empty removes them", _add_cache),
    "results": ("all of it, written into benchmarks/RESULTS.md", results.add_arguments),
}
