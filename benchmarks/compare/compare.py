"""Other runtimes on the same token ids, each taking turns with ours."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ...export.checkpoint.checkpoint import read_checkpoint
from ...kernels.config import EncoderConfig
from ...kernels.model_file import Scheme
from ..harness.cache import checkpoint_folder
from ..harness.command import progress
from ..harness.limit import limits_for
from ..harness.machine import Environment, read_environment
from ..harness.measure import Timed, Timing, measure_in_turn
from ..harness.memory import Memory
from ..harness.workload import BATCH_LENGTHS, MEMORY_LENGTH, Shape, make_ids, work_of
from ..peers import OURS, Variant, peer_module
from ..peers.ours import converted
from ..peers.process import Process, WorkerError, prepare_peer
from ..speed.bench import Settings
from .exactness import Exactness, References, compare_with, read_references

BATCHES = (1, 8, 64)  # texts in one call, tried for throughput; the best one counts
ISA_VARIABLE = "EMBGEMMA_ISA"  # forces the engine's instruction set where no argument does
PAUSE = 0.04  # seconds: threads of ONNX Runtime spin for 20 to 35 ms after a call, on cores that the next one needs
LONGEST_CALL_SHARE = 0.15  # of the time for one runtime: a call that would take longer is not made

Samples = dict[Shape, list[float]]  # seconds of each call


@dataclass(frozen=True)
class Measured:
    """What was measured of one runtime at one precision.

    Attributes:
        runtime, precision: as the report names them.
        times: of one text, by length; None for what was left out.
        ratios: its median over that of our baseline in the same turns, by length.
        throughputs: tokens a second at its best batch size, by BATCH_LENGTHS.
        load_seconds: until it is ready, its import included.
        memory: of its process after loading and one text of MEMORY_LENGTH tokens; tokenizers are not counted.
        exactness: how near its vectors are to those of the float32 model.
    """

    runtime: str
    precision: str
    times: list[Timing | None]
    ratios: list[float | None]
    throughputs: list[float | None]
    load_seconds: float
    memory: Memory
    exactness: Exactness


@dataclass(frozen=True)
class Comparison:
    """One run; `measured` has our baseline first."""

    environment: Environment
    threads: int
    isa: str
    lengths: list[int]
    measured: list[Measured]
    notes: list[str]


@dataclass(frozen=True)
class Setup:
    """What is the same for all runtimes."""

    settings: Settings
    config: EncoderConfig
    threads: int
    references: References

    def shapes(self) -> list[Shape]:
        """All calls that are timed, shortest first."""
        singles = {Shape(1, tokens) for tokens in self.settings.lengths}
        lengths = [tokens for tokens in BATCH_LENGTHS if tokens <= self.config.max_tokens]
        batches = {Shape(texts, tokens) for tokens in lengths for texts in BATCHES}
        return sorted(singles | batches, key=self.macs)

    def macs(self, shape: Shape) -> int:
        """The work of one call."""
        return work_of(self.config, {}, shape).macs

    def memory_then_exactness(self, process: Process) -> tuple[Memory, Exactness]:
        """Memory after one text, then exactness; must come before any other call."""
        process.ask.encode(make_ids(self.config, Shape(1, min(MEMORY_LENGTH, self.config.max_tokens))))
        return process.ask.memory(), compare_with(self.references, process)

    def time_in_turn(self, ours: Process, theirs: Process) -> tuple[Samples, Samples]:
        """Seconds of every call of both."""
        shapes = self.shapes()
        cells = [
            Timed(partial(process.ask.time_calls, make_ids(self.config, shape)), self.macs(shape), process.variant.key)
            for shape in shapes
            for process in (ours, theirs)
        ]
        samples = measure_in_turn(cells, self.settings.budget(1, LONGEST_CALL_SHARE), {}, PAUSE)
        return dict(zip(shapes, samples[0::2], strict=True)), dict(zip(shapes, samples[1::2], strict=True))

    def measured(self, process: Process, look: tuple[Memory, Exactness], samples: Samples, ours: Samples) -> Measured:
        """Summarises what was measured of one process and of ours at the same time."""
        timings = {shape: Timing.of(seconds) for shape, seconds in samples.items()}
        singles = [Shape(1, tokens) for tokens in self.settings.lengths]
        pairs = [(timings[shape], Timing.of(ours[shape])) for shape in singles]
        return Measured(
            runtime=process.variant.peer,
            precision=process.variant.name,
            times=[theirs for theirs, _ in pairs],
            ratios=[theirs.median / own.median if theirs and own else None for theirs, own in pairs],
            throughputs=[_best_rate(timings, tokens) for tokens in BATCH_LENGTHS],
            load_seconds=process.loaded.seconds,
            memory=look[0],
            exactness=look[1],
        )


def run_comparison(
    checkpoint: Path, cache: Path, names: list[str], schemes: list[Scheme], settings: Settings
) -> Comparison:
    """Measures ours in these schemes, and these peers; the first scheme is the baseline.

    A peer that fails or is not installed is named in the notes, and the others go on.
    """
    packages = [package for name in names for package in peer_module(name).PACKAGES]
    environment = read_environment(tuple(packages))
    source = read_checkpoint(checkpoint)
    settings = settings.of_model(source.config)
    folder = checkpoint_folder(cache, checkpoint)
    isa = settings.isa or os.environ.get(ISA_VARIABLE)
    limits = limits_for(isa)
    notes: list[str] = []
    progress("preparing ours")
    baseline, *others = [_ours(checkpoint, folder, scheme, settings) for scheme in schemes]
    references = read_references(source, folder)
    with Process(baseline, settings.threads) as process:
        facts = process.loaded.facts
        setup = Setup(settings, source.config, int(facts["threads"]), references)
        look = setup.memory_then_exactness(process)
        pooled: Samples = {shape: [] for shape in setup.shapes()}
        for name in names:
            others += prepared(name, checkpoint, folder, limits, notes)
        measured = []
        for variant in others:
            progress(f"measuring {variant.key}")
            try:
                one, samples = _measure(setup, process, variant)
            except WorkerError as error:
                notes.append(f"{variant.key} failed: {error}")
                continue
            measured.append(one)
            for shape, seconds in samples.items():
                pooled[shape] += seconds
        if not others:
            pooled, _ = setup.time_in_turn(process, process)
        first = setup.measured(process, look, pooled, pooled)
    if limits:
        notes.append(
            f"kept to {isa}: OpenVINO and PyTorch, in their oneDNN parts. ONNX Runtime and llama.cpp use the best "
            "instruction set that the CPU has."
        )
    notes.insert(0, f"cosine: to {references.origin}, {len(references.texts)} texts.")
    return Comparison(environment, setup.threads, str(facts["isa"]), list(settings.lengths), [first, *measured], notes)


def _ours(checkpoint: Path, folder: Path, scheme: Scheme, settings: Settings) -> Variant:
    """Ours, with the backend and instruction set asked for, and without a tokenizer, as peers are measured."""
    return Variant(OURS, scheme, converted(checkpoint, folder, scheme), {**settings.options(), "tokenizer": "no"})


def prepared(name: str, checkpoint: Path, folder: Path, limits: dict[str, str], notes: list[str]) -> list[Variant]:
    """The variants of a peer; none, and a note, if it cannot be measured here."""
    missing = [
        package for package, module in peer_module(name).PACKAGES.items() if importlib.util.find_spec(module) is None
    ]
    if missing:
        notes.append(f"{name} is not installed; to measure it: pip install {' '.join(missing)}")
        return []
    progress(f"preparing {name}")
    try:
        variants = prepare_peer(name, checkpoint, folder)
    except WorkerError as error:
        notes.append(f"{name} failed: {error}")
        return []
    return [replace(variant, environment={**variant.environment, **limits}) for variant in variants]


def _measure(setup: Setup, ours: Process, variant: Variant) -> tuple[Measured, Samples]:
    """What was measured of one variant, and of ours in the same turns."""
    with Process(variant, setup.threads) as process:
        look = setup.memory_then_exactness(process)
        our_samples, samples = setup.time_in_turn(ours, process)
        return setup.measured(process, look, samples, our_samples), our_samples


def _best_rate(timings: dict[Shape, Timing | None], tokens: int) -> float | None:
    """Tokens a second of texts of this length at the batch size that suits the runtime best."""
    rates = [
        shape.texts * tokens / timing.median for shape, timing in timings.items() if timing and shape.tokens == tokens
    ]
    return max(rates, default=None)
