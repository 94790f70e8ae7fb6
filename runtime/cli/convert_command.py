"""The command `embgemma convert`: a checkpoint to a model file, or a model file to one with fewer pieces."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..find import opening
from ..kernels.errors import InputError
from ..kernels.model_file import DEFAULT_SCHEME
from ..notices import Progress

if TYPE_CHECKING:
    import argparse

# Options that say how a checkpoint becomes a model file, which has happened where there is one.
_OF_CHECKPOINTS = ("scheme", "calibration", "no_calibration", "sliding_window", "base")


def add_keep_arguments(parser: argparse.ArgumentParser, more: str = "") -> None:
    """Declares which pieces to keep; more is what is said of them besides."""
    keep = parser.add_argument_group(
        "smaller files",
        "A file can keep a part of the 262,144 pieces of the vocabulary. Texts of kept pieces have the same vectors, "
        f"to the last bit; others are cut into smaller ones. {more}",
    )
    keep.add_argument(
        "--keep-texts",
        metavar="FILE",
        nargs="+",
        action="extend",
        default=[],
        help="keep the pieces of texts like those to be embedded: files of lines or JSON lines, or folders of them",
    )
    keep.add_argument(
        "--keep-languages",
        metavar="LIST",
        help="keep the pieces of the words of languages, such as en,de; needs the package wordfreq",
    )
    keep.add_argument("--keep-scripts", metavar="LIST", help="keep the pieces of scripts, such as Latin,Cyrillic")
    keep.add_argument(
        "--keep-pieces",
        type=int,
        metavar="N",
        help="keep N in all: the most frequent of texts first, then those of languages, then those of scripts",
    )


def read_keep(arguments: argparse.Namespace) -> Any:
    """The `Keep` of the arguments, None for all; raises InputError where they name what is not there."""
    from ..export.vocabulary.keep import Keep
    from ..export.vocabulary.scripts import read_scripts
    from ..export.vocabulary.texts import text_files

    texts, languages, scripts = arguments.keep_texts, arguments.keep_languages, arguments.keep_scripts
    if not texts and languages is None and scripts is None:
        if arguments.keep_pieces is not None:
            raise InputError(
                "--keep-pieces says how many to keep, not which; give --keep-texts, --keep-languages or --keep-scripts"
            )
        return None
    return Keep(
        texts=tuple(text_files(texts)),
        languages=() if languages is None else tuple(name.strip() for name in languages.split(",")),
        scripts=frozenset() if scripts is None else read_scripts(scripts),
        pieces=arguments.keep_pieces,
    )


def run_convert(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit code."""
    keep = read_keep(arguments)
    output = Path(arguments.output)
    if keep is None and Path(arguments.checkpoint).is_file():
        raise InputError(
            f"{arguments.checkpoint}: this is a file; give the folder of a checkpoint, or say what to keep of a model "
            "file, by --keep-texts, --keep-languages or --keep-scripts"
        )
    with Progress(quiet=arguments.quiet) as progress:
        if keep is None or Path(arguments.checkpoint).is_dir():
            _convert(arguments, keep, progress)
        else:
            _restrict(arguments, keep, progress)
        progress.wrote(output)
    return 0


def _restrict(arguments: argparse.Namespace, keep: Any, progress: Progress) -> None:
    """Makes a model file of another one, or of that which a name of the hub means."""
    from ..export.restrict_file import restrict

    name = arguments.checkpoint
    for option in _OF_CHECKPOINTS:
        if getattr(arguments, option) and (option != "scheme" or Path(name).is_file()):
            raise InputError(
                f"--{option.replace('_', '-')} is for checkpoints; {name} is, or names, a model file: leave it out"
            )
    with opening(name, scheme=arguments.scheme) as path:
        restrict(path, arguments.output, keep, force=arguments.force, progress=progress)


def _convert(arguments: argparse.Namespace, keep: Any, progress: Progress) -> None:
    """Makes a model file of the checkpoint."""
    from ..export.convert import convert  # only this command needs the exporter

    convert(
        arguments.checkpoint,
        arguments.output,
        arguments.scheme or DEFAULT_SCHEME,
        calibrated=not arguments.no_calibration,
        calibration=arguments.calibration,
        sliding_window=arguments.sliding_window,
        base=arguments.base,
        keep=keep,
        force=arguments.force,
        progress=progress,
    )
