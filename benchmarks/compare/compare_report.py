"""The page of a comparison."""

from __future__ import annotations

from ..harness.page import NOTHING, Page, Table, megabytes, milliseconds, whole
from ..harness.workload import BATCH_LENGTHS, MEMORY_LENGTH
from ..peers import OURS
from ..speed.report import describe
from .compare import Comparison, Measured

IN_TURN = "One text in one call, token ids in, unit vector out; medians, each runtime in turn with the first one."
WHAT_IS_MEASURED = (
    f"memory: private to the process after a text of {MEMORY_LENGTH} tokens, Python included, tokenizers not. "
    "tok/s: many texts of that length, at the runtime's best batch size."
)


def page(comparison: Comparison) -> Page:
    """The report."""
    baseline, *others = comparison.measured
    names, lengths = ("runtime", "format"), [f"{tokens:,}" for tokens in comparison.lengths]
    times = [
        (*_names(one), *(milliseconds(time.median if time else None) for time in one.times))
        for one in comparison.measured
    ]
    ratios = [(*_names(one), *(NOTHING if ratio is None else f"{ratio:.2f}" for ratio in one.ratios)) for one in others]
    rates = (f"tok/s at {tokens}" for tokens in BATCH_LENGTHS)
    rest = (*names, "load ms", "memory MB", *rates, "cosine mean", "min")
    return Page(
        {
            "machine": describe(comparison.environment),
            "threads": f"{comparison.threads}, the same for all; our ISA {comparison.isa}",
        },
        [
            Table("Milliseconds by tokens", [*names, *lengths], times, left=2),
            Table(
                f"Times the latency of {title(baseline.runtime)} {baseline.precision}", [*names, *lengths], ratios, 2
            ),
            Table("Throughput, memory, exactness", rest, [_rest(one) for one in comparison.measured], left=2),
        ],
        [IN_TURN, WHAT_IS_MEASURED, *comparison.notes],
    )


def title(runtime: str) -> str:
    """A runtime as readers know it."""
    return "embgemma" if runtime == OURS else runtime


def _names(one: Measured) -> tuple[str, str]:
    return title(one.runtime), one.precision


def _rest(one: Measured) -> tuple[str, ...]:
    return (
        *_names(one),
        milliseconds(one.load_seconds),
        megabytes(one.memory.private),
        *(whole(rate) for rate in one.throughputs),
        f"{one.exactness.mean:.4f}",
        f"{one.exactness.minimum:.4f}",
    )
