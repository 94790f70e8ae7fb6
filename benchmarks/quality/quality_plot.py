"""`--plot`: file size against error, as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..compare.plot import DOTS_PER_INCH, SMALLEST_ERROR
from ..harness.table import MEGA
from ..peers import OURS
from .quality_report import frontier

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .quality_report import Quality

SIZE_INCHES = (7, 5)


def write_plot(measured: Sequence[Quality], path: Path) -> None:
    """Draws formats that have golden cosines into `path`, whose suffix tells the kind of picture."""
    import matplotlib as mpl

    mpl.use("agg")  # draws into files and needs no screen
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=SIZE_INCHES, layout="constrained")
    for number, one in enumerate(sorted(measured, key=lambda one: _point(one)[1])):
        axes.scatter(*_point(one), s=60 if one.runtime == OURS else 25, marker="o" if one.runtime == OURS else "s")
        above = number % 2 == 0  # names of formats that are about as near would cover each other
        place = {"xytext": (4, 4 if above else -4), "va": "bottom" if above else "top"}
        axes.annotate(one.title, _point(one), fontsize="x-small", textcoords="offset points", **place)
    axes.plot(*zip(*map(_point, frontier(measured)), strict=True), linewidth=0.8, linestyle="--", color="grey")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="size of the files, MB",
        ylabel="error: 1 - mean cosine to float32",
        title="Left is smaller, down is nearer",
    )
    for ticks in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        ticks("{x:.0f}")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=DOTS_PER_INCH)
    plt.close(figure)


def _point(one: Quality) -> tuple[float, float]:
    """Size and error."""
    return one.bytes / MEGA, max(1 - one.nearness[one.full].mean, SMALLEST_ERROR)
