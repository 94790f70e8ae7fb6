"""What was measured of each format, as text: a summary, then everything for each size of vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..compare.compare_report import title
from ..harness.machine import Environment
from ..harness.page import NOTHING, Page, Table, megabytes
from ..speed.report import describe
from .quality_scores import NEIGHBOURS, Loss, Nearness, loss
from .quality_tasks import PUBLISHED, PUBLISHED_DIMENSION, Task


@dataclass(frozen=True)
class Quality:
    """What was measured of one format.

    Attributes:
        runtime, precision: as the report names them.
        bytes: of its files.
        nearness: to the golden vectors, by size of vector; empty if there are none.
        scores: by size of vector, (tasks, 1 + resamples) as resampled_scores gives them.
    """

    runtime: str
    precision: str
    bytes: int
    nearness: dict[int, Nearness]
    scores: dict[int, npt.NDArray[np.float64]]

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
    notes: Sequence[str]


def page(found: Found) -> Page:
    """The report; the first format is what others are compared with."""
    measured, tasks = found.measured, found.tasks
    tables = [_summary(measured, tasks), *(_everything(measured, tasks, dim) for dim in measured[0].scores)]
    if tasks and len(measured) > 1:
        tables.append(_losses(measured, tasks))
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
        cosines = [near.mean, near.first_percentile, near.minimum] if near else []
        row = [
            one.title,
            megabytes(one.bytes),
            *(f"{cosine:.4f}" for cosine in cosines),
            *[NOTHING] * (3 - len(cosines)),
        ]
        row.append(f"{one.scores[one.full][:, 0].mean():.2f}" if tasks else NOTHING)
        if tasks and one is not measured[0]:
            lost = _mean_loss(measured[0], one, one.full)
            row += [f"{lost.points:.2f}", f"{lost.low:.2f} … {lost.high:.2f}"]
        else:
            row += [NOTHING, NOTHING]
        rows.append([*row, "yes" if one in best else ""])
    return Table("Size and error", header, rows, left=1)


def _everything(measured: Sequence[Quality], tasks: Sequence[Task], dim: int) -> Table:
    """One row a measure, one column a format."""
    with_published = dim == PUBLISHED_DIMENSION
    header = ["", *(["published"] if with_published else []), *(one.title for one in measured)]
    rows = []
    if measured[0].nearness:
        of_dim = [one.nearness[dim] for one in measured]
        for name, numbers in (
            ("cosine mean", [near.mean for near in of_dim]),
            ("cosine 1st percentile", [near.first_percentile for near in of_dim]),
            ("cosine min", [near.minimum for near in of_dim]),
            (f"top-{NEIGHBOURS} overlap", [near.overlap for near in of_dim]),
            ("similarity error", [near.similarity_error for near in of_dim]),
        ):
            rows.append([name, *([NOTHING] if with_published else []), *(f"{number:.4f}" for number in numbers)])
    for i, task in enumerate(tasks):
        published = f"{PUBLISHED[task.name]:.2f}" if task.name in PUBLISHED else NOTHING
        rows.append(
            [task.name, *([published] if with_published else []), *(f"{one.scores[dim][i, 0]:.2f}" for one in measured)]
        )
    if tasks:
        empty = [NOTHING] if with_published else []
        rows.append(["mean", *empty, *(f"{one.scores[dim][:, 0].mean():.2f}" for one in measured)])
        lost = [_mean_loss(measured[0], one, dim) for one in measured[1:]]
        rows.append(["loss", *empty, NOTHING, *(f"{one.points:.2f}" for one in lost)])
        rows.append(["loss, 95 % interval", *empty, NOTHING, *(f"{one.low:.2f} … {one.high:.2f}" for one in lost)])
    return Table(f"{dim} dimensions", header, rows, left=1)


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
