"""Pictures of a comparison: milliseconds against tokens, and milliseconds against error."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..harness.page import MILLI
from .compare import Comparison, Measured
from .compare_report import title
from .figure import EXACT, Named, name_line_ends, name_markers, picture, plain_ticks, style_of

SUBJECT = "EmbeddingGemma-300M"
USUAL_TOKENS = 128  # at which speed is set against error
MARGIN = 1.25  # factor between the outermost numbers and the ends of the axes


def write_plot(comparison: Comparison, path: Path) -> None:
    """All formats: by length on the left, beside their error on the right."""
    with picture(path, _title(comparison), comparison.environment, _facts(comparison), (14, 6.2), WIDE) as figure:
        by_length, by_error = figure.subplots(1, 2, gridspec_kw={"wspace": 0.62})
        _draw_latency(by_length, comparison, comparison.measured)
        _draw_error(by_error, comparison)


def write_latency(comparison: Comparison, path: Path) -> None:
    """The baseline, and the fastest format of every runtime, by length."""
    fastest = {one.runtime: one for one in sorted(comparison.measured, key=_typical, reverse=True)}
    chosen = [one for one in comparison.measured if one in (comparison.measured[0], fastest[one.runtime])]
    with picture(path, _title(comparison), comparison.environment, _facts(comparison), (8.6, 5), NARROW) as figure:
        _draw_latency(figure.subplots(), comparison, chosen)


WIDE, NARROW = {"left": 0.05, "right": 0.985}, {"left": 0.075, "right": 0.755}


def _title(comparison: Comparison) -> str:
    return f"One text through {SUBJECT} on {comparison.environment.cpu}"


def _facts(comparison: Comparison) -> str:
    return f"{comparison.threads} threads, {comparison.isa} · medians in turn"


def _times(comparison: Comparison, one: Measured) -> dict[int, float]:
    """Milliseconds by tokens, of what was timed."""
    times = zip(comparison.lengths, one.times, strict=True)
    return {tokens: MILLI * timing.median for tokens, timing in times if timing is not None}


def _typical(one: Measured) -> float:
    """How slow it is: the middle of its ratios to the baseline."""
    ratios = sorted(ratio for ratio in one.ratios if ratio is not None)
    return ratios[len(ratios) // 2] if ratios else float("inf")


def _draw_latency(axes: Any, comparison: Comparison, measured: Sequence[Measured]) -> None:
    ends = []
    for one in measured:
        if times := _times(comparison, one):
            axes.plot(list(times), list(times.values()), **style_of(one.runtime, one.precision))
            last = max(times)
            ends.append(Named(last, times[last], f"{title(one.runtime)} {one.precision}", one.runtime))
    axes.set_xscale("log")
    axes.set_xticks(comparison.lengths, [f"{tokens:,}" for tokens in comparison.lengths], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_xlabel("tokens in the text")
    _milliseconds(axes, "milliseconds, lower is better")
    axes.set_xlim(min(comparison.lengths), max(comparison.lengths))
    name_line_ends(axes, ends)


def _draw_error(axes: Any, comparison: Comparison) -> None:
    """Formats at the length nearest to USUAL_TOKENS; those as exact as float32 have no error to draw."""
    tokens = min(comparison.lengths, key=lambda tokens: abs(tokens - USUAL_TOKENS))
    marked = [
        Named(1 - one.exactness.mean, times[tokens], f"{title(one.runtime)} {one.precision}", one.runtime)
        for one in comparison.measured
        if tokens in (times := _times(comparison, one)) and 1 - one.exactness.mean > EXACT
    ]
    axes.set_xscale("log")
    axes.set_xlabel("error: 1 − mean cosine to float32 (left is nearer; float32 itself is not drawn)")
    _milliseconds(axes, f"milliseconds at {tokens} tokens, lower is better")
    if marked:
        axes.set_xlim(min(one.x for one in marked) / MARGIN, max(one.x for one in marked) * MARGIN)
        axes.set_ylim(min(one.y for one in marked) / MARGIN, max(one.y for one in marked) * MARGIN)
    plain_ticks(axes.xaxis)
    name_markers(axes, marked)


def _milliseconds(axes: Any, label: str) -> None:
    axes.set_yscale("log")
    plain_ticks(axes.yaxis)
    axes.set_title(label, loc="left", fontsize="medium")
