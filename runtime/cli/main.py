"""The command `embgemma`: converts and exports checkpoints, embeds and searches texts, serves and describes models."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, NoReturn

from .. import __version__
from ..find import IN_THE_BOX
from ..kernels.errors import one_line
from ..kernels.model_file import SCHEMES
from .cache_command import add_cache_arguments, run_cache
from .convert_command import add_keep_arguments, run_convert
from .embed_command import add_embed_arguments, run_embed
from .exit import exit_code
from .export_command import DESCRIPTION as EXPORT_DESCRIPTION
from .export_command import add_export_arguments, run_export
from .index_command import DESCRIPTION as INDEX_DESCRIPTION
from .index_command import add_index_arguments, run_index
from .info_command import run_info
from .pull_command import DESCRIPTION as PULL_DESCRIPTION
from .pull_command import add_pull_arguments, run_pull
from .search_command import add_search_arguments, run_search
from .serve_command import DESCRIPTION as SERVE_DESCRIPTION
from .serve_command import add_serve_arguments, run_serve
from .signals import prepare_standard_streams

if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM = "embgemma"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with these arguments, sys.argv's if None; returns the exit code.

    0: done. 1: failed, or some lines of the input could not be read. 2: wrong arguments (argparse raises SystemExit).
    """
    prepare_standard_streams()
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if arguments.run is None:
        parser.print_help()
        return 0
    return exit_code(PROGRAM, lambda: arguments.run(arguments))


class _Parser(argparse.ArgumentParser):
    """Quotes arguments as every message does."""

    def error(self, message: str) -> NoReturn:
        """Ends the command."""
        super().error(one_line(message))


