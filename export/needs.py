"""What a conversion will need: the time of each stage, memory, and room on the disk, said before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..kernels.config import EncoderConfig
from ..kernels.layout import MatrixFormat, matrices
from ..notices import about, size_text
from .quantise.calibrate import LAYER_CALIBRATION, LAYER_PACKING
from .quantise.calibration import RUN_TOKENS, CalibrationBatch
from .quantise.embedding import TABLE_CALIBRATION, TABLE_PACKING

# Stages, as progress tells of them.
READING, BUILDING, CHECKING = "reading the checkpoint", "building the tokenizer", "checking the file"
CHOOSING = "choosing pieces"

# Seconds on two cores of a server. How they compare with each other counts: progress learns the machine's speed.
_READING_A_TOKEN, _BUILDING_A_TOKEN, _CHECKING_A_WEIGHT = 20e-6, 80e-6, 5e-9
_PACKING: dict[MatrixFormat, float] = {"float32": 2e-9, "int8": 45e-9, "int4": 240e-9}  # a weight
_CALIBRATING: dict[MatrixFormat, float] = {"float32": 0, "int8": 230e-9, "int4": 680e-9}  # a weight of a matrix
_TABLE = 400e-9  # a weight of a table of few bits that is calibrated
_SENSITIVITY, _LAYER = 50e-12, 40e-12  # a weight of the layers and a token of the calibration texts

# Bytes while the tokenizer is read, which takes more than all other small things together; and float32 numbers of each
# calibration token that are there at the same time: in widths of hidden states for all, and in widths of hidden and
# feed-forward states for those that go through the layers together.
_BASE, _KEPT_WIDTHS, _RUN_WIDTHS = 400e6, 3, 10


@dataclass(frozen=True)
class Needs:
    """What a conversion will need.

    Attributes:
        seconds: of each stage, by the name under which progress tells of it.
        memory: bytes.
        disk: bytes.
    """

    seconds: Mapping[str, float]
    memory: float
    disk: float

    def __str__(self) -> str:
        stages = [
            f"{about(seconds)} for {name.rstrip(':')}{'s' * name.endswith('layer')}"
            for name, seconds in self.seconds.items()
            if seconds >= sum(self.seconds.values()) / 20
        ]
        return (
            f"needs {size_text(self.memory)} of memory, {size_text(self.disk)} on the disk and, on two cores, about "
            f"{about(sum(self.seconds.values()))}: {', '.join(stages)}"
        )


def conversion_needs(
    config: EncoderConfig,
    formats: Mapping[str, MatrixFormat],
    table: MatrixFormat,
    batch: CalibrationBatch | None,
    disk: float,
) -> Needs:
    """What it takes to store matrices in these formats, and the table, calibrated on a batch or not."""
    weights = {spec.name: spec.out_features * spec.in_features for spec in matrices(config)}
    in_layers, in_table = sum(weights.values()), config.vocab * config.hidden
    tokens = 0 if batch is None else len(batch.ids)
    seconds = {READING: _READING_A_TOKEN * config.vocab, BUILDING: _BUILDING_A_TOKEN * config.vocab}
    calibrates_table = batch is not None and table == "int4"
    if calibrates_table:
        seconds[TABLE_CALIBRATION] = _SENSITIVITY * tokens * in_layers
    by_itself = _PACKING["float32" if table == "float32" else "int8"]  # few levels take no longer than many
    seconds[TABLE_PACKING] = (_TABLE if calibrates_table else by_itself) * in_table
    cost = _PACKING if batch is None else _CALIBRATING
    rounding = sum(count * cost[formats[name]] for name, count in weights.items())
    seconds[LAYER_PACKING if batch is None else LAYER_CALIBRATION] = rounding + _LAYER * tokens * in_layers
    seconds[CHECKING] = _CHECKING_A_WEIGHT * (in_layers + in_table)
    return Needs(seconds, _memory(config, tokens, calibrates_table), disk)


def _memory(config: EncoderConfig, tokens: int, calibrates_table: bool) -> float:
    """The bytes of the stage that takes most."""
    run = _RUN_WIDTHS * (config.hidden + config.ffn)
    if calibrates_table:
        run += (config.layers + 1) * config.hidden
    numbers = tokens * _KEPT_WIDTHS * config.hidden + min(tokens, RUN_TOKENS) * run
    return _BASE + np.dtype(np.float32).itemsize * numbers
