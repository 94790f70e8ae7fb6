"""How much an error in the rows of the embedding table changes the embedding of a text.

A small error δ there changes the normalised embedding by Jδ, and its cosine to the right one by |Jδ|² / 2. J has as
many rows as the embedding is wide. One gradient of u · embedding, for a random u per text, is a sample of Jᵀu, and the
mean of (Jᵀu)(Jᵀu)ᵀ over texts is that of JᵀJ.
"""

from __future__ import annotations

import numpy as np

from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.checkpoint_tensors import Float32
from ..checkpoint.folds import folded_layer, folded_matrix, folded_norm
from . import forward
from .calibration import CalibrationBatch
from .gradient import layer_gradient, rms_norm_gradient


def embedding_sensitivity(source: Checkpoint, batch: CalibrationBatch, embedded: Float32) -> Float32:
    """Samples of Jᵀu for every token of the calibration texts, given as rows of the table; both (tokens, hidden)."""
    config = source.config
    states = list(forward.hidden_states(source, embedded, batch.offsets))
    gradient = _head_gradient(source, batch, states.pop())
    for i in reversed(range(config.layers)):
        gradient = layer_gradient(config, i, folded_layer(source, i), states.pop(), batch.offsets, gradient)
    return gradient


def _head_gradient(source: Checkpoint, batch: CalibrationBatch, hidden: Float32) -> Float32:
    """The gradient of u · embedding by the last hidden state (tokens, hidden), for a random u per text."""
    eps, lengths = source.config.rms_norm_eps, np.diff(batch.offsets)
    final_norm, head = folded_norm(source, "final_norm"), folded_matrix(source, "head")
    embedding = forward.embeddings(source, hidden, batch.offsets)
    length = np.linalg.norm(embedding, axis=1, keepdims=True)
    unit = embedding / length
    u = np.random.default_rng(0).standard_normal(unit.shape, np.float32)
    u = (u - unit * np.einsum("tc,tc->t", u, unit)[:, None]) / length  # normalisation undoes changes of length
    by_token = np.repeat((u @ head) / lengths[:, None].astype(np.float32), lengths, axis=0)
    return rms_norm_gradient(hidden, final_norm, eps, by_token)
