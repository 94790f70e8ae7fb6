"""A comparison as text for a terminal, as Markdown for the README, or as JSON for programs."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from ..harness.table import NOTHING, megabytes, milliseconds, table, whole
from ..harness.workload import BATCH_LENGTHS, MEMORY_LENGTH
from ..peers import OURS, PEERS
from ..speed.report import describe, entry, section

if TYPE_CHECKING:
    from .compare import Comparison, Contender

# Module of a peer -> its name in the report.
TITLES = {OURS: "embgemma", **{module: name for name, module in PEERS.items()}}


def to_json(comparison: Comparison) -> str:
    """Everything, with times in seconds and sizes in bytes."""
    return json.dumps(dataclasses.asdict(comparison), indent=2)


def to_text(comparison: Comparison, markdown: bool = False) -> str:
    """The report."""
    lengths = [f"{tokens:,}" for tokens in comparison.lengths]
    baseline, *others = comparison.contenders
    head = {
        "machine": describe(comparison.environment),
        "threads": f"{comparison.threads}, the same for all; our ISA {comparison.isa}",
    }
    times = [
        (*_names(one), *(NOTHING if time is None else milliseconds(time.median) for time in one.times))
        for one in comparison.contenders
    ]
    ratios = [(*_names(one), *(NOTHING if ratio is None else f"{ratio:.2f}" for ratio in one.ratios)) for one in others]
    rest = [_rest(one) for one in comparison.contenders]
    rest_header = [
        *("runtime", "format", "load ms", "memory MB"),
        *(f"tok/s at {tokens}" for tokens in BATCH_LENGTHS),
        *("cosine mean", "min"),
    ]
    in_turn = "One text in one call, token ids in, unit vector out; medians, each runtime in turn with the first one."
    measured = (
        f"memory: private to the process after a text of {MEMORY_LENGTH} tokens, Python included, tokenizers not. "
        "tok/s: many texts of that length, at the runtime's best batch size."
    )
    notes = [in_turn, measured, *comparison.notes]
    parts = [
        "\n".join(entry(f"- {name}: " if markdown else f"{name:9}", text, markdown) for name, text in head.items()),
        section("Milliseconds by tokens", table(["runtime", "format", *lengths], times, markdown, left=2), markdown),
        section(
            f"Times the latency of {' '.join(_names(baseline))}",
            table(["runtime", "format", *lengths], ratios, markdown, left=2),
            markdown,
        ),
        section("Throughput, memory, exactness", table(rest_header, rest, markdown, left=2), markdown),
        "\n".join(entry("- ", note, markdown) for note in notes),
    ]
    return "\n\n".join(parts)


def _names(contender: Contender) -> tuple[str, str]:
    return TITLES[contender.runtime], contender.precision


def _rest(one: Contender) -> tuple[str, ...]:
    return (
        *_names(one),
        milliseconds(one.load_seconds),
        megabytes(one.memory.private),
        *(whole(rate) for rate in one.throughputs),
        f"{one.exactness.mean:.4f}",
        f"{one.exactness.minimum:.4f}",
    )
