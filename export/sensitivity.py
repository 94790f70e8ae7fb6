"""How much the embedding of a text changes by an error at each place inside the model, measured on calibration texts.

A small error δ at some place changes the normalised embedding by Jδ, and its cosine to the right one by |Jδ|² / 2.
J has as many rows as the embedding is wide. One gradient of u · embedding, for a random u per text, is a sample
of Jᵀu, and the mean of (Jᵀu)(Jᵀu)ᵀ over texts is that of JᵀJ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import forward
from .calibration import CalibrationBatch
from .checkpoint import Checkpoint
from .folds import folded_layer, folded_matrix, folded_norm
from .gradient import layer_gradient, rms_norm_gradient
from .weights import Float32

# What the least important token counts, as a share of the mean: samples are noisy, and other texts differ.
_FLOOR = 0.1


@dataclass(frozen=True)
class Sensitivity:
    """Samples of Jᵀu for every token of the calibration texts.

    Attributes:
        embedded: at the rows of the embedding table, (tokens, hidden).
        tokens: of each matrix by name, how much errors of its outputs matter, (tokens,): |Jᵀu|² over its mean.
    """

    embedded: Float32
    tokens: dict[str, Float32]


def measure_sensitivity(source: Checkpoint, batch: CalibrationBatch, embedded: Float32) -> Sensitivity:
    """Takes the texts, given as rows of the embedding table (tokens, hidden), through the model and back."""
    config = source.config
    states = [embedded]  # (tokens, hidden) before each layer, and after the last
    for i in range(config.layers):
        states.append(forward.layer_values(config, i, folded_layer(source, i), states[-1], batch.offsets).hidden)
    gradient = _head_gradient(source, batch, states.pop())
    tokens: dict[str, Float32] = {}
    for i in reversed(range(config.layers)):
        inside = layer_gradient(config, i, folded_layer(source, i), states.pop(), batch.offsets, gradient)
        gradient = inside.hidden
        for matrix, by_output in inside.outputs.items():
            square = np.einsum("tc,tc->t", by_output, by_output)
            tokens[f"layers.{i}.{matrix}"] = square / square.mean() + np.float32(_FLOOR)
    return Sensitivity(gradient, tokens)


def _head_gradient(source: Checkpoint, batch: CalibrationBatch, hidden: Float32) -> Float32:
    """The gradient of u · embedding by the last hidden state (tokens, hidden), for a random u per text."""
    eps, lengths = source.config.rms_norm_eps, np.diff(batch.offsets)
    final_norm, head = folded_norm(source, "final_norm"), folded_matrix(source, "head")
    embedding = forward.pooled(forward.rms_norm(hidden, final_norm, eps), batch.offsets) @ head.T
    length = np.linalg.norm(embedding, axis=1, keepdims=True)
    unit = embedding / length
    u = np.random.default_rng(0).standard_normal(unit.shape, np.float32)
    u = (u - unit * np.einsum("tc,tc->t", u, unit)[:, None]) / length  # normalisation undoes changes of length
    by_token = np.repeat((u @ head) / lengths[:, None].astype(np.float32), lengths, axis=0)
    return rms_norm_gradient(hidden, final_norm, eps, by_token)
