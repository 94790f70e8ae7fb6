"""The page of a roofline."""

from __future__ import annotations

from ..harness.operations import TITLES
from ..harness.page import GIGA, MEGA, NOTHING, Page, Table, milliseconds, percent
from ..speed.report import describe, describe_engine, describe_limits
from .roofline import Length, Part, Roofline

WHAT_FLOOR_MEANS = (
    "floor: reading the weights once or doing all multiplications at the measured rates, whichever takes longer (the "
    "limit); of limit: floor / time. Activations are in caches and count as no bytes."
)
WHAT_ATTENTION_COUNTS = (
    "Attention multiplies 16-bit numbers, which its own floor takes into "
    "account; that of the whole call has all multiplications at the 8-bit rate."
)
WHAT_IS_TIMED = (
    "ms of an operation: mean over the threads, in the middle half of calls in which operations were timed. outside: "
    "what they leave of the call: Python, waking the threads, waiting for the last one."
)
WHAT_ELSE = (
    "scaling: median with one thread over median, in turn. CPU after: processor time of the process in half a second "
    "after a call."
)
NOTES = (WHAT_FLOOR_MEANS, WHAT_ATTENTION_COUNTS, WHAT_IS_TIMED, WHAT_ELSE)


def page(roofline: Roofline) -> Page:
    """The report."""
    return Page(
        {
            "model": f"{roofline.model}, {roofline.scheme}",
            "engine": describe_engine(roofline.facts),
            "machine": describe(roofline.environment),
            "limits": describe_limits(roofline.limits),
        },
        [_overview(roofline.lengths), *map(_operations, roofline.lengths)],
        NOTES,
    )


def _overview(lengths: list[Length]) -> Table:
    header = ("tokens", "median ms", "floor ms", "of limit", "limit", "1 thread ms", "scaling", "CPU after ms")
    rows = [
        (
            f"{one.tokens:,}",
            milliseconds(one.timing.median),
            milliseconds(one.floor.seconds),
            percent(one.floor.seconds / one.timing.median),
            one.floor.bound,
            milliseconds(one.one_thread.median if one.one_thread else None),
            f"{one.scaling:.2f}" if one.scaling else NOTHING,
            milliseconds(one.idle),
        )
        for one in lengths
    ]
    return Table("What bounds one text in one call", header, rows)


def _operations(length: Length) -> Table:
    header = ("operation", "ms", "share", "weights MB", "GMAC", "floor ms", "of limit", "limit")
    whole = (
        ("outside", milliseconds(length.outside), percent(length.outside / length.profiled), *[NOTHING] * 5),
        ("the call, operations timed", milliseconds(length.profiled), percent(1), *[NOTHING] * 5),
        ("the call, median, not timed", milliseconds(length.timing.median), *[NOTHING] * 6),
    )
    rows = [*(_row(part, length.profiled) for part in length.parts), *whole]
    return Table(f"Operations at {length.tokens:,} tokens", header, rows, left=1)


def _row(part: Part, whole: float) -> tuple[str, ...]:
    name, seconds = TITLES[part.name], part.seconds
    if part.floor is None:
        return name, milliseconds(seconds), percent(seconds / whole), *[NOTHING] * 5
    return (
        name,
        milliseconds(seconds),
        percent(seconds / whole),
        f"{part.work.weight_bytes / MEGA:.1f}" if part.work.weight_bytes else NOTHING,
        f"{part.work.macs / GIGA:.2f}" if part.work.macs else NOTHING,
        milliseconds(part.floor.seconds),
        percent(part.floor.seconds / seconds),
        part.floor.bound,
    )
