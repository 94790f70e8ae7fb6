"""The command `embgemma pull`: downloads a checkpoint by its name, converts it, and keeps the model file."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ..kernels.model_file import DEFAULT_SCHEME, SCHEMES

if TYPE_CHECKING:
    import argparse

DESCRIPTION = """\
Downloads a checkpoint from the Hugging Face hub, converts it as `embgemma convert` does, and keeps the model file in a
cache, where the same NAME finds it from then on, in every command and in embgemma.load, with no network. Run again, it
asks the hub for something newer. It prints the path of the model file.

The download of google/embeddinggemma-300m takes 1.2 GB of disk. It is removed once it is converted, unless
--keep-checkpoint is given; one that was interrupted goes on. The model is gated: accept Google's terms at
https://huggingface.co/google/embeddinggemma-300m, then run `hf auth login`, or set HF_TOKEN.

EMBGEMMA_HOME is the folder of the cache; `embgemma cache` shows what is in it.
"""


def add_pull_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of the command."""
    parser.add_argument("name", metavar="NAME", help="of the model on the hub, such as google/embeddinggemma-300m")
    parser.add_argument(
        "--scheme",
        choices=SCHEMES,
        default=DEFAULT_SCHEME,
        help="how weights are stored; see `embgemma convert --help`",
    )
    parser.add_argument("--revision", metavar="REV", help="branch, tag or commit (default: the branch main)")
    parser.add_argument("--no-calibration", action="store_true", help="a minute at most, but less exact; see `convert`")
    parser.add_argument("--sliding-window", type=int, metavar="N", help="as for `convert`, if an old library saved it")
    parser.add_argument(
        "--keep-checkpoint", action="store_true", help="keep the download as well, for other schemes of the same model"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing but the path")


def run_pull(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit code."""
    from ..hub.pull import pull  # only this command needs it

    entry = pull(
        arguments.name,
        arguments.scheme,
        arguments.revision,
        calibrated=not arguments.no_calibration,
        sliding_window=arguments.sliding_window,
        keep_checkpoint=arguments.keep_checkpoint,
        quiet=arguments.quiet,
    )
    if sys.stdout is not None:
        sys.stdout.write(f"{entry.path}\n")
    return 0
