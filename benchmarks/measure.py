"""Timing: every cell is warmed up, then all take turns until the time is spent; medians are reported.

Taking turns matters more than the number of calls: a slow minute of the machine then falls on all cells alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

WARM_UP_CALLS = 2  # the first call allocates and faults pages in; the second still trains branches and caches
VISIT_SECONDS = 0.03  # calls shorter than this are repeated within one turn, so that turns cost more than switching
MAX_CALLS_PER_VISIT = 8
MIN_ROUNDS = 3
MAX_ROUNDS = 200

# A call that is expected to take more than this share of the whole budget is left out.
MAX_SHARE_OF_BUDGET = 0.1

TimeCalls = Callable[[int], "list[float]"]  # number of calls -> seconds of each


@dataclass(frozen=True)
class Timing:
    """Seconds of one call, over `calls` calls; `spread` is the interquartile range over the median."""

    median: float
    p95: float
    spread: float
    calls: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        """Summarises at least one measurement."""
        low, median, high, p95 = np.quantile(seconds, (0.25, 0.5, 0.75, 0.95))
        return cls(float(median), float(p95), float((high - low) / median), len(seconds))


@dataclass(frozen=True)
class Cell:
    """One thing to time. `work` is in any unit that grows with time, equal for cells of one `group`."""

    time_calls: TimeCalls
    work: float
    group: str


@dataclass(frozen=True)
class Budget:
    """How long to measure: about `seconds`, or exactly `repeats` calls of every cell where given."""

    seconds: float
    repeats: int | None = None


def measure_in_turn(cells: Sequence[Cell], budget: Budget) -> list[Timing | None]:
    """Times all cells, in turn; None for one whose single call would take too much of the budget.

    Cells of a group must come in order of rising work: the time of one predicts that of the next.
    """
    expected = [0.0] * len(cells)
    last: dict[str, tuple[float, float]] = {}  # group -> seconds and work of its last cell that ran
    too_slow: set[int] = set()
    for i, cell in enumerate(cells):
        if cell.group in last and budget.repeats is None:
            seconds, work = last[cell.group]
            if seconds * cell.work / work > MAX_SHARE_OF_BUDGET * budget.seconds:
                too_slow.add(i)
                continue
        expected[i] = cell.time_calls(WARM_UP_CALLS)[-1]
        last[cell.group] = (expected[i], cell.work)
    running = [i for i in range(len(cells)) if i not in too_slow]
    samples: dict[int, list[float]] = {i: [] for i in running}
    start = time.perf_counter()
    for done in range(budget.repeats or MAX_ROUNDS):
        if budget.repeats is None and done >= MIN_ROUNDS and time.perf_counter() - start >= budget.seconds:
            break
        for i in running:
            samples[i] += cells[i].time_calls(_calls_per_visit(expected[i], budget))
    return [Timing.of(samples[i]) if i in samples else None for i in range(len(cells))]


def _calls_per_visit(expected_seconds: float, budget: Budget) -> int:
    if budget.repeats is not None:
        return 1
    return max(1, min(MAX_CALLS_PER_VISIT, int(VISIT_SECONDS / expected_seconds)))
