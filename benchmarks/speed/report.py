"""The page of a run on our own runtime."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from statistics import median

from ..harness.machine import Environment, Limits
from ..harness.page import GIGA, NOTHING, TERA, Page, Table, megabytes, milliseconds, percent, whole
from .result import Result, Row

# How the environment names the packages.
TITLES = {"numpy": "NumPy"}
USUAL_TOKENS = 128  # of the text that the summary is about

ROW: dict[str, Callable[[Row], str]] = {
    "texts x tokens": lambda row: f"{row.shape.texts} x {row.shape.tokens}",
    "median ms": lambda row: milliseconds(row.timing.median if row.timing else None),
    "p95 ms": lambda row: milliseconds(row.timing.p95 if row.timing else None),
    "spread": lambda row: percent(row.timing.spread if row.timing else None),
    "calls": lambda row: str(row.timing.calls) if row.timing else "left out",
    "tokens/s": lambda row: whole(row.tokens_per_second),
    "floor ms": lambda row: milliseconds(row.floor.seconds if row.floor else None),
    "of limit": lambda row: percent(row.share_of_limit),
    "limit": lambda row: row.floor.bound if row.floor else NOTHING,
}
MEMORY_HEADER = ("", "resident", "private", "anonymous", "peak so far")


def page(result: Result) -> Page:
    """The report."""
    memory = [(one.name, *map(megabytes, dataclasses.astuple(one.memory))) for one in result.memory]
    return Page(
        {
            "model": f"{result.model}, {result.scheme}, {megabytes(result.file_bytes)} MB",
            "embedding table": result.table,
            "engine": describe_engine(result.facts),
            "machine": describe(result.environment),
            "limits": describe_limits(result.limits) if result.limits else result.limits_note,
            "load": f"{milliseconds(median(result.load_seconds))} ms (median of {len(result.load_seconds)} fresh "
            f"processes); the first text takes {milliseconds(result.first_seconds)} ms",
        },
        [
            Table.of("One text in one call", result.latencies, ROW),
            Table.of("Many texts in one call", result.batches, ROW),
            Table("Memory of the process, MB", MEMORY_HEADER, memory, left=1),
        ],
        result.notes,
        summary=_summary(result),
    )


def describe(environment: Environment) -> str:
    """The machine in one line."""
    versions = ", ".join(f"{TITLES.get(name, name)} {number}" for name, number in environment.versions.items())
    cores = f"{environment.cores} cores"
    if environment.logical_cores != environment.cores:
        cores += f" ({environment.logical_cores} logical)"
    return f"{environment.cpu}, {cores}, {environment.system} {environment.machine}, {versions}"


def describe_engine(facts: dict[str, str | int]) -> str:
    """Backend, instruction set and threads in one line."""
    return f"{facts['backend']} backend, ISA {facts['isa']}, {facts['threads']} threads"


def describe_limits(limits: Limits) -> str:
    """The machine's limits in one line."""
    return (
        f"8-bit multiply {limits.macs_per_second / TERA:.2f} TMAC/s, "
        f"memory read {limits.bytes_per_second / GIGA:.1f} GB/s (measured now, same threads)"
    )


def _summary(result: Result) -> str:
    """The usual text, or the nearest to it that was timed: time, rate, memory, share of the limit."""
    timed = [row for row in result.latencies if row.timing]
    if not timed:
        return ""
    row = min(timed, key=lambda row: abs(row.shape.tokens - USUAL_TOKENS))
    tokens = row.shape.tokens
    rates = [one.tokens_per_second for one in (row, *result.batches) if one.tokens_per_second]
    parts = [f"{milliseconds(row.timing.median if row.timing else None)} ms"]
    parts.append(f"{whole(max(rates) / tokens)} texts a second")
    parts += [f"{megabytes(one.memory.resident)} MB" for one in result.memory if one.memory.resident and one.after_text]
    share = f" — {percent(row.share_of_limit)} of what this CPU can do" if row.floor else ""
    return f"{tokens} tokens: {', '.join(parts)}{share}"
