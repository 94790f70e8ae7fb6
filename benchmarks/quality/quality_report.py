"""What was measured of each format, as text: a summary, then everything for each size of vector."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..compare.compare_report import title
from ..harness.machine import Environment
from ..harness.page import NOTHING, Page, Table, megabytes
from ..speed.report import describe
from .quality_languages import Cosines, Language, language_tables
from .quality_scores import NEIGHBOURS, Loss, Nearness, loss
from .quality_tasks import PUBLISHED, PUBLISHED_DIMENSION, Task

# The report's name of a number -> the attribute of Nearness
NEARNESS = {
    "cosine mean": "mean",
    "cosine 1st percentile": "first_percentile",
    "cosine min": "minimum",
    f"top-{NEIGHBOURS} overlap": "overlap",
    "similarity error": "similarity_error",
}


@dataclass(frozen=True)
class Quality:
    """What was measured of one format.

    Attributes:
        runtime, precision: as the report names them.
        bytes: of its files.
        nearness: to the golden vectors, by size of vector; empty if there are none.
        scores: by size of vector, (tasks, 1 + resamples) as resampled_scores gives them.
        languages: cosines to the reference, at the full size of vector.
    """

    runtime: str
    precision: str
    bytes: int
    nearness: dict[int, Nearness]
    scores: dict[int, npt.NDArray[np.float64]]
    languages: Cosines

    @property
    def title(self) -> str:
        """Its name in tables."""
        return f"{title(self.runtime)} {self.precision}"

    @property
    def full(self) -> int:
        """The largest size of vector that was measured."""
        return max(self.scores)


@dataclass(frozen=True)
class Found:
    """One run; `measured` has the float32 model first."""

    environment: Environment
    measured: Sequence[Quality]
    tasks: Sequence[Task]
    languages: Sequence[Language]
    notes: Sequence[str]


def page(found: Found, *, all_languages: bool = False) -> Page:
    """The report; the first format is what others are compared with."""
    measured, tasks = found.measured, found.tasks
    tables = [_summary(measured, tasks), *(_everything(measured, tasks, dim) for dim in measured[0].scores)]
    if tasks and len(measured) > 1:
        tables.append(_losses(measured, tasks))
    cosines = {one.title: one.languages for one in measured[1:]}
    tables += language_tables(found.languages, cosines, measured[0].title, everything=all_languages)
    return Page({"machine": describe(found.environment)}, tables, [*_notes(measured, tasks), *found.notes])


def frontier(measured: Sequence[Quality]) -> list[Quality]:
    """The formats that no other beats in both size and cosine, smallest first."""
    best: list[Quality] = []
    for one in sorted(measured, key=lambda one: (one.bytes, -one.nearness[one.full].mean)):
        if not best or one.nearness[one.full].mean > best[-1].nearness[one.full].mean:
            best.append(one)
    return best


def _summary(measured: Sequence[Quality], tasks: Sequence[Task]) -> Table:
    """One row a format, smallest first, at the full size of vector."""
    header = ["format", "MB", "cosine mean", "1st percentile", "min", "score", "loss", "95 % interval", "frontier"]
    best = frontier(measured) if measured[0].nearness else []
    rows = []
    for one in sorted(measured, key=lambda one: one.bytes):
        near = one.nearness.get(one.full)
        cosines = [_cosine(of) for of in (near.mean, near.first_percentile, near.minimum)] if near else [NOTHING] * 3
        score, lost = _mean(one, one.full) if tasks else NOTHING, [NOTHING] * 2
        if tasks and one is not measured[0]:
            loss_of_mean = _mean_loss(measured[0], one, one.full)
            lost = [f"{loss_of_mean.points:.2f}", _interval(loss_of_mean)]
        rows.append([one.title, megabytes(one.bytes), *cosines, score, *lost, "yes" if one in best else ""])
    return Table("Size and error", header, rows, left=1)


def _everything(measured: Sequence[Quality], tasks: Sequence[Task], dim: int) -> Table:
    """One row a measure, one column a format."""

    def row(name: str, cells: Iterable[str], published: str = NOTHING) -> list[str]:
        return [name, *([published] if dim == PUBLISHED_DIMENSION else []), *cells]

    rows = []
    if measured[0].nearness:
        for name, attribute in NEARNESS.items():
            rows.append(row(name, (_cosine(getattr(one.nearness[dim], attribute)) for one in measured)))
    for i, task in enumerate(tasks):
        published = f"{PUBLISHED[task.name]:.2f}" if task.name in PUBLISHED else NOTHING
        rows.append(row(task.name, (f"{one.scores[dim][i, 0]:.2f}" for one in measured), published))
    if tasks:
        lost = [_mean_loss(measured[0], one, dim) for one in measured[1:]]
        rows.append(row("mean", (_mean(one, dim) for one in measured)))
        rows.append(row("loss", (NOTHING, *(f"{one.points:.2f}" for one in lost))))
        rows.append(row("loss, 95 % interval", (NOTHING, *map(_interval, lost))))
    header = row("", (one.title for one in measured), "published")
    return Table(f"{dim} dimensions", header, rows, left=1)


def _cosine(value: float) -> str:
    return f"{value:.4f}"


def _mean(one: Quality, dim: int) -> str:
    return f"{one.scores[dim][:, 0].mean():.2f}"


def _interval(lost: Loss) -> str:
    return f"{lost.low:.2f} … {lost.high:.2f}"


def _losses(measured: Sequence[Quality], tasks: Sequence[Task]) -> Table:
    """One row a task, one column a format, at the full size of vector."""
    reference, *others = measured
    rows = []
    for i, task in enumerate(tasks):
        found = [loss(reference.scores[one.full][i], one.scores[one.full][i]) for one in others]
        rows.append([task.name, *(f"{one.points:.2f} ± {(one.high - one.low) / 2:.2f}" for one in found)])
    title = "Points lost, with half of the 95 % interval"
    return Table(title, ["", *(one.title for one in others)], rows, left=1)


def _mean_loss(reference: Quality, one: Quality, dim: int) -> Loss:
    """What the mean over all tasks loses."""
    return loss(reference.scores[dim].mean(axis=0), one.scores[dim].mean(axis=0))


def _notes(measured: Sequence[Quality], tasks: Sequence[Task]) -> list[str]:
    """How to read the tables."""
    notes = ["MB: of the files; only those of embgemma hold a tokenizer."]
    if len(measured) > 1:
        notes.append("languages: a short and a longer text of each, without a prompt, that calibration does not see.")
    if measured[0].nearness:
        notes.append(
            "cosine: to the golden float32 vectors; similarity error: mean distance of the cosines of two texts; "
            "frontier: no other format is both as small and as near."
        )
    if tasks:
        notes.append(
            f"score: mean over {len(tasks)} evaluation sets, 0 to 100; loss: points below {measured[0].title}, with "
            "the interval of a paired bootstrap over pairs, queries and texts."
        )
        notes.append(
            "published: of the checkpoint in full precision; for retrieval and bitext mining, with prompts of their "
            "own and not the checkpoint's."
        )
    return notes
