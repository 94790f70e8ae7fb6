"""The time of a call by operation, beside the least that the machine needs for it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from ...kernels.errors import InputError
from ...kernels.model_file import ModelFile, read_model_file
from ..harness.command import progress
from ..harness.machine import Environment, Limits, read_environment
from ..harness.measure import Timed, Timing, measure_in_turn
from ..harness.operations import ATTENTION_RATES, Profile
from ..harness.workload import Ids, Shape, Work, make_ids, work_by_operation, work_of
from ..peers import OURS, Variant
from ..peers.process import Process
from ..speed.bench import Settings, limits_of
from ..speed.model_source import Source
from ..speed.result import Floor

IDLE_SECONDS = 0.5  # after a call, in which the process should take no time of any core
LONGEST_CALL_SHARE = 0.15  # of the time: a call that would take longer is not made
MIDDLE = (0.25, 0.75)  # the timed calls between these quantiles count


@dataclass(frozen=True)
class Part:
    """One operation in a call: mean seconds of a thread; `floor` is None for what has no work of its own."""

    name: str
    seconds: float
    work: Work
    floor: Floor | None


@dataclass(frozen=True)
class Length:
    """One text of some tokens.

    Attributes:
        timing: of calls in which operations were not timed, in turn with the others.
        one_thread: the same of a process with one thread; None if there is one anyway.
        profiled: mean seconds of the calls in which `parts` were timed. The rest of it is Python, waking the threads
            and waiting for the last one.
        idle: seconds of processor time that the process took in IDLE_SECONDS after a call.
    """

    tokens: int
    timing: Timing
    one_thread: Timing | None
    floor: Floor
    profiled: float
    parts: list[Part]
    idle: float

    @property
    def share_of_limit(self) -> float:
        """What part of the machine's limit was reached."""
        return self.floor.seconds / self.timing.median

    @property
    def scaling(self) -> float | None:
        """How many times faster it is than one thread."""
        return self.one_thread.median / self.timing.median if self.one_thread else None

    @property
    def outside(self) -> float:
        """Seconds of a profiled call that belong to no operation."""
        return self.profiled - sum(part.seconds for part in self.parts)


@dataclass(frozen=True)
class Roofline:
    """One run; lengths that would take too long are left out."""

    model: str
    scheme: str
    environment: Environment
    facts: dict[str, str | int]
    limits: Limits
    lengths: list[Length]


def run_roofline(source: Source, settings: Settings) -> Roofline:
    """Measures one model file; raises InputError where the machine's limits cannot be measured."""
    environment = read_environment()
    model = read_model_file(source.path)
    settings = settings.of_model(model.config)
    variant = Variant(OURS, model.scheme, source.path, {**settings.options(), "tokenizer": "no"})
    progress("loading")
    with Process(variant, settings.threads) as process, Process(variant, 1) as single:
        progress("measuring the machine's limits")
        limits, problem = limits_of(process, model)
        if limits is None:
            raise InputError(f"--roofline needs the machine's limits: {problem}")
        progress("timing operations")
        lengths = _lengths(model, settings, limits, process, single)
        facts = process.loaded.facts
    return Roofline(source.description, model.scheme, environment, facts, limits, lengths)


def _lengths(model: ModelFile, settings: Settings, limits: Limits, process: Process, single: Process) -> list[Length]:
    """All lengths, timed in turn: as they are, by operation, and with one thread."""
    profiles: dict[int, list[Profile]] = {tokens: [] for tokens in settings.lengths}

    def profiled(tokens: int, ids: Ids, calls: int) -> list[float]:
        found = process.ask.profile(ids, calls)
        profiles[tokens] += found
        return [one.seconds for one in found]

    cells = []
    for tokens in settings.lengths:
        ids = make_ids(model.config, Shape(1, tokens))
        macs = work_of(model.config, {}, Shape(1, tokens)).macs
        cells.append(Timed(partial(process.ask.time_calls, ids), macs, "plain"))
        cells.append(Timed(partial(profiled, tokens, ids), macs, "profiled"))
        cells.append(Timed(partial(single.ask.time_calls, ids), macs, "one thread"))
    samples = measure_in_turn(cells, settings.budget(1, LONGEST_CALL_SHARE), {})
    has_single = process.loaded.facts["threads"] != 1
    lengths = []
    for i, tokens in enumerate(settings.lengths):
        plain, timed, one = (Timing.of(calls) for calls in samples[3 * i : 3 * i + 3])
        if plain is None or timed is None:
            continue
        work = work_of(model.config, model.tensors, Shape(1, tokens))
        counted = _middle(profiles[tokens][-timed.calls :])  # what came before was warming up
        lengths.append(
            Length(
                tokens=tokens,
                timing=plain,
                one_thread=one if has_single else None,
                floor=Floor.of(work, limits),
                profiled=float(np.mean([call.seconds for call in counted])),
                parts=_parts(model, limits, str(process.loaded.facts["isa"]), tokens, counted),
                idle=process.ask.idle_seconds(make_ids(model.config, Shape(1, tokens)), IDLE_SECONDS),
            )
        )
    return lengths


def _middle(calls: list[Profile]) -> list[Profile]:
    """The calls that took neither longest nor shortest."""
    low, high = np.quantile([call.seconds for call in calls], MIDDLE)
    return [call for call in calls if low <= call.seconds <= high] or calls  # of two calls, neither is in the middle


def _parts(model: ModelFile, limits: Limits, isa: str, tokens: int, calls: list[Profile]) -> list[Part]:
    """The operations in the order of the model."""
    works = work_by_operation(model.config, model.tensors, tokens)
    parts = []
    for name in calls[0].operations:
        work = works.get(name, Work(0, 0, 0))
        slower = ATTENTION_RATES.get(isa, 1) if work.attention_macs else 1
        rates = Limits(limits.macs_per_second * slower, limits.bytes_per_second)
        seconds = float(np.mean([call.operations[name] for call in calls]))
        parts.append(Part(name, seconds, work, Floor.of(work, rates) if name in works else None))
    return parts
