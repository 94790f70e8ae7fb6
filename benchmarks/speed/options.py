"""Arguments that the commands share."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from ...kernels.config import EMBEDDINGGEMMA_300M
from ...kernels.errors import InputError
from ...kernels.model_file import DEFAULT_SCHEME, SCHEMES
from ..harness.cache import default_cache
from ..harness.workload import DEFAULT_LENGTHS, MIN_TOKENS
from ..peers import PEERS
from .bench import Settings
from .model_source import CHECKPOINT_VARIABLE, path_from_environment

BACKENDS = ("auto", "native", "numba", "reference")
DEFAULT_SECONDS = 30.0
DEFAULT_BATCH = 64


def add_timed(parser: argparse.ArgumentParser) -> None:
    """What is measured, and for how long."""
    group = parser.add_argument_group("what is measured")
    group.add_argument("--device", default="cpu", help="cpu, the only one there is")
    group.add_argument("--model", type=Path, metavar="FILE", help="a model file; default: EMBGEMMA_MODEL if set")
    group.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FOLDER",
        help=f"a checkpoint to convert into --scheme; default: {CHECKPOINT_VARIABLE} if set; without model and "
        "checkpoint, synthetic weights of the exact shape",
    )
    group.add_argument(
        "--scheme",
        type=_schemes,
        default=DEFAULT_SCHEME,
        help=f"of weights made here: {', '.join(SCHEMES)} (default: %(default)s); `compare` takes several and sets "
        "others against the first",
    )
    group.add_argument("--backend", choices=BACKENDS, default="auto", help="default: the fastest there is")
    group.add_argument("--isa", help="force one instruction set; `embgemma info` lists them")
    add_threads_and_cache(group)
    group = parser.add_argument_group("how")
    group.add_argument(
        "--lengths",
        type=_lengths,
        default=DEFAULT_LENGTHS,
        metavar="N,N,…",
        help=f"tokens a text, from {MIN_TOKENS} to {EMBEDDINGGEMMA_300M.max_tokens} "
        f"(default: {','.join(map(str, DEFAULT_LENGTHS))})",
    )
    group.add_argument("--batch", type=positive, default=DEFAULT_BATCH, help="texts in a batch (default: %(default)s)")
    group.add_argument(
        "--seconds", type=seconds, default=DEFAULT_SECONDS, help="time to measure (default: %(default)g)"
    )
    group.add_argument("--repeats", type=positive, metavar="N", help="N calls of each length instead of --seconds")


def add_threads_and_cache(parser: argparse._ActionsContainer) -> None:
    """How many threads, and where models are kept."""
    parser.add_argument(
        "--threads", type=positive, help="default: the number of physical cores, or the CPU quota if less"
    )
    parser.add_argument(
        "--cache",
        type=folder,
        default=default_cache(),
        metavar="FOLDER",
        help="for models that are made (%(default)s); `embgemma-bench cache` says its size, and can empty it",
    )


def add_plot(parser: argparse._ActionsContainer) -> None:
    """Where a picture is drawn."""
    parser.add_argument("--plot", type=plot_file, metavar="FILE", help="draw it too, into a .png or .svg file")


def add_format(parser: argparse.ArgumentParser) -> None:
    """What the report looks like."""
    group = parser.add_argument_group("output").add_mutually_exclusive_group()
    group.add_argument("--json", action="store_true", help="everything, in seconds and bytes, for programs")
    group.add_argument("--markdown", action="store_true", help="tables for a README")


def settings_of(options: argparse.Namespace) -> Settings:
    """What add_timed read."""
    lengths, budget = tuple(sorted(set(options.lengths))), (options.seconds, options.repeats)
    return Settings(options.backend, options.isa, options.threads, lengths, options.batch, *budget)


def checkpoint_of(options: argparse.Namespace, purpose: str) -> Path:
    """The checkpoint named by an argument or by the environment; raises InputError if there is none."""
    checkpoint: Path | None = options.checkpoint or path_from_environment(CHECKPOINT_VARIABLE)
    if checkpoint is None:
        raise InputError(
            f"{purpose} needs the checkpoint that every runtime's model is made of; give its folder with --checkpoint "
            f"or {CHECKPOINT_VARIABLE}"
        )
    return checkpoint


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def plot_file(text: str) -> Path:
    """A path for a picture; refuses it where nothing can draw."""
    if not can_draw():
        raise argparse.ArgumentTypeError("a plot needs matplotlib, which is not installed; pip install matplotlib")
    return Path(text)


def peers(text: str) -> list[str]:
    """Names of peers, or all of them."""
    return list(PEERS) if text == "all" else _names(text, PEERS)


def folder(text: str) -> Path:
    """A folder, which need not be there."""
    if Path(text).exists() and not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text}: this is a file; expected a folder")
    return Path(text)


def positive(text: str) -> int:
    """A whole number above 0."""
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number of at least 1")
    return value


def positives(text: str) -> tuple[int, ...]:
    """Whole numbers above 0, separated by commas."""
    return tuple(positive(part.strip()) for part in text.split(","))


def seconds(text: str) -> float:
    """Seconds above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of seconds above 0")
    return value


def _schemes(text: str) -> list[str]:
    return _names(text, SCHEMES)


def _names(text: str, known: tuple[str, ...]) -> list[str]:
    names = list(dict.fromkeys(part.strip() for part in text.split(",")))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: expected names of {', '.join(known)}")
    return names


def _lengths(text: str) -> tuple[int, ...]:
    lengths = positives(text)
    if min(lengths) < MIN_TOKENS:
        raise argparse.ArgumentTypeError(f"{text!r}: a text has at least {MIN_TOKENS} tokens, <bos> and <eos>")
    return lengths
