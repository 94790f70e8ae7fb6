"""Every table that this project publishes, measured in one run and written into benchmarks/RESULTS.md.

A section that is not named keeps what it says, with its own date; so does a section that this command does not know.
Pictures are drawn beside the file.
"""

from __future__ import annotations

import argparse
import datetime as dt
import re
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from ..find import IN_THE_BOX
from ..kernels.errors import InputError
from ..kernels.model_file import SCHEMES
from .compare import compare_report
from .compare.compare import run_comparison
from .harness.cache import checkpoint_folder
from .harness.machine import read_environment
from .peers.ours import converted
from .quality.quality import COMPARABLE, DIMENSIONS, measure_formats
from .quality.quality_report import page as quality_page
from .roofline import roofline_report
from .roofline.roofline import run_roofline
from .speed import bulk_speed, report
from .speed import options as shared
from .speed.bench import run
from .speed.bulk_speed import measure_bulk
from .speed.model_source import explain_full_disk, open_source
from .speed.serve_report import page as serve_page
from .speed.serve_speed import measure_server
from .speed.tokenizer_speed import measure_tokenizers

FOLDER = Path(__file__).parent
INTRODUCTION = """\
# Results

`embgemma-bench results` writes this file, every table in one run on one commit. A section that was not measured again
keeps its own date and commit.
"""
CLIENTS = {1: 10.0, 16: 10.0, 200: 600.0}  # of the server at once, and for how many seconds
# Of `embgemma-bench bulk`: the cluster, whether with the model in the box, how many texts, in how many files.
BULK = (
    ("ray", True, 1_000_000, 50),
    ("ray", False, 10_000, 20),
    ("spark", True, 100_000, 20),
    ("daft", True, 100_000, 20),
)
CORES = 2
BULK_NOTE = """\
- Every text was there once, with the vector of `encode` to the last bit. Where a worker was killed, another one started
  and did its file again. texts/s counts the start of the workers and the files; encode has as many threads, no files.
"""
COMPARED = tuple(scheme for scheme in SCHEMES if scheme != "float32")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of the command `results`."""
    parser.description = __doc__
    parser.add_argument(
        "sections",
        nargs="*",
        default=[],
        metavar="SECTION",
        help=f"what is measured again: {', '.join(SECTIONS)} (default: all)",
    )
    parser.add_argument(
        "--output", type=Path, default=FOLDER / "RESULTS.md", metavar="FILE", help="default: %(default)s"
    )
    parser.add_argument("--compare", type=shared.peers, default="all", metavar="NAME,NAME,…", help="default: all")
    shared.add_timed(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> str:
    """Measures the sections and writes the file after each; returns where it is."""
    if unknown := [name for name in options.sections if name not in SECTIONS]:
        raise InputError(f"{', '.join(unknown)}: expected sections of {', '.join(SECTIONS)}")
    options.checkpoint = shared.checkpoint_of(options, "a table of results")
    made = f"*{dt.datetime.now(dt.timezone.utc):%Y-%m-%d}, {_version()}*"
    for name in options.sections or SECTIONS:
        title, measure = SECTIONS[name]
        with explain_full_disk(options.cache):
            body = measure(options)
        old = options.output.read_text("utf-8") if options.output.exists() else INTRODUCTION
        options.output.write_text(replaced(old, title, f"{made}\n\n{body}"), "utf-8")
    return f"wrote {', '.join(options.sections or SECTIONS)} into {options.output}"


def replaced(text: str, title: str, body: str) -> str:
    """The text with this body in the section of that title; a new section comes last."""
    section = f"## {title}\n\n{body.strip()}\n"
    start = re.search(rf"^## {re.escape(title)}\n", text, re.MULTILINE)
    if start is None:
        return f"{text.rstrip()}\n\n{section}"
    following = re.search(r"^## ", text[start.end() :], re.MULTILINE)
    rest = text[start.end() + following.start() :] if following else ""
    return f"{text[: start.start()]}{section}\n{rest}".rstrip() + "\n"


def _version() -> str:
    """Of embgemma, with the commit where this is a checkout."""
    version = f"embgemma {read_environment().versions['embgemma']}"
    command = ["git", "-C", str(FOLDER), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return version
    return f"{version}, commit {commit}"


def _model(options: argparse.Namespace) -> Path:
    """The checkpoint as a file of the first scheme."""
    return converted(options.checkpoint, checkpoint_folder(options.cache, options.checkpoint), options.scheme[0])


def _speed(options: argparse.Namespace) -> str:
    """The first scheme by itself, and all schemes beside other runtimes."""
    schemes = list(dict.fromkeys([*options.scheme, *COMPARED]))
    settings = shared.settings_of(options)
    with open_source(None, options.checkpoint, options.cache, schemes[0]) as source:
        alone = report.page(run(source, settings)).text(markdown=True)
    found = run_comparison(options.checkpoint, options.cache, options.compare, schemes, settings)
    beside = compare_report.page(found).text(markdown=True)
    picture = ""
    if shared.can_draw():
        from .compare.plot import write_latency

        write_latency(found, options.output.with_name("speed.svg"))
        picture = "![Milliseconds against tokens](speed.svg)\n\n"
    return f"{picture}{beside}\n\n### {schemes[0]} alone\n\n{alone}"


def _quality(options: argparse.Namespace) -> str:
    peers = [name for name in options.compare if name in COMPARABLE]
    found = measure_formats([], options.checkpoint, peers, [], DIMENSIONS, options.cache, options.threads)
    picture = ""
    if shared.can_draw() and found.measured[0].nearness:
        from .quality.quality_plot import write_plot

        write_plot(found, options.output.with_name("quality.svg"))
        picture = "![Error against size](quality.svg)\n\n"
    return picture + quality_page(found).text(markdown=True)


def _roofline(options: argparse.Namespace) -> str:
    with open_source(None, options.checkpoint, options.cache, options.scheme[0]) as source:
        return roofline_report.page(run_roofline(source, shared.settings_of(options))).text(markdown=True)


def _tokenizer(options: argparse.Namespace) -> str:
    return f"```\n{measure_tokenizers(_model(options), None)}\n```"


def _serving(options: argparse.Namespace) -> str:
    """The server, and those clusters that are installed."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{options.checkpoint.name}.safetensors"  # which names it in the tables
        path.symlink_to(_model(options))
        parts = [serve_page(measure_server(str(path), options.threads, CLIENTS)).text(markdown=True)]
        found = [
            measure_bulk(IN_THE_BOX if in_the_box else str(path), engine, texts, files, CORES, kill=engine != "daft")
            for engine, in_the_box, texts, files in BULK
            if find_spec(bulk_speed.PACKAGES[engine])
        ]
    if found:
        parts += [bulk_speed.table(found).text(markdown=True), BULK_NOTE]
    return "\n\n".join(parts)


SECTIONS: dict[str, tuple[str, Callable[[argparse.Namespace], str]]] = {
    "speed": ("Speed, memory, error", _speed),
    "roofline": ("What bounds a call", _roofline),
    "quality": ("Quality by format", _quality),
    "tokenizer": ("Tokenizer", _tokenizer),
    "serving": ("Serving and bulk", _serving),
}
