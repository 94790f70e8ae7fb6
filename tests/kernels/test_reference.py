"""The float64 reference against formulas written out by hand, and against sentence-transformers."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from embgemma.export.convert import convert
from embgemma.kernels.layout import PANEL, unpack_matrix
from embgemma.kernels.model_file import ModelFile, Scheme, read_model_file
from embgemma.kernels.reference import (
    F64,
    ReferenceBackend,
    attend,
    gelu,
    quantize_rows,
    rms_norm,
    rotate,
    softmax,
)
from embgemma.kernels.rotation import rotate_blocks

EPS = np.finfo(np.float64).eps

# What sentence-transformers' own float32 arithmetic may move a hidden state by: a sum of k products is off by k * eps
# at worst, the longest sum has 1,152, and a state is what 24 layers of 4 matrices added up.
GOLDEN_TOLERANCE = 24 * 4 * 1152 * np.finfo(np.float32).eps

random = np.random.default_rng(0)


def test_rms_norm_is_what_it_says() -> None:
    x, multiplier = random.standard_normal((3, 5)), random.standard_normal(5)
    found = rms_norm(x, multiplier, 0.25)
    for i in range(3):
        root = math.sqrt(math.fsum(value * value for value in x[i]) / 5 + 0.25)
        assert np.allclose(found[i], [x[i, j] / root * multiplier[j] for j in range(5)], rtol=8 * EPS, atol=0)


def test_quantisation_is_symmetric_and_rounds_ties_to_even() -> None:
    x = np.array([[127, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, -127]], np.float64)
    codes, scale = quantize_rows(np.concatenate([x, 0 * x, 2 * x]))
    assert codes.tolist() == [[127, 0, 2, 2, 0, -2, -2, -127], [0] * 8, codes[0].tolist()]
    assert scale.tolist() == [[1], [0], [2]]


def test_quantisation_is_off_by_half_a_step_at_most() -> None:
    x = random.standard_normal((20, 64)) * 10.0 ** random.integers(-6, 6, (20, 1))
    codes, scale = quantize_rows(x)
    assert np.array_equal(codes, np.rint(codes))
    assert np.all(np.max(np.abs(codes), axis=1) == 127)
    assert np.all(np.abs(x - codes * scale) <= scale * 0.5 * (1 + 256 * EPS))


def test_rotation_turns_points_of_the_two_halves() -> None:
    tokens, head_dim, theta = 4, 8, 100.0
    x = random.standard_normal((tokens, 2, head_dim))
    found = rotate(x, theta)
    for token in range(tokens):
        for i in range(head_dim // 2):
            turn = np.exp(1j * token * theta ** (-2 * i / head_dim))
            turned = (x[token, :, i] + 1j * x[token, :, i + head_dim // 2]) * turn
            assert np.allclose(found[token, :, i] + 1j * found[token, :, i + head_dim // 2], turned, atol=64 * EPS)


@pytest.mark.parametrize("window", [None, 0, 2, 5, 100])
def test_attention_with_the_mask_written_out(window: int | None) -> None:
    tokens, heads, kv_heads, head_dim = 7, 4, 2, 3
    q, k, v = (random.standard_normal((tokens, count, head_dim)) for count in (heads, kv_heads, kv_heads))
    found = attend(q, k, v, window)
    for head in range(heads):
        for i in range(tokens):
            seen = [j for j in range(tokens) if window is None or abs(i - j) <= window]
            weights = [math.exp(math.fsum(q[i, head] * k[j, head // 2])) for j in seen]
            mean = sum(weight * v[j, head // 2] for weight, j in zip(weights, seen, strict=True)) / math.fsum(weights)
            assert np.allclose(found[i, head], mean, rtol=0, atol=64 * tokens * EPS)


def test_softmax_of_large_scores_does_not_overflow() -> None:
    assert softmax(np.array([[1e6, 1e6, -1e6]])).tolist() == [[0.5, 0.5, 0]]


def test_gelu_is_close_to_the_exact_one() -> None:
    x = np.linspace(-6, 6, 1001)
    exact = np.array([value * 0.5 * (1 + math.erf(value / math.sqrt(2))) for value in x])
    assert np.max(np.abs(gelu(x) - exact)) < 5e-4  # of the tanh approximation itself
    assert gelu(np.array([0.0, 40.0, -40.0])).tolist() == [0, 40, 0]


@pytest.mark.parametrize("scheme", ["float32", "int8", "mixed", "int4"])
def test_linear_is_codes_times_scales(small_model: Callable[[Scheme], ModelFile], scheme: Scheme) -> None:
    model = small_model(scheme)
    x = random.standard_normal((2, model.config.ffn))
    codes = unpack_matrix(model.tensors, "layers.1.down").astype(np.float64)
    scale = model.tensors.get("layers.1.down.scale", np.ones(model.config.hidden)).astype(np.float64)
    inputs = x if scheme == "float32" else rotate_blocks(x)
    expected = [[math.fsum(inputs[i] * codes[j]) * scale[j] for j in range(len(codes))] for i in range(2)]
    exact = ReferenceBackend(model.config, model.tensors, quantize_activations=False)
    assert np.allclose(exact.linear("layers.1.down", x), expected, rtol=0, atol=model.config.ffn * 16 * EPS)
    rounded = ReferenceBackend(model.config, model.tensors).linear("layers.1.down", x)
    if scheme == "float32":
        assert np.array_equal(rounded, exact.linear("layers.1.down", x))
    else:
        activation_codes, activation_scale = quantize_rows(rotate_blocks(x))
        sums = activation_codes @ codes.T  # whole numbers, exact in float64
        assert np.allclose(rounded, sums * activation_scale * scale, rtol=0, atol=model.config.ffn * 16 * EPS)


def test_gate_and_up_are_alternating_panels(small_model: Callable[[Scheme], ModelFile]) -> None:
    model = small_model("float32")
    reference = ReferenceBackend(model.config, model.tensors)
    hidden = random.standard_normal((3, model.config.hidden))
    weights = unpack_matrix(model.tensors, "layers.0.gate_up").astype(np.float64)
    panels = weights.reshape(-1, PANEL, model.config.hidden)
    gate, up = panels[0::2].reshape(-1, model.config.hidden), panels[1::2].reshape(-1, model.config.hidden)
    vector: dict[str, F64] = {
        name: model.tensors[f"layers.0.{name}_norm"].astype(np.float64) for name in ("pre_ffn", "post_ffn")
    }
    normed = rms_norm(hidden, vector["pre_ffn"], model.config.rms_norm_eps)
    down = unpack_matrix(model.tensors, "layers.0.down").astype(np.float64)
    out = (gelu(normed @ gate.T) * (normed @ up.T)) @ down.T
    expected = hidden + rms_norm(out, vector["post_ffn"], model.config.rms_norm_eps)
    assert np.allclose(reference._feed_forward_block(0, hidden), expected, rtol=0, atol=model.config.ffn * 16 * EPS)


def test_embedding_is_the_mean_of_all_tokens_through_the_head(small_model: Callable[[Scheme], ModelFile]) -> None:
    model = small_model("float32")
    reference = ReferenceBackend(model.config, model.tensors)
    ids = np.array([2, 17, 400, 5, 1], np.int32)
    *_, hidden = reference.hidden_states(ids)
    normed = rms_norm(hidden, model.tensors["final_norm"].astype(np.float64), model.config.rms_norm_eps)
    head = unpack_matrix(model.tensors, "head").astype(np.float64)
    expected = head @ (normed.sum(axis=0) / 5)
    found = reference.encode(ids, np.array([0, 5]), 192, False)[0]
    assert np.allclose(found, expected, rtol=2 * np.finfo(np.float32).eps, atol=1e-9)
    unit = reference.encode(ids, np.array([0, 5]), 64, True)[0]
    assert np.allclose(
        unit, expected[:64] / np.linalg.norm(expected[:64]), rtol=2 * np.finfo(np.float32).eps, atol=1e-9
    )


def test_every_layer_is_that_of_sentence_transformers(checkpoint: Path, golden: Path, tmp_path: Path) -> None:
    path = convert(checkpoint, tmp_path / "model.safetensors", "float32")
    model = read_model_file(path)
    path.unlink()  # the mapping stays; 1.2 GB would else be kept with pytest's last three runs
    reference = ReferenceBackend(model.config, model.tensors)
    final_norm = model.tensors["final_norm"].astype(np.float64)
    with np.load(golden / "layers.npz") as layers:
        for text in ("text1", "text25"):
            expected = layers[f"{text}_hidden"]  # (layers + 1, tokens, hidden), the last after the final norm
            for layer, hidden in enumerate(reference.hidden_states(layers[f"{text}_ids"].astype(np.int32))):
                last = layer == model.config.layers
                found = rms_norm(hidden, final_norm, model.config.rms_norm_eps) if last else hidden
                error = np.linalg.norm(found - expected[layer], axis=1) / np.linalg.norm(expected[layer], axis=1)
                assert error.max() < GOLDEN_TOLERANCE, f"{text}, state {layer} of {model.config.layers}"
