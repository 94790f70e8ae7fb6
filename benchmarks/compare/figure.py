"""The style of all pictures: one colour a runtime, one line style a format, names beside what they name."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..harness.machine import Environment
from ..peers import OURS

# Ours is strong, the others are muted.
COLOURS = {
    OURS: "#1d4ed8",
    "embgemma-onnx": "#38a3d1",
    "onnxruntime": "#9a6fb0",
    "openvino": "#4f9d86",
    "llama-cpp": "#b98a4f",
    "sentence-transformers": "#8b8f97",
}
STYLES = {
    "int8": "-",
    "Q8_0": "-",
    "int4": "--",
    "Q4_0": "--",
    "mixed": "-.",
    "balanced": (0, (6, 1.5, 1, 1.5, 1, 1.5)),
}
FLOAT_STYLE = ":"
INK, PALE, GRID = "#1f2328", "#6b7280", "#e5e7eb"
DOTS_PER_INCH = 150
SMALL, MEDIUM, LARGE = 8, 9, 13  # points, of letters

EDGE_INCHES, TITLE_INCHES, CAPTION_INCHES = 0.15, 0.72, 0.75
LINE_PARTS = 80  # in which a straight piece of a line is kept clear of names
MARKER_REACH = 5  # points from the middle of a marker, which nothing may cover
NAME_GAP = 11  # points between the middles of two names at line ends
EDGE_GAP = 16  # points between the frame and the names at line ends
STEPS = (7, 12, 22, 34, 48)  # points from a marker, at which a place for its name is tried
DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
EXACT = 1e-6  # an error below it is that of float32 itself; a logarithm has no place for it


class Named(NamedTuple):
    """A point and what stands beside it."""

    x: float
    y: float
    text: str
    runtime: str


def style_of(runtime: str, precision: str) -> dict[str, Any]:
    """Colour and style of a line."""
    ours = runtime == OURS
    style = STYLES.get(precision, "-" if precision.startswith("int8") else FLOAT_STYLE)
    width, size, order = (2.2, 4.5, 3) if ours else (1.2, 3, 2)
    shape = {"linestyle": style, "linewidth": width, "marker": "o", "markersize": size, "clip_on": False}
    return {"color": COLOURS[runtime], "zorder": order, **shape}


@contextmanager
def picture(
    path: Path, title: str, environment: Environment, facts: str, inches: tuple[float, float], margins: dict[str, float]
) -> Iterator[Any]:
    """Gives a figure to draw in, under a title and over a caption; then writes a file of the kind of its suffix.

    Args:
        path: of the file.
        title, facts: the caption is machine, facts, version and date.
        environment: of the measurement.
        inches: width and height.
        margins: left and right of the frame in parts of the width, as subplots_adjust takes them.
    """
    import matplotlib as mpl

    mpl.use("agg")  # draws into files and needs no screen
    from matplotlib import pyplot as plt

    settings: Any = {
        "font.size": MEDIUM,
        "font.family": "sans-serif",
        "font.sans-serif": ["Helvetica Neue", "Helvetica", "Arial", "DejaVu Sans"],
        "svg.fonttype": "none",  # letters stay letters: small, and readable by machines
        "svg.hashsalt": title,  # the same picture is the same file
        "axes.axisbelow": True,
        "axes.grid": True,
        **dict.fromkeys(("text.color", "axes.labelcolor"), INK),
        **dict.fromkeys(("xtick.labelcolor", "ytick.labelcolor"), PALE),
        **dict.fromkeys(("axes.edgecolor", "grid.color"), GRID),
        **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 0),
        **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
    }
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # says which of the fonts are missing
    version, day = environment.versions["embgemma"], dt.datetime.now(dt.timezone.utc)
    machine = f"{environment.cpu}, {environment.cores} cores"
    with plt.rc_context(settings):
        figure = plt.figure(figsize=inches)
        figure.subplots_adjust(top=1 - TITLE_INCHES / inches[1], bottom=CAPTION_INCHES / inches[1], **margins)
        edge = EDGE_INCHES / inches[0]
        figure.text(edge, 1 - EDGE_INCHES / inches[1], title, fontsize=LARGE, fontweight="bold", va="top")
        caption = f"{machine} · {facts} · embgemma {version} · {day:%Y-%m-%d}"
        figure.text(edge, EDGE_INCHES / inches[1], caption, fontsize=SMALL, color=PALE)
        yield figure
        figure.savefig(path, dpi=DOTS_PER_INCH, metadata={"Date": None} if path.suffix == ".svg" else None)
        plt.close(figure)


def plain_ticks(axis: Any) -> None:
    """1, 2 and 5 of every decade of a logarithmic axis, as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(10, (1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10f}".rstrip("0").rstrip(".")))
    axis.set_minor_locator(NullLocator())


def name_line_ends(axes: Any, ends: Sequence[Named]) -> None:
    """Writes names right of the frame at the height of the lines' ends, spread so that none covers another."""
    points = 72 / axes.get_figure().dpi
    own = {end: float(axes.transData.transform((end.x, end.y))[1]) * points for end in ends}
    ordered = sorted(ends, key=own.__getitem__)
    top = [axes.bbox.y1 * points - NAME_GAP * i for i in reversed(range(len(ends)))]  # none stands over the frame
    wanted = [min(own[end], highest) for end, highest in zip(ordered, top, strict=True)]
    for end, height in zip(ordered, spread(wanted, NAME_GAP), strict=True):
        axes.annotate(
            end.text,
            (end.x, end.y),
            xytext=(axes.bbox.x1 * points + EDGE_GAP, height),
            textcoords="figure points",
            va="center",
            annotation_clip=False,
            arrowprops=_leader(end.runtime),
            **_letters(end.runtime),
        )


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Rising heights moved apart, by the least sum of squares, until each is `gap` over the one before."""
    groups: list[tuple[float, int]] = []  # isotonic regression: the middle of neighbours that touch, and their number
    for i, height in enumerate(heights):
        mean, count = height - gap * i, 1
        while groups and groups[-1][0] >= mean:
            before, number = groups.pop()
            mean, count = (mean * count + before * number) / (count + number), count + number
        groups.append((mean, count))
    means = [mean for mean, count in groups for _ in range(count)]
    return [mean + gap * i for i, mean in enumerate(means)]


def name_markers(axes: Any, marked: Sequence[Named], line: Sequence[tuple[float, float]] = ()) -> None:
    """Draws markers, and each name as near to its marker as it can stand without covering a name, a marker or a line.

    The line is the one through these points, which is drawn already.
    """
    from matplotlib.transforms import Bbox

    figure = axes.get_figure()
    for one in marked:
        axes.scatter(one.x, one.y, s=60 if one.runtime == OURS else 32, color=COLOURS[one.runtime], zorder=3)
    figure.canvas.draw()
    pixels = figure.dpi / 72
    points = {one: axes.transData.transform((one.x, one.y)) for one in marked}
    reach = MARKER_REACH * pixels
    corners = [axes.transData.transform(point) for point in line]
    along = [a + (b - a) * i / LINE_PARTS for a, b in pairwise(corners) for i in range(LINE_PARTS)]
    taken = [Bbox([point, point]).padded(reach) for point in points.values()]
    taken += [Bbox([point, point]).padded(pixels) for point in along]
    for one in sorted(marked, key=lambda one: one.runtime != OURS):
        name = axes.text(one.x, one.y, one.text, va="bottom", **_letters(one.runtime))
        box = name.get_window_extent()
        width, height, (x, y) = box.width, box.height, points[one]
        for step, (right, up) in product(STEPS, DIRECTIONS):
            left = x + step * pixels * right + (right - 1) * width / 2
            low = y + step * pixels * up + (up - 1) * height / 2
            place = Bbox.from_bounds(left, low, width, height)
            inside = np.array_equal(Bbox.union([place, axes.bbox]).extents, axes.bbox.extents)
            if inside and not place.count_overlaps(taken):
                break
        taken.append(place)
        name.set_position(axes.transData.inverted().transform(place.p0))
        if step > STEPS[0]:
            middle = axes.transData.inverted().transform((left + (1 - right) * width / 2, low + (1 - up) * height / 2))
            axes.annotate("", (one.x, one.y), xytext=middle, arrowprops=_leader(one.runtime))


def _letters(runtime: str) -> dict[str, Any]:
    ours = runtime == OURS
    weight = "bold" if ours else "normal"
    return {"color": COLOURS[runtime], "fontsize": MEDIUM if ours else SMALL, "fontweight": weight}


def _leader(runtime: str) -> dict[str, Any]:
    """A thin line from a name to what it names."""
    line = {"arrowstyle": "-", "color": COLOURS[runtime], "linewidth": 0.5, "alpha": 0.6}
    return {**line, "shrinkA": 1, "shrinkB": 2, "relpos": (0, 0.5)}
