"""What Numba compiles between matrix products: elementary functions, quantisation, attention."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from embgemma.kernels.config import EncoderConfig
from embgemma.kernels.reference import attend as reference_attend
from embgemma.kernels.reference import gelu as reference_gelu
from embgemma.kernels.rotation import rotate_blocks

numba = pytest.importorskip("numba")

from embgemma.kernels import numba_forward, numba_rows  # noqa: E402
from embgemma.kernels.numba_memory import Room, hold_batch, hold_scratch, key_slots, rope_table  # noqa: E402
from embgemma.kernels.numba_state import BLOCK_QUERIES, FULL, SLIDING, Model, Scratch  # noqa: E402
from embgemma.kernels.numba_views import Rows  # noqa: E402

EPS = float(np.finfo(np.float32).eps)
NOWHERE = Rows(0, 0)


@numba.njit
def run_exp(x: npt.NDArray[np.float32], out: npt.NDArray[np.float32]) -> None:
    for i in range(len(x)):
        out[i] = numba_rows.exp(x[i])


@numba.njit
def run_gelu(x: npt.NDArray[np.float32], out: npt.NDArray[np.float32]) -> None:
    for i in range(len(x)):
        out[i] = numba_rows.gelu(x[i])


@numba.njit
def run_softmax(x: npt.NDArray[np.float32]) -> None:
    numba_rows.softmax(x)


@numba.njit
def run_quantize(x: npt.NDArray[np.float32], multiplier: npt.NDArray[np.float32], out: npt.NDArray[np.int8]) -> Any:
    return numba_rows.quantize(x, multiplier, np.empty_like(x), out)


def test_exp_is_within_its_stated_error() -> None:
    x = np.concatenate([np.linspace(-87, 87, 200_001), [0, -1e-30, 1e-30]]).astype(np.float32)
    out = np.empty_like(x)
    run_exp(x, out)
    assert np.max(np.abs(out / np.exp(x.astype(np.float64)) - 1)) < 2e-7
    run_exp(np.array([-1e30, 1e30, -np.inf], np.float32), out[:3])
    assert np.all(np.isfinite(out[:3]))


def test_gelu_is_that_of_the_reference() -> None:
    x = np.concatenate([np.linspace(-20, 20, 100_001), [-1e6, 1e6]]).astype(np.float32)
    out = np.empty_like(x)
    run_gelu(x, out)
    expected = reference_gelu(x.astype(np.float64))
    # The argument of exp, up to 87, is off by three roundings; the reference's 1 + tanh has float64's eps alone.
    bound = 87 * 3 * EPS * np.abs(expected) + np.finfo(np.float64).eps * np.abs(x)
    assert np.all(np.abs(out - expected) <= bound)


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 100, 513])
def test_softmax_sums_to_one(count: int) -> None:
    random = np.random.default_rng(count)
    scores = (random.standard_normal(count) * 30).astype(np.float32)
    found = scores.copy()
    run_softmax(found)
    powers = np.exp(scores.astype(np.float64) - scores.max())
    # The difference of two scores of up to 100 is exact or off by half an eps of it; exp turns that into a factor.
    assert np.allclose(found, powers / powers.sum(), rtol=(count + 128) * EPS, atol=2e-28)


@pytest.mark.parametrize("count", [64, 192, 1152])
def test_quantisation_is_the_documented_one_to_the_bit(count: int) -> None:
    random = np.random.default_rng(count)
    multiplier = random.standard_normal(count).astype(np.float32)
    for exponent in (-20, 0, 6):
        x = (random.standard_normal(count) * 10.0**exponent).astype(np.float32)
        codes = np.empty(count, np.int8)
        scale, total = run_quantize(x, multiplier, codes)
        rotated = rotate_blocks((x * multiplier)[None])[0]
        largest = np.max(np.abs(rotated))
        assert scale == largest / np.float32(127)
        expected = np.rint(rotated * (np.float32(127) / largest))
        assert np.array_equal(codes, np.clip(expected, -127, 127))
        assert total == codes.sum(dtype=np.int64)


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-40, 1e-38])
def test_rows_that_are_too_small_to_divide_by_are_zero(value: float) -> None:
    codes = np.full(64, 5, np.int8)
    assert run_quantize(np.full(64, value, np.float32), np.ones(64, np.float32), codes) == (0, 0)
    assert not codes.any()


# ---- attention --------------------------------------------------------------------------------------------


@numba.njit
def run_attend(model: Model, batch: Any, scratch: Scratch) -> None:
    for block in range(batch.blocks):
        for head in range(model.kv_heads):
            numba_forward.attend(model, 0, batch, scratch, block, head, 0)


@pytest.mark.parametrize("window", [None, 0, 1, 15, 16, 40])
def test_attention_is_that_of_the_reference_and_touches_nothing_else(window: int | None) -> None:
    lengths, heads, kv_heads, size = (1, 17, 31, 32, 33, 90), 4, 2, 64
    config = EncoderConfig(
        1, 64, 64, heads, kv_heads, size, 32, 128, window or 0, (0,) if window is None else (), 1e4, 1e6, 1e-6, 0, 0
    )
    random = np.random.default_rng(0)
    offsets = np.cumsum([0, *lengths])
    batch = hold_batch(offsets, rope_table(config, max(lengths)))
    tokens = int(offsets[-1])
    scratch = hold_scratch(config, 1, Room(tokens + 3, int(key_slots(np.diff(offsets)).sum()), 96))
    *_, product_memory, keys, values, scores = scratch.arrays
    for memory in (product_memory, keys, values, scores):
        memory[:] = np.nan
    q = random.standard_normal((tokens, heads, size)).astype(np.float32) / 8
    k, v = (random.standard_normal((tokens, kv_heads, size)).astype(np.float32) for _ in range(2))
    product_memory[:tokens, : heads * size] = q.reshape(tokens, -1)
    slots = batch.arrays[2]
    for head in range(kv_heads):
        for token in range(tokens):
            panel = head * scratch.value.key_panels + slots[token] // 16
            keys[panel].reshape(size, 16)[:, slots[token] % 16] = k[token, head]
            values.reshape(kv_heads, size // 16, -1, 16)[head, :, token] = v[token, head].reshape(-1, 16)
    kinds = np.array([FULL if window is None else SLIDING])
    shape = (1, 64, 64, heads, kv_heads, size, window or 0, np.float32(0))
    run_attend(Model(*shape, kinds.ctypes.data, 0, 0, 0, 0, NOWHERE, NOWHERE, NOWHERE), batch.value, scratch.value)
    found = product_memory[:tokens, : heads * size].reshape(tokens, heads, size)
    for start, end in itertools.pairwise(offsets):
        wide_q, wide_k, wide_v = (array[start:end].astype(np.float64) for array in (q, k, v))
        # A score is off by head_dim roundings of its largest terms, a weight by that as a factor, a sum by its length.
        terms = np.abs(q[start:end]).max() * np.abs(k[start:end]).max() * size
        bound = (size * terms + (end - start)) * EPS * np.abs(v).max()
        assert np.all(np.abs(found[start:end] - reference_attend(wide_q, wide_k, wide_v, window)) <= bound)
    assert np.isnan(product_memory[tokens:]).all()
    assert np.isnan(product_memory[:, heads * size :]).all()


@numba.njit
def run_attend_block(model: Model, batch: Any, scratch: Scratch, block: int) -> None:
    numba_forward.attend(model, 0, batch, scratch, block, 0, 0)


def test_attention_does_not_touch_what_no_window_reaches() -> None:
    tokens, size, window = 8 * BLOCK_QUERIES, 64, 5
    config = EncoderConfig(1, 64, 64, 1, 1, size, 32, 1024, window, (), 1e4, 1e6, 1e-6, 0, 0)
    batch = hold_batch(np.array([0, tokens]), rope_table(config, tokens))
    scratch = hold_scratch(config, 1, Room(tokens, tokens, tokens))
    *_, product_memory, keys, values, _scores = scratch.arrays
    block = 4
    first, last = block * BLOCK_QUERIES - window, (block + 1) * BLOCK_QUERIES + window
    values.reshape(size // 16, tokens, 16)[:, :first] = np.nan
    values.reshape(size // 16, tokens, 16)[:, last:] = np.nan
    pair = 32  # keys are multiplied in pairs of panels
    keys[: first // pair * 2] = np.nan
    keys[-(-last // pair) * 2 :] = np.nan
    kinds = np.array([SLIDING])
    shape = (1, 64, 64, 1, 1, size, window, np.float32(0))
    model = Model(*shape, kinds.ctypes.data, 0, 0, 0, 0, NOWHERE, NOWHERE, NOWHERE)
    run_attend_block(model, batch.value, scratch.value, block)
    assert np.isfinite(product_memory).all()
