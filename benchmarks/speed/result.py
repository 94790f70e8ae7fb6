"""The result of one run, before it is printed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..harness.machine import Environment, Limits
from ..harness.measure import Timing
from ..harness.memory import Memory
from ..harness.workload import Shape, Work

DISTURBED = (
    "of limit is above 100 %: something disturbed the machine while its limits were measured, so they are too low; run "
    "it again on a quiet machine."
)
MOST_SHARE = 1.005  # of the limit: what is shown as 100 %
Bound = Literal["memory", "multiply"]


@dataclass(frozen=True)
class Floor:
    """The least time in which this machine can do the work, and the limit that sets it."""

    seconds: float
    bound: Bound

    @classmethod
    def of(cls, work: Work, limits: Limits) -> Floor:
        """The slower of reading the weights once and doing the multiplications, as if they overlapped fully.

        All multiplications count at the 8-bit rate, attention's too, so the floor is never too high.
        """
        reading = work.weight_bytes / limits.bytes_per_second
        multiplying = work.macs / limits.macs_per_second
        return cls(reading, "memory") if reading > multiplying else cls(multiplying, "multiply")


@dataclass(frozen=True)
class Row:
    """One call shape: its work, its time (None: left out, too slow for the budget) and its floor (None: not known)."""

    shape: Shape
    work: Work
    timing: Timing | None
    floor: Floor | None

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens of all texts of the call over its median time."""
        return self.shape.texts * self.shape.tokens / self.timing.median if self.timing else None

    @property
    def share_of_limit(self) -> float | None:
        """What part of the machine's limit was reached: 1 is the floor itself."""
        return self.floor.seconds / self.timing.median if self.floor and self.timing else None


@dataclass(frozen=True)
class Stage:
    """The memory of the process at one point of its life; `after_text` marks the point that the summary names."""

    name: str
    memory: Memory
    after_text: bool = False


@dataclass(frozen=True)
class Result:
    """One run.

    Attributes:
        model: which weights were measured, in words, without paths.
        table: the format of the embedding table, or how many of its rows have how many bits.
        facts: backend, isa, threads.
        load_seconds: from the call of `load` to a model that is ready, in fresh processes.
        first_seconds: of the first text, in a fresh process.
        limits: None where the backend cannot measure them; `limits_note` then says why.
        notes: what a reader must know to judge the numbers.
    """

    model: str
    synthetic: bool
    scheme: str
    table: str
    file_bytes: int
    environment: Environment
    facts: dict[str, str | int]
    limits: Limits | None
    limits_note: str
    latencies: list[Row]
    batches: list[Row]
    load_seconds: list[float]
    first_seconds: float
    memory: list[Stage]
    notes: list[str]
