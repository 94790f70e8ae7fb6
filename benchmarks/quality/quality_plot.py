"""The picture of all formats: error against the size of their files."""

from __future__ import annotations

from pathlib import Path

from ..compare.figure import EXACT, PALE, Named, name_markers, picture, plain_ticks
from ..harness.page import MEGA
from .quality_report import Found, Quality, frontier

INCHES, MARGINS = (9, 5.6), {"left": 0.085, "right": 0.98}
MARGIN = 1.5  # factor between the outermost errors and the ends of the axis
ROOM = 0.12  # of the range of sizes, left free on both sides


def write_plot(found: Found, path: Path) -> None:
    """Draws formats that have golden cosines; those as exact as float32 have no error to draw."""
    drawn = [one for one in found.measured if one.nearness and _error(one) > EXACT]
    marked = [Named(one.bytes / MEGA, _error(one), one.title, one.runtime) for one in drawn]
    title = "What each format of EmbeddingGemma-300M costs in exactness"
    with picture(path, title, found.environment, "float32 itself is not drawn", INCHES, MARGINS) as figure:
        axes = figure.subplots()
        axes.set_yscale("log")
        axes.set_title("error: 1 − mean cosine to float32, lower is nearer", loc="left", fontsize="medium")
        axes.set_xlabel("megabytes of files, left is smaller")
        best = [(one.bytes / MEGA, _error(one)) for one in frontier(drawn)]
        if marked:
            sizes, errors = [one.x for one in marked], [one.y for one in marked]
            room = ROOM * (max(sizes) - min(sizes) or max(sizes))
            axes.set(xlim=(min(sizes) - room, max(sizes) + room), ylim=(min(errors) / MARGIN, max(errors) * MARGIN))
            axes.plot(*zip(*best, strict=True), color=PALE, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
        plain_ticks(axes.yaxis)
        name_markers(axes, marked, best)


def _error(one: Quality) -> float:
    return 1 - one.nearness[one.full].mean
