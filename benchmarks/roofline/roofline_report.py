"""The page of a roofline."""

from __future__ import annotations

from collections.abc import Callable

from ..harness.operations import TITLES
from ..harness.page import GIGA, MEGA, NOTHING, Page, Table, milliseconds, percent
from ..speed.report import describe, describe_engine, describe_limits
from ..speed.result import DISTURBED, MOST_SHARE
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


OVERVIEW: dict[str, Callable[[Length], str]] = {
    "tokens": lambda one: f"{one.tokens:,}",
    "median ms": lambda one: milliseconds(one.timing.median),
    "floor ms": lambda one: milliseconds(one.floor.seconds),
    "of limit": lambda one: percent(one.share_of_limit),
    "limit": lambda one: one.floor.bound,
    "1 thread ms": lambda one: milliseconds(one.one_thread.median if one.one_thread else None),
    "scaling": lambda one: f"{one.scaling:.2f}" if one.scaling else NOTHING,
    "CPU after ms": lambda one: milliseconds(one.idle),
}


def page(roofline: Roofline) -> Page:
    """The report."""
    return Page(
        {
            "model": f"{roofline.model}, {roofline.scheme}",
            "engine": describe_engine(roofline.facts),
            "machine": describe(roofline.environment),
            "limits": describe_limits(roofline.limits),
        },
        [Table.of("What bounds one text in one call", roofline.lengths, OVERVIEW), *map(_operations, roofline.lengths)],
        (*NOTES, DISTURBED) if any(one.share_of_limit >= MOST_SHARE for one in roofline.lengths) else NOTES,
    )


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
    time = TITLES[part.name], milliseconds(part.seconds), percent(part.seconds / whole)
    if part.floor is None:
        return *time, *[NOTHING] * 5
    size = f"{part.work.weight_bytes / MEGA:.1f}" if part.work.weight_bytes else NOTHING
    macs = f"{part.work.macs / GIGA:.2f}" if part.work.macs else NOTHING
    floor = part.floor.seconds
    return *time, size, macs, milliseconds(floor), percent(floor / part.seconds), part.floor.bound