class _CommandParser(_Parser):
    """Takes options and other arguments in any order, as in `embed MODEL --dim 256 TEXT`.

    argparse offers this for a whole parser, but not for its commands.
    """

    _intermixing = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses intermixed; argparse calls back here for each of its two passes."""
        if self._intermixing:
            return super().parse_known_args(args, namespace)
        self._intermixing = True
        try:
            namespace, unknown = self.parse_known_intermixed_args(args, namespace)
        finally:
            self._intermixing = False
        option = next((argument for argument in unknown if argument.startswith("-")), None)
        if option is not None:  # argparse would blame the arguments after it as well
            self.error(f"there is no option {option.split('=')[0]}; see {self.prog} --help")
        return namespace, unknown


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line; it stores the function of the chosen command as `run`."""
    parser = _Parser(prog=PROGRAM, description="EmbeddingGemma on a CPU: text in, embedding out.")
    parser.add_argument("--version", action="version", version=f"embgemma {__version__}")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=_CommandParser)

    convert = commands.add_parser(
        "convert",
        help="make a model file of a checkpoint",
        description="Makes a model file of a published checkpoint: one file with weights, tokenizer and prompts. It "
        "takes two to ten minutes on two cores and at most 1 GB of memory; without calibration, one minute and 0.4 GB.",
    )
    convert.add_argument("-o", "--output", metavar="FILE", required=True, help="model file to write, *.safetensors")
    convert.add_argument(
        "--scheme",
        choices=SCHEMES,
        help="how weights are stored: float32; int8 (default); balanced: int4, but int8 where errors cost most; "
        "mixed: the same with a coarser table and more int8; int4: the smallest; the head is int8 in all of them",
    )
    _add_checkpoint_arguments(convert)
    add_keep_arguments(
        convert,
        "The checkpoint may then also be a model file, or a name on the hub that was pulled: this takes seconds.",
    )
    convert.set_defaults(run=run_convert)

    pull = commands.add_parser(
        "pull",
        help="download a model by its name, and convert it",
        description=PULL_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_pull_arguments(pull)
    pull.set_defaults(run=run_pull)

    cache = commands.add_parser(
        "cache",
        help="list or remove what was pulled",
        description="Lists or removes what `embgemma pull` keeps in the folder EMBGEMMA_HOME (default: embgemma, where "
        "the platform keeps caches).",
    )
    add_cache_arguments(cache)
    cache.set_defaults(run=run_cache)

    export = commands.add_parser(
        "export-onnx",
        help="make an ONNX model of a checkpoint",
        description=EXPORT_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_export_arguments(export)
    _add_checkpoint_arguments(export)
    add_keep_arguments(export)
    export.set_defaults(run=run_export)

    embed = commands.add_parser(
        "embed",
        help="embed texts",
        description="Embeds texts. Lines that cannot be read are named on standard error; the rest is embedded. The "
        "first argument is the MODEL, unless --model names it, or there is a space in it and no such file: then it is "
        f"a text like the others, and {IN_THE_BOX} embeds them, a small demonstration that comes with the package.",
    )
    _add_model_arguments(embed)
    add_embed_arguments(embed)
    _add_quiet(embed)
    embed.set_defaults(run=run_embed)

    index = commands.add_parser("index", help="index files to search in", description=INDEX_DESCRIPTION)
    add_index_arguments(index)
    _add_engine_arguments(index)
    index.set_defaults(run=run_index)

    search = commands.add_parser(
        "search", help="search an index by meaning", description="Shows the passages of an index that fit a query best."
    )
    add_search_arguments(search)
    _add_engine_arguments(search)
    search.set_defaults(run=run_search)

    serve = commands.add_parser("serve", help="serve a model and a search page by HTTP", description=SERVE_DESCRIPTION)
    _add_model_arguments(serve)
    add_serve_arguments(serve)
    serve.set_defaults(run=run_serve)

    info = commands.add_parser(
        "info",
        help="describe a model file or an ONNX model",
        description="Shows what a model file or an ONNX model holds, and what runs it here.",
    )
    _add_model_arguments(info)
    info.add_argument(
        "--check", action="store_true", help="also read the whole model file, and compare it with its checksums"
    )
    info.add_argument(
        "--coverage",
        metavar="FILE",
        nargs="+",
        help="also tell how much of these texts a part of the vocabulary covers",
    )
    info.add_argument("--whole", metavar="MODEL", help="for --coverage: the model file that has the whole vocabulary")
    info.set_defaults(run=run_info)
    return parser


def _add_checkpoint_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the checkpoint, and how to quantise and write it."""
    parser.add_argument("checkpoint", help="folder in the layout of sentence-transformers")
    calibration = parser.add_mutually_exclusive_group()
    calibration.add_argument(
        "--calibration",
        metavar="FILE",
        help='texts to quantise for: JSON lines such as {"text": "…", "prompt": "query"} (default: those that ship)',
    )
    calibration.add_argument(
        "--no-calibration",
        action="store_true",
        help="round each weight by itself: a minute at most, but less exact",
    )
    parser.add_argument(
        "--sliding-window",
        type=int,
        metavar="N",
        help="replaces sliding_window of config.json if an old library saved it wrongly: 512 for EmbeddingGemma",
    )
    parser.add_argument(
        "--base", metavar="FOLDER", help="checkpoint that a LoRA adapter was trained on, if its config names no folder"
    )
    parser.add_argument("--force", action="store_true", help="replace an output file that exists")
    _add_quiet(parser)


def _add_quiet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing but warnings and errors")


def _add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the model file and what runs it."""
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="model file, made by `embgemma convert`, or *.onnx by `export-onnx`; or a name, such as "
        f"google/embeddinggemma-300m, which is pulled if it is not in the cache (default: {IN_THE_BOX})",
    )
    parser.add_argument("--scheme", choices=SCHEMES, help="of a name (default: the one that was pulled first, or int8)")
    parser.add_argument("--revision", metavar="REV", help="of a name: branch, tag or commit that was pulled")
    _add_engine_arguments(parser)


def _add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what runs a model."""
    engine = parser.add_argument_group("what it runs on")
    engine.add_argument("--backend", default="auto", help="native, numba, reference (slow), or auto (default)")
    engine.add_argument("--isa", help="instruction set of the native backend, such as avx2 (default: the best)")
    engine.add_argument(
        "--threads", type=int, metavar="N", help="default: the number of physical cores, or the CPU quota if less"
    )
