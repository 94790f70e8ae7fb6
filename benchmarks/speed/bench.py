"""One run of the benchmark: loads a model in fresh processes, measures it there, and gathers the result."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from ...kernels.config import EncoderConfig
from ...kernels.embedding_rows import table_format
from ...kernels.errors import InputError
from ...kernels.model_file import ModelFile, read_model_file
from ..harness.command import progress
from ..harness.machine import Environment, Limits, read_environment
from ..harness.measure import Budget, Timed, Timing, measure_in_turn
from ..harness.workload import BATCH_LENGTHS, DEFAULT_LENGTHS, MEMORY_LENGTH, Shape, make_ids, work_of
from ..peers import OURS, Variant
from ..peers.process import Process
from .model_source import Source
from .result import DISTURBED, MOST_SHARE, Floor, Result, Row, Stage

LOADS = 3  # fresh processes whose load time is measured; the last one goes on to the other measurements

# Shares of --seconds: what all calls take together, and the longest single call that is still made.
SINGLES_SHARE, LONGEST_SINGLE_SHARE = 0.75, 0.1
BATCHES_SHARE, LONGEST_BATCH_SHARE = 0.25, 0.15

NOISY_SPREAD = 0.1  # interquartile range over median, above which the report warns


@dataclass(frozen=True)
class Settings:
    """What to measure and for how long; None leaves the choice to the engine."""

    backend: str
    isa: str | None
    threads: int | None
    lengths: tuple[int, ...]
    batch: int
    seconds: float
    repeats: int | None

    def of_model(self, config: EncoderConfig) -> Settings:
        """These settings, of the usual lengths those that the model takes; raises InputError if it lacks another."""
        if self.lengths == DEFAULT_LENGTHS:
            return replace(self, lengths=tuple(tokens for tokens in self.lengths if tokens <= config.max_tokens))
        if max(self.lengths) > config.max_tokens:
            raise InputError(
                f"--lengths has {max(self.lengths)}, but the model takes at most {config.max_tokens} tokens"
            )
        return self

    def budget(self, share: float, longest_call_share: float) -> Budget:
        """A part of the time that there is."""
        return Budget(self.seconds * share, self.seconds * longest_call_share, self.repeats)

    def options(self) -> dict[str, str]:
        """Of our own runtime, as peers/ours.py takes them."""
        return {"backend": self.backend} | ({"isa": self.isa} if self.isa else {})


def run(source: Source, settings: Settings) -> Result:
    """Measures one model file; raises EmbgemmaError if it cannot be loaded or the settings do not fit it."""
    environment = read_environment()  # first, so that the load average does not count our own work
    model = read_model_file(source.path)
    settings = settings.of_model(model.config)
    variant = Variant(OURS, model.scheme, source.path, settings.options())
    progress("loading")
    loads = [_load_seconds(variant, settings.threads) for _ in range(LOADS - 1)]
    with Process(variant, settings.threads) as process:
        loads.append(process.loaded.seconds)
        first_seconds, before_timing = _first_text(process, model)
        progress("measuring the machine's limits")
        limits, limits_note = limits_of(process, model)
        progress("timing single texts")
        rates: dict[str, float] = {}
        shapes = [Shape(1, tokens) for tokens in settings.lengths]
        budget = settings.budget(SINGLES_SHARE, LONGEST_SINGLE_SHARE)
        latencies = _time(process, model, limits, shapes, budget, rates)
        progress("timing batches")
        shapes = [Shape(settings.batch, tokens) for tokens in BATCH_LENGTHS if tokens <= model.config.max_tokens]
        budget = settings.budget(BATCHES_SHARE, LONGEST_BATCH_SHARE)
        batches = _time(process, model, limits, shapes, budget, rates)
        after_timing = Stage("after everything above", process.ask.memory())
    return Result(
        model=source.description,
        synthetic=source.synthetic,
        scheme=model.scheme,
        table=table_format(model.tensors),
        file_bytes=source.path.stat().st_size,
        environment=environment,
        facts=process.loaded.facts,
        limits=limits,
        limits_note=limits_note,
        latencies=latencies,
        batches=batches,
        load_seconds=loads,
        first_seconds=first_seconds,
        memory=[*before_timing, after_timing],
        notes=_notes(source, environment, latencies + batches, settings),
    )


def _load_seconds(variant: Variant, threads: int | None) -> float:
    with Process(variant, threads) as process:
        return process.loaded.seconds


def _first_text(process: Process, model: ModelFile) -> tuple[float, list[Stage]]:
    """Seconds of the first text, and the memory up to it; nothing may be asked before."""
    shape = Shape(1, min(MEMORY_LENGTH, model.config.max_tokens))
    (seconds,) = process.ask.time_calls(make_ids(model.config, shape), 1)
    return seconds, [
        Stage("Python and imports, nothing loaded", process.loaded.before),
        Stage("loaded", process.loaded.after),
        Stage(f"after a text of {shape.tokens} tokens", process.ask.memory(), after_text=True),
    ]


def limits_of(process: Process, model: ModelFile) -> tuple[Limits | None, str]:
    """The machine's limits for this model, or None and the reason why they do not apply."""
    if model.scheme == "float32":
        return None, "not measured: the multiply rate that the engine measures is that of 8-bit integers"
    limits = process.ask.limits(work_of(model.config, model.tensors, Shape(1, 1)).weight_bytes)
    backend = process.loaded.facts["backend"]
    return limits, "" if limits else f"not measured: the {backend} backend cannot, the native one can"


