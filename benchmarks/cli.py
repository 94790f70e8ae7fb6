"""`embgemma-bench`: how fast and how small the runtime is on this machine, and how near to the machine's limits."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..kernels.config import EMBEDDINGGEMMA_300M
from ..kernels.errors import EmbgemmaError
from ..kernels.model_file import DEFAULT_SCHEME, SCHEMES
from .compare import compare_report
from .compare.compare import run_comparison
from .compare.plot import write_plot
from .harness.cache import default_cache
from .harness.workload import DEFAULT_LENGTHS, MIN_TOKENS
from .peers import PEERS
from .roofline import roofline_report
from .roofline.roofline import run_roofline
from .speed import report
from .speed.bench import Settings, run
from .speed.model_source import CHECKPOINT_VARIABLE, explain_full_disk, open_source, path_from_environment

if TYPE_CHECKING:
    from collections.abc import Sequence

BACKENDS = ("auto", "native", "numba", "reference")
DEFAULT_SECONDS = 30.0
DEFAULT_BATCH = 64

EPILOG = """\
What is timed: token ids in, unit vector out, in one process of its own; tokenisation is not timed. All lengths are
warmed up and then take turns. "floor" is the time in which this machine could read the weights once and do all
multiplications at its measured rates; "of limit" is floor / median.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.device != "cpu":
        parser.error(f"--device {options.device}: embgemma runs on the CPU only; use --device cpu")
    try:
        report = _run(options)
    except EmbgemmaError as error:
        sys.stderr.write(f"embgemma-bench: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("embgemma-bench: interrupted; nothing was measured to the end\n")
        return 130
    sys.stdout.write(f"{report}\n")
    return 0


def _run(options: argparse.Namespace) -> str:
    """Measures what the options ask for; returns the report."""
    settings = Settings(
        backend=options.backend,
        isa=options.isa,
        threads=options.threads,
        lengths=tuple(sorted(set(options.lengths))),
        batch=options.batch,
        seconds=options.seconds,
        repeats=options.repeats,
    )
    if options.compare:
        return _compare(options, settings)
    if len(options.scheme) > 1:
        raise EmbgemmaError("--scheme takes several schemes only with --compare")
    with open_source(options.model, options.checkpoint, options.cache, options.scheme[0]) as source:
        if options.roofline:
            found = run_roofline(source, settings, _progress)
            return roofline_report.to_json(found) if options.json else roofline_report.to_text(found, options.markdown)
        result = run(source, settings, _progress)
    return report.to_json(result) if options.json else report.to_text(result, options.markdown)


def _compare(options: argparse.Namespace, settings: Settings) -> str:
    """Measures the peers asked for, and ours; returns the report and draws the plot."""
    checkpoint = options.checkpoint or path_from_environment(CHECKPOINT_VARIABLE)
    if checkpoint is None:
        raise EmbgemmaError(
            "--compare needs the checkpoint that every runtime's model is made of; give its folder with --checkpoint "
            f"or {CHECKPOINT_VARIABLE}"
        )
    if options.plot and importlib.util.find_spec("matplotlib") is None:
        raise EmbgemmaError("--plot needs matplotlib, which is not installed; pip install matplotlib")
    with explain_full_disk(options.cache):
        found = run_comparison(checkpoint, options.cache, options.compare, options.scheme, settings, _progress)
    if options.plot:
        write_plot(found, options.plot)
    return compare_report.to_json(found) if options.json else compare_report.to_text(found, options.markdown)


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    parser = argparse.ArgumentParser(
        prog="embgemma-bench",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    longest = EMBEDDINGGEMMA_300M.max_tokens
    model = parser.add_argument_group("what is measured")
    model.add_argument("--device", default="cpu", help="cpu, the only one there is")
    model.add_argument("--model", type=Path, metavar="FILE", help="a model file; default: EMBGEMMA_MODEL if set")
    model.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FOLDER",
        help="a checkpoint to convert into --scheme; default: EMBGEMMA_CHECKPOINT if set; with neither model nor "
        "checkpoint, synthetic weights of the exact shape",
    )
    model.add_argument(
        "--scheme",
        type=_schemes,
        default=DEFAULT_SCHEME,
        help=f"{', '.join(SCHEMES)}: of weights made here (default: %(default)s); with --compare, several "
        "are measured, and the first is what others are set against",
    )
    model.add_argument("--backend", choices=BACKENDS, default="auto", help="default: the fastest there is")
    model.add_argument("--isa", help="force one instruction set; `embgemma info` lists them")
    model.add_argument("--threads", type=_positive, help="default: the number of physical cores")
    how = parser.add_argument_group("how")
    how.add_argument(
        "--lengths",
        type=_lengths,
        default=DEFAULT_LENGTHS,
        metavar="N,N,…",
        help=f"tokens a text, from {MIN_TOKENS} to {longest} (default: {','.join(map(str, DEFAULT_LENGTHS))})",
    )
    how.add_argument("--batch", type=_positive, default=DEFAULT_BATCH, help="texts in a batch (default: %(default)s)")
    how.add_argument("--seconds", type=_seconds, default=DEFAULT_SECONDS, help="time to measure (default: %(default)g)")
    how.add_argument("--repeats", type=_positive, metavar="N", help="N calls of each length instead of --seconds")
    how.add_argument(
        "--roofline",
        action="store_true",
        help="the operations of a call instead: time, bytes, multiplications, share of the machine's limit",
    )
    peers = parser.add_argument_group("other runtimes")
    peers.add_argument(
        "--compare",
        type=_peers,
        metavar="NAME,NAME,…",
        help=f"measure these in turn with ours, for --seconds each: {', '.join(PEERS)}, or all; needs a checkpoint",
    )
    peers.add_argument(
        "--plot", type=Path, metavar="FILE", help="with --compare: draw it too, into a .png or .svg file"
    )
    peers.add_argument(
        "--cache", type=Path, default=default_cache(), metavar="FOLDER", help="for models that are made (%(default)s)"
    )
    output = parser.add_argument_group("output").add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="everything, in seconds and bytes, for programs")
    output.add_argument("--markdown", action="store_true", help="tables for a README")
    return parser


def _progress(message: str) -> None:
    """Says what is going on, where somebody watches."""
    if sys.stderr.isatty():
        sys.stderr.write(f"{message} …\n")


def _positive(text: str) -> int:
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number of at least 1")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of seconds above 0")
    return value


def _schemes(text: str) -> list[str]:
    return _names(text, SCHEMES)


def _peers(text: str) -> list[str]:
    return list(PEERS) if text == "all" else _names(text, tuple(PEERS))


def _names(text: str, known: tuple[str, ...]) -> list[str]:
    names = list(dict.fromkeys(part.strip() for part in text.split(",")))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: expected names of {', '.join(known)}")
    return names


def _lengths(text: str) -> tuple[int, ...]:
    lengths = tuple(_positive(part.strip()) for part in text.split(","))
    if min(lengths) < MIN_TOKENS:
        raise argparse.ArgumentTypeError(f"{text!r}: a text has at least {MIN_TOKENS} tokens, <bos> and <eos>")
    return lengths
