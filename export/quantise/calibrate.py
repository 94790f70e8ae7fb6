"""Quantises the layers one after another, each for the inputs that those before it leave.

The calibration texts go through the model once, as the engine will compute it: with int8 activations and the matrices
quantised so far. The inputs of a matrix say which of its errors matter; see gptq.py. Texts go from matrix to matrix in
runs, so that memory hardly grows with their number. ../EXPERIMENTS.md has what else was tried. Model files and ONNX
models differ in how a matrix is stored, in the blocks that are rotated, and in who rotates the inputs of `o`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from typing import Protocol, TypeVar

import numpy as np

from ...kernels.config import EncoderConfig
from ...kernels.rotation import ROTATION, rotate_blocks
from ...notices import Progress
from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.checkpoint_tensors import Float32
from ..checkpoint.folds import Layer, folded_layer, folded_matrix, folded_norm, rotated_layer
from . import forward
from .calibration import CalibrationBatch
from .embedding import EmbeddingTable
from .forward import Int8Rounded, Offsets
from .gptq import Float64

# A run of texts that goes through a layer; see `forward.layer_steps`.
Steps = Generator[tuple[str, Float32], Float32, None]

LAYER_CALIBRATION, LAYER_PACKING = "calibrating layer", "packing layer"  # what progress tells

_LAYER_MATRICES = 4

_PIECE_TOKENS = 8  # the head is calibrated on means over pieces of texts, since there are few texts


class Stored(Protocol):
    """A matrix in rotated columns (../kernels/rotation.py), as a format stores it."""

    def weights(self) -> Float32:
        """The weights as float32: (out_features, in_features)."""


Matrix = TypeVar("Matrix", bound=Stored)
Plain = TypeVar("Plain")

# Rounds the matrix of this name, (out_features, in_features) in rotated columns, whose inputs have this Gram matrix.
Rounder = Callable[[str, Float32, Float64], Matrix]


def plain_parts(
    source: Checkpoint,
    rounder: Callable[[str, Float32], Plain],
    progress: Progress,
    *,
    block: int | None,
    rotated_values: bool = False,
) -> Iterator[tuple[str, Plain | Float32]]:
    """The matrices, each weight rounded by itself, and the norms, as `calibrated_parts` gives them.

    Without a block nothing is rotated.
    """
    progress.begin(LAYER_PACKING, source.config.layers)
    for i in range(source.config.layers):
        layer = rotated_layer(source, i, block, values=rotated_values) if block else folded_layer(source, i)
        for part, tensor in layer.items():
            name = f"layers.{i}.{part}"
            yield name, rounder(name, tensor) if tensor.ndim > 1 else tensor
            progress.advance(1 / len(layer))
    yield "final_norm", folded_norm(source, "final_norm")
    head = folded_matrix(source, "head")
    yield "head", rounder("head", rotate_blocks(head, block) if block else head)


def calibrated_parts(
    source: Checkpoint,
    batch: CalibrationBatch,
    table: EmbeddingTable,
    rounder: Rounder[Matrix],
    progress: Progress,
    *,
    block: int = ROTATION,
    rotated_values: bool = False,
) -> Iterator[tuple[str, Matrix | Float32]]:
    """The matrices and norms from the first layer to the head by name, in file order, calibrated on texts.

    Args:
        source: the checkpoint.
        batch: the texts.
        table: the embedding table.
        rounder: how each matrix is rounded.
        progress: what is told of the work.
        block: the columns that are rotated together.
        rotated_values: whether values leave `qkv` rotated, so that the inputs of `o` need not be.
    """

    def counted(name: str, weights: Float32, gram: Float64) -> Matrix:
        matrix = rounder(name, weights, gram)
        progress.advance(1 / _LAYER_MATRICES)
        return matrix

    progress.begin(LAYER_CALIBRATION, source.config.layers)
    runs = list(batch.runs())
    hidden = table.stored_rows(batch.ids)  # (tokens, hidden): the texts as the engine will compute them
    for i in range(source.config.layers):
        layer = rotated_layer(source, i, block, values=rotated_values)
        steps = [_layer_steps(source.config, i, layer, hidden[tokens], offsets) for tokens, offsets in runs]
        quantized = _rounded_layer(f"layers.{i}", layer, steps, counted, block, rotated_values=rotated_values)
        yield from ((f"layers.{i}.{part}", quantized.get(part, tensor)) for part, tensor in layer.items())
    final_norm = folded_norm(source, "final_norm")
    yield "final_norm", final_norm
    normed = (forward.rms_norm(hidden[tokens], final_norm, source.config.rms_norm_eps) for tokens, _ in runs)
    means = [forward.pooled(x, pieces_of(offsets)) for x, (_, offsets) in zip(normed, runs, strict=True)]
    gram = Int8Rounded.of(rotate_blocks(np.concatenate(means), block)).gram_matrix()
    yield "head", rounder("head", rotate_blocks(folded_matrix(source, "head"), block), gram)


def _layer_steps(config: EncoderConfig, index: int, layer: Layer, hidden: Float32, offsets: Offsets) -> Steps:
    """Those of forward.py; what they return overwrites hidden."""
    _, hidden[:] = yield from forward.layer_steps(config, index, layer, hidden, offsets)


def _rounded_layer(
    name: str, layer: Layer, runs: Sequence[Steps], rounder: Rounder[Matrix], block: int, *, rotated_values: bool
) -> dict[str, Matrix]:
    """Rounds each matrix of a layer for its inputs in all runs of texts, and takes them through as the engine will."""

    def rounded(part: str, x: Float32) -> Int8Rounded:
        is_rotated = part == "o" and rotated_values
        return Int8Rounded.of(x if is_rotated else rotate_blocks(x, block))

    quantized: dict[str, Matrix] = {}
    inputs = [rounded(*next(run)) for run in runs]  # of the next matrix
    for part in (part for part, tensor in layer.items() if tensor.ndim > 1):
        gram = np.zeros((layer[part].shape[1],) * 2)
        for x in inputs:
            gram += x.gram_matrix()
        quantized[part] = rounder(f"{name}.{part}", layer[part], gram)
        weights = quantized[part].weights()
        for number, run in enumerate(runs):
            with suppress(StopIteration):  # after the last matrix
                inputs[number] = rounded(*run.send(inputs[number].values() @ weights.T))
    return quantized


def pieces_of(offsets: Offsets) -> Offsets:
    """Offsets that cut every text into pieces of _PIECE_TOKENS tokens or fewer."""
    cuts = [np.arange(start, stop, _PIECE_TOKENS) for start, stop in itertools.pairwise(offsets)]
    return np.append(np.concatenate(cuts), offsets[-1])
