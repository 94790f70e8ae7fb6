"""`--plot`: a comparison as a picture: latency against length, and speed against error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..harness.table import MILLI
from ..peers import OURS
from .compare_report import TITLES

if TYPE_CHECKING:
    from pathlib import Path

    from .compare import Comparison

SIZE_INCHES = (13, 5.5)
DOTS_PER_INCH = 150
MEASURED_LENGTH = 128  # tokens at which speed is set against error: a usual passage
SMALLEST_ERROR = 1e-6  # errors below it are drawn there, since a logarithm has no zero


def write_plot(comparison: Comparison, path: Path) -> None:
    """Draws into `path`, whose suffix tells the format."""
    import matplotlib as mpl

    mpl.use("agg")  # draws into files and needs no screen
    from matplotlib import pyplot as plt

    figure, (by_length, by_error) = plt.subplots(1, 2, figsize=SIZE_INCHES, layout="constrained")
    _draw_latency(by_length, comparison)
    _draw_error(by_error, comparison)
    figure.suptitle(f"EmbeddingGemma-300M on {comparison.environment.cpu}, {comparison.threads} threads")
    figure.savefig(path, dpi=DOTS_PER_INCH)
    plt.close(figure)


def _draw_latency(axes: Any, comparison: Comparison) -> None:
    for one in comparison.contenders:
        points = [
            (tokens, MILLI * timing.median)
            for tokens, timing in zip(comparison.lengths, one.times, strict=True)
            if timing is not None
        ]
        style = {"linewidth": 2.5, "marker": "o"} if one.runtime == OURS else {"linewidth": 1, "linestyle": "--"}
        axes.plot(*zip(*points, strict=True), label=f"{TITLES[one.runtime]} {one.precision}", **style)
    axes.set(xscale="log", yscale="log", xlabel="tokens in one text", ylabel="milliseconds (median)")
    axes.set_xscale("log", base=2)
    axes.set_xticks(comparison.lengths, [str(tokens) for tokens in comparison.lengths])
    axes.legend(fontsize="x-small")
    axes.grid(alpha=0.3)


def _draw_error(axes: Any, comparison: Comparison) -> None:
    """Down is faster, left is more exact."""
    nearest = min(range(len(comparison.lengths)), key=lambda i: abs(comparison.lengths[i] - MEASURED_LENGTH))
    for one in comparison.contenders:
        timing = one.times[nearest]
        if timing is None:
            continue
        x, y = max(1 - one.exactness.mean, SMALLEST_ERROR), MILLI * timing.median
        axes.scatter(x, y, s=60 if one.runtime == OURS else 25)
        axes.annotate(
            f"{TITLES[one.runtime]} {one.precision}",
            (x, y),
            fontsize="x-small",
            xytext=(4, 4),
            textcoords="offset points",
        )
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="error: 1 - mean cosine to float32",
        ylabel=f"milliseconds at {comparison.lengths[nearest]} tokens",
    )
    axes.grid(alpha=0.3)
