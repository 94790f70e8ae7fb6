"""Quantises the layers one after another, each for the inputs that those before it leave.

Two copies of the calibration texts go through the model side by side: one as the checkpoint computes it, on which the
scales between matrices are chosen, and one as the model will compute it, with int8 activations and all that is
quantised so far, which says which errors of the next matrix matter (GPTQ; see ../gptq.py).

Why not the weights of model files: their inputs are all rotated as the model runs. The engine does that in passing. In
ONNX it is a matrix product for each; here only the inputs of `down` get one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ...kernels.rotation import rotate_blocks
from .. import forward
from ..calibrate import gram_matrix, pieces_of
from ..calibration import CalibrationBatch
from ..checkpoint import Checkpoint
from ..embedding import EmbeddingTable
from ..folds import folded_layer, folded_matrix, folded_norm
from ..forward import Layer
from ..gptq import Float64
from ..weights import Float32
from .matrix import Matrix
from .rotation import rotate_values, smooth

_SEARCH_TOKENS = 1024  # that scales are chosen on

# Rounds weights (out_features, in_features) whose inputs have this Gram matrix, (in_features, in_features).
Rounder = Callable[[Float32, Float64], Matrix]


def quantised_parts(
    source: Checkpoint, batch: CalibrationBatch | None, rounder: Rounder, embedded: Float32 | None
) -> Iterator[tuple[str, Float32 | Matrix]]:
    """Norms and matrices by the names of a model file.

    Args:
        source: the checkpoint.
        batch: texts to calibrate on; None rounds each weight by itself.
        rounder: of each matrix.
        embedded: (tokens, hidden), the stored rows of the embedding table for the tokens of the batch.
    """
    if batch is None or embedded is None:
        yield from _plain_parts(source, rounder)
    else:
        yield from _Calibrator(source, batch, rounder, embedded).parts()


def _plain_parts(source: Checkpoint, rounder: Rounder) -> Iterator[tuple[str, Float32 | Matrix]]:
    """Each weight rounded by itself, after the rotations."""
    for i in range(source.config.layers):
        layer = _rotated(source, i)
        for name, tensor in layer.items():
            yield f"layers.{i}.{name}", _plain(tensor, rounder) if tensor.ndim > 1 else tensor
    yield "final_norm", folded_norm(source, "final_norm")
    yield "head", _plain(folded_matrix(source, "head"), rounder)


def _plain(weights: Float32, rounder: Rounder) -> Matrix:
    return rounder(weights, np.eye(weights.shape[1]))


def _rotated(source: Checkpoint, index: int) -> Layer:
    """The layer with its values rotated, and `down` for inputs that are."""
    layer = rotate_values(source.config, folded_layer(source, index))
    return {**layer, "down": rotate_blocks(layer["down"])}


class _Calibrator:
    """Takes the texts through the model once."""

    def __init__(self, source: Checkpoint, batch: CalibrationBatch, rounder: Rounder, embedded: Float32) -> None:
        self._source = source
        self._config = source.config
        self._offsets = batch.offsets
        self._round = rounder
        self._exact = EmbeddingTable(source, "float32", 0).exact_rows(batch.ids)
        self._quantised = embedded
        self._chosen = np.random.default_rng(0).permutation(len(embedded))[:_SEARCH_TOKENS]

    def parts(self) -> Iterator[tuple[str, Float32 | Matrix]]:
        """See `quantised_parts`."""
        for i in range(self._config.layers):
            for name, part in self._layer(i).items():
                yield f"layers.{i}.{name}", part
        yield from self._head()

    def _layer(self, index: int) -> dict[str, Float32 | Matrix]:
        """One layer; moves both copies past it."""
        config, offsets, eps = self._config, self._offsets, self._config.rms_norm_eps
        exact = forward.layer_values(config, index, folded_layer(self._source, index), self._exact, offsets)
        self._exact = exact.hidden
        layer = _rotated(self._source, index)
        for norm, matrix in (("input_norm", "qkv"), ("pre_ffn_norm", "gate_up")):
            layer = smooth(layer, norm, matrix, exact.inputs[matrix][self._chosen])
        parts: dict[str, Float32 | Matrix] = dict(layer)

        def product(name: str, x: Float32) -> Float32:
            x = forward.int8_rounded(x)
            matrix = self._round(layer[name], gram_matrix(x))
            parts[name] = matrix
            return np.asarray(x @ matrix.weights().T)

        qkv = product("qkv", forward.rms_norm(self._quantised, layer["input_norm"], eps))
        out = product("o", forward.attention(config, index, layer, qkv, offsets))
        self._quantised = self._quantised + forward.rms_norm(out, layer["post_attention_norm"], eps)
        gate_up = product("gate_up", forward.rms_norm(self._quantised, layer["pre_ffn_norm"], eps))
        out = product("down", rotate_blocks(forward.geglu(gate_up)))
        self._quantised = self._quantised + forward.rms_norm(out, layer["post_ffn_norm"], eps)
        return parts

    def _head(self) -> Iterator[tuple[str, Float32 | Matrix]]:
        """The final norm and the head."""
        layer = {"final_norm": folded_norm(self._source, "final_norm"), "head": folded_matrix(self._source, "head")}
        pieces, eps = pieces_of(self._offsets), self._config.rms_norm_eps
        exact = forward.pooled(forward.rms_norm(self._exact, layer["final_norm"], eps), pieces)
        layer = smooth(layer, "final_norm", "head", exact)
        seen = forward.pooled(forward.rms_norm(self._quantised, layer["final_norm"], eps), pieces)
        yield "final_norm", layer["final_norm"]
        yield "head", self._round(layer["head"], gram_matrix(forward.int8_rounded(seen)))