def _time(
    process: Process,
    model: ModelFile,
    limits: Limits | None,
    shapes: list[Shape],
    budget: Budget,
    rates: dict[str, float],
) -> list[Row]:
    """One row for each shape, timed in turn."""
    works = [work_of(model.config, model.tensors, shape) for shape in shapes]
    cells = [
        Timed(partial(process.ask.time_calls, make_ids(model.config, shape)), work.macs, OURS)
        for shape, work in zip(shapes, works, strict=True)
    ]
    timings = map(Timing.of, measure_in_turn(cells, budget, rates))
    return [
        Row(shape, work, timing, Floor.of(work, limits) if limits else None)
        for shape, work, timing in zip(shapes, works, timings, strict=True)
    ]


def _notes(source: Source, environment: Environment, rows: list[Row], settings: Settings) -> list[str]:
    """What a reader must know to judge the numbers."""
    noisy = [row for row in rows if row.timing and row.timing.spread > NOISY_SPREAD]
    notes = {
        "Token ids in, unit vectors out: tokenisation is not timed. The first calls are not counted.": True,
        "The weights are synthetic: random numbers in the model's exact shape. Speed and memory do not depend on "
        "the values; the vectors mean nothing. Give a real model with --model or --checkpoint.": source.synthetic,
        "floor: reading the weights once or doing all multiplications at the measured rates, whichever takes "
        "longer (the limit); of limit: floor / median.": any(row.floor for row in rows),
        "resident: all pages in memory; private: those that no other process has mapped too; anonymous: those of no "
        "file. The rest are pages of the model file: every layer, and the rows of the embedding table that were used. "
        "The system may drop them at any time and read them again.": True,
        f"left out: a call would take too much of {settings.seconds:g} s; give more --seconds.": any(
            row.timing is None for row in rows
        ),
        f"The machine was busy at the start (load average {environment.load_average or 0:.1f} on "
        f"{environment.logical_cores} cores): the times may be too long.": environment.busy,
        DISTURBED: any((row.share_of_limit or 0) >= MOST_SHARE for row in rows),
        f"Noisy: the middle half of the calls spreads by more than {NOISY_SPREAD:.0%} of the median in "
        f"{len(noisy)} of {len(rows)} rows; run it again on a quiet machine.": noisy,
    }
    return [note for note, applies in notes.items() if applies]
