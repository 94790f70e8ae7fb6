"""A result as text for a terminal, as Markdown for the README, or as JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from statistics import median
from typing import TYPE_CHECKING

from ..harness.table import GIGA, NOTHING, TERA, megabytes, milliseconds, percent, table, whole

if TYPE_CHECKING:
    from ..harness.machine import Environment, Limits
    from .result import Result, Row

WIDTH = 100  # columns of a terminal

# How the environment names the packages.
TITLES = {"numpy": "NumPy"}


def to_json(result: Result) -> str:
    """Everything, with times in seconds and sizes in bytes; derived columns of the text report included."""

    def row(row: Row) -> dict[str, object]:
        derived = {"tokens_per_second": row.tokens_per_second, "share_of_limit": row.share}
        return {**dataclasses.asdict(row), **derived}

    latencies = [row(one) for one in result.latencies]
    batches = [row(one) for one in result.batches]
    return json.dumps({**dataclasses.asdict(result), "latencies": latencies, "batches": batches}, indent=2)


def to_text(result: Result, markdown: bool = False) -> str:
    """The report, at most WIDTH columns wide where it is for a terminal."""
    parts = [
        _heading(result, markdown),
        section("One text in one call", _rows(result.latencies, markdown), markdown),
        section("Many texts in one call", _rows(result.batches, markdown), markdown),
        section("Memory of the process, MB", _memory(result, markdown), markdown),
        "\n".join(entry("- ", note, markdown) for note in result.notes),
    ]
    return "\n\n".join(part for part in parts if part)


def describe(environment: Environment) -> str:
    """The machine in one line."""
    versions = ", ".join(f"{TITLES.get(name, name)} {number}" for name, number in environment.versions.items())
    cores = f"{environment.cores} cores"
    if environment.logical_cores != environment.cores:
        cores += f" ({environment.logical_cores} logical)"
    return f"{environment.cpu}, {cores}, {environment.system} {environment.machine}, {versions}"


def _heading(result: Result, markdown: bool) -> str:
    facts, loads = result.facts, result.load_seconds
    limits = result.limits_note
    if result.limits is not None:
        limits = describe_limits(result.limits)
    lines = {
        "model": f"{result.model}, {result.scheme}, {megabytes(result.file_bytes)} MB",
        "engine": f"{facts['backend']} backend, ISA {facts['isa']}, {facts['threads']} threads",
        "machine": describe(result.environment),
        "limits": limits,
        "load": f"{milliseconds(median(loads))} ms (median of {len(loads)} fresh processes)",
    }
    width = max(map(len, lines))
    starts = {name: f"- {name}: " if markdown else f"{name.ljust(width)}  " for name in lines}
    return "\n".join(entry(starts[name], text, markdown) for name, text in lines.items())


def describe_limits(limits: Limits) -> str:
    """The machine's limits in a line."""
    return (
        f"8-bit multiply {limits.macs_per_second / TERA:.2f} TMAC/s, "
        f"memory read {limits.bytes_per_second / GIGA:.1f} GB/s (measured now, same threads)"
    )


def entry(start: str, text: str, markdown: bool) -> str:
    """A line of a list, wrapped for a terminal."""
    return start + text if markdown else textwrap.fill(start + text, WIDTH, subsequent_indent=" " * len(start))


def section(title: str, body: str, markdown: bool) -> str:
    """A table under its title; nothing where there is no table."""
    if not body:
        return ""
    return f"**{title}**\n\n{body}" if markdown else f"{title}\n{body}"


def _rows(rows: list[Row], markdown: bool) -> str:
    if not rows:
        return ""
    header = ("texts x tokens", "median ms", "p95 ms", "spread", "calls", "tokens/s", "floor ms", "of limit", "limit")
    cells = [(f"{row.shape.texts} x {row.shape.tokens}", *_time_cells(row), *_floor_cells(row)) for row in rows]
    return table(header, cells, markdown)


def _time_cells(row: Row) -> tuple[str, str, str, str, str]:
    timing = row.timing
    if timing is None:
        return NOTHING, NOTHING, NOTHING, "left out", NOTHING
    return (
        milliseconds(timing.median),
        milliseconds(timing.p95),
        percent(timing.spread),
        str(timing.calls),
        whole(row.tokens_per_second),
    )


def _floor_cells(row: Row) -> tuple[str, str, str]:
    floor = row.floor
    if floor is None:
        return NOTHING, NOTHING, NOTHING
    return milliseconds(floor.seconds), percent(row.share), floor.bound


def _memory(result: Result, markdown: bool) -> str:
    rows = [
        (stage.name, megabytes(stage.memory.private), megabytes(stage.memory.anonymous), megabytes(stage.memory.peak))
        for stage in result.memory
    ]
    return table(("", "private", "of it anonymous", "peak so far"), rows, markdown, left=1)
