"""What a part of the vocabulary costs: the size of a file with fewer pieces, what it covers, and what its scores lose.

Pieces are those of the words of languages, so of other texts than the evaluation sets that EMBGEMMA_EVALDATA names.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from ...export.restrict_file import restrict
from ...export.vocabulary.keep import Keep
from ...kernels.errors import InputError
from ...model import EmbeddingModel, load
from ..compare.figure import COLOURS, PALE, picture
from ..harness.command import progress
from ..harness.machine import Environment, read_environment
from ..harness.page import MEGA, NOTHING, Page, Table, megabytes
from ..peers import OURS, Vectors
from ..speed import options as shared
from ..speed.model_source import path_from_environment
from ..speed.report import describe
from .quality import EVALUATION_VARIABLE
from .quality_scores import Loss, Scores, loss, resampled_scores
from .quality_tasks import Task, read_tasks

PIECES = (16384, 32768, 52352, 65536, 89408)
INCHES, MARGINS = (9, 4.2), {"left": 0.075, "right": 0.98}


@dataclass(frozen=True)
class Part:
    """A file with a part of the vocabulary.

    Attributes:
        languages: whose words were kept.
        pieces: how many.
        bytes: of the file.
        coverage: share of the tokens in the sets, prompts included, that are kept pieces.
        loss: of the mean score, against the whole file; None if nothing was scored.
    """

    languages: str
    pieces: int
    bytes: int
    coverage: float
    loss: Loss | None


class Whole:
    """A model file with all pieces, and what it makes of the texts of tasks."""

    def __init__(self, path: Path, tasks: Sequence[Task], threads: int | None, *, scored: bool) -> None:
        self.path, self.tasks, self.threads = path, tasks, threads
        self._texts = [(prompt, texts) for task in tasks for prompt, texts in task.texts]
        with load(path, threads=threads) as model:
            self._ids = [model.token_ids(texts, prompt_name=_prompt(model, name)) for name, texts in self._texts]
            if scored:
                self._vectors = [model.encode(texts, prompt_name=_prompt(model, name)) for name, texts in self._texts]
        self._scores = self._scored(self._vectors) if scored else None

    def measure(self, languages: str, pieces: int, output: Path) -> Part:
        """Writes a part as `output`, and measures it."""
        kept = restrict(self.path, output, Keep(languages=(*languages.split(","),), pieces=pieces), force=True)
        has_row = np.zeros(kept.of, bool)
        has_row[kept.rows[: kept.pieces]] = True
        covered = [[has_row[text] for text in ids] for ids in self._ids]
        share = float(np.concatenate([text for texts in covered for text in texts]).mean())
        lost = None
        if self._scores is not None:
            others = [[i for i, text in enumerate(texts) if not text.all()] for texts in covered]
            lost = loss(self._scores, self._scored(self._vectors_of(output, others)))
        return Part(languages, kept.pieces, output.stat().st_size, share, lost)

    def _vectors_of(self, part: Path, others: list[list[int]]) -> list[Vectors]:
        """The vectors of a part: those of covered texts are there already, `others` says which are not."""
        vectors = [whole.copy() for whole in self._vectors]
        with load(part, threads=self.threads) as model:
            for (name, texts), numbers, found in zip(self._texts, others, vectors, strict=True):
                if numbers:
                    found[numbers] = model.encode([texts[i] for i in numbers], prompt_name=_prompt(model, name))
        return vectors

    def _scored(self, vectors: list[Vectors]) -> Scores:
        """The mean score of all tasks, then of resamples."""
        rest = iter(vectors)
        of_tasks = [resampled_scores(task, [next(rest) for _ in task.texts]) for task in self.tasks]
        return np.asarray(np.mean(of_tasks, axis=0))


def _prompt(model: EmbeddingModel, name: str) -> str | None:
    return name if name in model.prompts else None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of the command `vocabulary`."""
    parser.description = __doc__
    parser.add_argument("file", type=Path, metavar="FILE", help="model file with the whole vocabulary")
    parser.add_argument(
        "--languages", action="append", metavar="LIST", help="whose words are kept, once or more often (default: en)"
    )
    parser.add_argument(
        "--pieces",
        type=shared.positives,
        default=[*PIECES],
        metavar="N,N,…",
        help=f"how many pieces are kept (default: {','.join(map(str, PIECES))})",
    )
    parser.add_argument("--task", action="append", default=[], metavar="WORD", help="only sets whose name contains it")
    parser.add_argument("--no-scores", action="store_true", help="say only what is covered, which takes no embedding")
    parser.add_argument("--markdown", action="store_true", help="tables for a README")
    parser.add_argument(
        "--threads", type=shared.positive, help="default: the number of physical cores, or the CPU quota if less"
    )
    shared.add_plot(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> str:
    """Measures what the options ask for; returns the report and draws the plot."""
    sets = path_from_environment(EVALUATION_VARIABLE)
    if sets is None:
        raise InputError(f"set {EVALUATION_VARIABLE} to a folder of evaluation sets")
    progress("reading texts with the whole vocabulary")
    whole = Whole(options.file, read_tasks(sets, options.task), options.threads, scored=not options.no_scores)
    parts = []
    with tempfile.TemporaryDirectory() as folder:
        for languages, pieces in product(options.languages or ["en"], options.pieces):
            progress(f"measuring {pieces} pieces of {languages}")
            parts.append(whole.measure(languages, pieces, Path(folder) / "part.safetensors"))
    environment = read_environment()
    if options.plot:
        write_plot(parts, environment, options.plot)
    return page(parts, environment).text(options.markdown)


def page(parts: Sequence[Part], environment: Environment) -> Page:
    """The report."""
    header = ["words of", "pieces", "MB", "tokens covered", "loss", "95 % interval"]
    rows = [
        [
            part.languages,
            f"{part.pieces:,}",
            megabytes(part.bytes),
            f"{part.coverage:.2%}",
            *_cells(part.loss),
        ]
        for part in parts
    ]
    return Page({"machine": describe(environment)}, [Table("Parts of the vocabulary", header, rows, left=1)], [])


def _cells(lost: Loss | None) -> list[str]:
    return [NOTHING] * 2 if lost is None else [f"{lost.points:.2f}", f"{lost.low:.2f} to {lost.high:.2f}"]


def write_plot(parts: Sequence[Part], environment: Environment, path: Path) -> None:
    """Draws the tokens that are not covered against the size of the file."""
    title, facts = "What a part of the vocabulary covers", "the most frequent words of languages are kept"
    with picture(path, title, environment, facts, INCHES, MARGINS) as figure:
        axes = figure.subplots()
        axes.set_title("tokens of other pieces, %, lower is better, beside points thousands of pieces", loc="left")
        for number, languages in enumerate(dict.fromkeys(part.languages for part in parts)):
            those = [part for part in parts if part.languages == languages]
            points = [(part.bytes / MEGA, 100 * (1 - part.coverage)) for part in those]
            colour = [COLOURS[OURS], COLOURS["onnxruntime"], PALE][number % 3]
            axes.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=4.5, label=languages)
            for part, point in zip(those, points, strict=True):
                axes.annotate(f"{part.pieces / 1000:.0f}", point, (4, 5), textcoords="offset points", color=colour)
        axes.legend(frameon=False, title="words of")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("megabytes of the file, left is smaller")
