"""Timing: everything is warmed up, then all calls take turns until the time is spent; medians are reported.

Turns matter more than the number of calls: a slow minute of the machine then slows all of them alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

LONG_CALL_SECONDS = 0.3  # a longer call warms up by itself; shorter ones are made twice
VISIT_SECONDS = 0.03  # shorter calls are repeated within a turn, so that switching costs little
MAX_CALLS_PER_VISIT = 8
MIN_ROUNDS = 3
MAX_ROUNDS = 200

TimeCalls = Callable[[int], "list[float]"]  # number of calls -> seconds of each


@dataclass(frozen=True)
class Timing:
    """Seconds of one call, over `calls` calls; `spread` is the interquartile range over the median."""

    median: float
    p95: float
    spread: float
    calls: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing | None:
        """Summarises the calls of one cell; None if it was left out."""
        if not seconds:
            return None
        low, median, high, p95 = np.quantile(seconds, (0.25, 0.5, 0.75, 0.95))
        return cls(float(median), float(p95), float((high - low) / median), len(seconds))


@dataclass(frozen=True)
class Timed:
    """One thing to time.

    Attributes:
        time_calls: makes this many calls and gives the seconds of each.
        work: multiply-accumulates of one call.
        runner: what runs it: the speed of one cell predicts that of the next one with the same runner.
    """

    time_calls: TimeCalls
    work: float
    runner: str


@dataclass(frozen=True)
class Budget:
    """How long to measure: about `seconds` in all, or exactly `repeats` calls of every cell where given.

    Without `repeats`, a cell whose single call is expected to take more than `longest_call` seconds is left out.
    """

    seconds: float
    longest_call: float
    repeats: int | None = None


def measure_in_turn(
    cells: Sequence[Timed], budget: Budget, rates: dict[str, float], pause: float = 0.0
) -> list[list[float]]:
    """Seconds of every call of each cell, in turn, with `pause` seconds before each turn.

    A cell that is left out has none. Cells of a runner should come by rising work.

    `rates` holds the known multiply-accumulates per second by runner, and is updated.
    """
    expected: dict[int, float] = {}  # cell -> seconds of a call, for those that are not left out
    for i, cell in enumerate(cells):
        predicted = cell.work / rates[cell.runner] if cell.runner in rates else 0.0
        if budget.repeats is None and predicted > budget.longest_call:
            continue
        expected[i] = _warm_up(cell)
        rates[cell.runner] = cell.work / expected[i]
    samples: list[list[float]] = [[] for _ in cells]
    start = time.perf_counter()
    for done in range(budget.repeats or MAX_ROUNDS):
        if budget.repeats is None and done >= MIN_ROUNDS and time.perf_counter() - start >= budget.seconds:
            break
        for i, seconds in expected.items():
            time.sleep(pause)
            samples[i] += cells[i].time_calls(_calls_per_visit(seconds, budget))
    return samples


def _warm_up(cell: Timed) -> float:
    """Seconds of the last of one or two calls: the first allocates, faults pages in and trains the branches."""
    first = cell.time_calls(1)[0]
    return first if first > LONG_CALL_SECONDS else cell.time_calls(1)[0]


def _calls_per_visit(expected_seconds: float, budget: Budget) -> int:
    if budget.repeats is not None:
        return 1
    return max(1, min(MAX_CALLS_PER_VISIT, int(VISIT_SECONDS / expected_seconds)))
