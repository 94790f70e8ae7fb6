"""What Numba compiles between matrix products: elementary functions, quantisation, attention."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from embgemma.kernels.reference import attend as reference_attend
from embgemma.kernels.reference import gelu as reference_gelu
from embgemma.kernels.rotation import rotate_blocks

numba = pytest.importorskip("numba")

from embgemma.kernels.numba_engine import numba_ops as ops  # noqa: E402
from embgemma.kernels.numba_engine.numba_backend import cut_into_blocks  # noqa: E402

F32 = npt.NDArray[np.float32]
EPS = float(np.finfo(np.float32).eps)


def compiled(operation: Any) -> Any:
    """An operation with what Python needs to call it."""
    return numba.njit(nogil=True, error_model="numpy")(operation.py_func)


attend, geglu, quantize, softmax = map(compiled, (ops.attend, ops.geglu, ops.quantize, ops.softmax))


@numba.njit
def run_exp(x: F32, out: F32) -> None:
    for i in range(len(x)):
        out[i] = ops.exp(x[i])


def test_exp_is_within_its_stated_error() -> None:
    x = np.concatenate([np.linspace(-87, 87, 200_001), [0, -1e-30, 1e-30]]).astype(np.float32)
    out = np.empty_like(x)
    run_exp(x, out)
    assert np.max(np.abs(out / np.exp(x.astype(np.float64)) - 1)) < 2e-7
    run_exp(np.array([-1e30, 1e30, -np.inf], np.float32), out[:3])
    assert np.all(np.isfinite(out[:3]))


def test_geglu_is_that_of_the_reference_for_alternating_panels() -> None:
    random = np.random.default_rng(0)
    x = np.concatenate([np.linspace(-20, 20, 100_030), [-1e6, 1e6]]).astype(np.float32)
    up, out = random.standard_normal(x.size).astype(np.float32), np.empty((2, x.size), np.float32)
    pairs = np.stack([x.reshape(-1, 16), up.reshape(-1, 16)], axis=1).reshape(1, -1)
    geglu(np.repeat(pairs, 2, axis=0), x.size, out, 0, 2)
    expected = reference_gelu(x.astype(np.float64)) * up
    # The argument of exp, up to 87, is off by three roundings; the reference's 1 + tanh has float64's eps alone.
    bound = 87 * 3 * EPS * np.abs(expected) + np.finfo(np.float64).eps * np.abs(x.astype(np.float64) * up)
    assert np.all(np.abs(out - expected) <= bound)


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 100, 513])
@pytest.mark.parametrize("shift", [0, -200, 200])
def test_softmax_sums_to_one(count: int, shift: int) -> None:
    random = np.random.default_rng(count)
    scores = (random.standard_normal(count) * 30 + shift).astype(np.float32)
    found = scores.copy()
    softmax(found)
    powers = np.exp(scores.astype(np.float64) - scores.max())
    # The difference of two scores of up to 300 is exact or off by half an eps of it; exp turns that into a factor.
    assert np.allclose(found, powers / powers.sum(), rtol=(count + 128 + abs(shift)) * EPS, atol=2e-28)


@pytest.mark.parametrize("count", [64, 192, 1152])
@pytest.mark.parametrize(("exponent", "tiny"), [(-20, 0.0), (0, -0.0), (6, 1e-40), (0, 1e-38)])
def test_quantisation_is_the_documented_one_to_the_bit(count: int, exponent: int, tiny: float) -> None:
    random = np.random.default_rng(count)
    x = (random.standard_normal((3, count + 16)) * 10.0**exponent).astype(np.float32)
    x[1, :count] = tiny  # too small to divide by: zero
    codes, scales, sums = np.full((3, count + 64), -77, np.int8), np.full(3, 7, np.float32), np.full(3, 7, np.int32)
    rotated, beyond = rotate_blocks(x[:2, :count]), x[:, count:].copy()
    quantize(x, count, codes, scales, sums, 0, 2)
    largest = np.max(np.abs(rotated[0]))
    assert scales[0] == largest / np.float32(127)
    assert np.array_equal(codes[0, :count], np.rint(rotated[0] * (np.float32(127) / largest)))
    assert not codes[1, :count].any()
    assert np.array_equal(sums, [codes[0, :count].sum(dtype=np.int64), 0, 7])
    assert np.all(codes[2] == -77)
    assert np.all(codes[:, count:] == -77)
    assert np.array_equal(x[:, count:], beyond)


@pytest.mark.parametrize("window", [None, 0, 1, 5, 15, 16, 40])
def test_attention_is_that_of_the_reference_and_touches_nothing_else(window: int | None) -> None:
    lengths, heads, kv_heads, size = (1, 17, 31, 32, 33, 90), 4, 2, 64
    random, offsets = np.random.default_rng(0), np.cumsum([0, *lengths])
    blocks, slots = cut_into_blocks(offsets)
    tokens, reach = int(offsets[-1]), max(lengths) if window is None else window
    q = random.standard_normal((tokens, heads, size)).astype(np.float32) / 8
    k, v = (random.standard_normal((tokens, kv_heads, size)).astype(np.float32) for _ in range(2))
    qkv, out = np.full((2, tokens + 3, (heads + 2 * kv_heads) * size + 16), np.nan, np.float32)
    qkv[:tokens, : heads * size] = q.reshape(tokens, -1)
    scores = np.full((heads // kv_heads * ops.BLOCK_QUERIES, 96 + 16), np.nan, np.float32)
    for block, (row, slot, length, start) in enumerate(blocks):
        # Keys and values of what no query of the block reaches stay unknown; keys are multiplied in pairs of panels.
        keys = np.full((kv_heads, slots // 16, size, 16), np.nan, np.float32)
        values = np.full((kv_heads, size // 16, slots, 16), np.nan, np.float32)
        low, high = max(start - reach, 0), min(start + ops.BLOCK_QUERIES + reach, length)
        for position in range(low // 32 * 32, min(-(-high // 32) * 32, length)):
            keys[:, (slot + position) // 16, :, (slot + position) % 16] = k[row + position]
        for position in range(low, high):
            values[:, :, slot + position] = v[row + position].reshape(kv_heads, -1, 16)
        attend(qkv, keys, values, scores, blocks, reach, out, block * kv_heads, (block + 1) * kv_heads)
    found = out[:tokens, : heads * size].reshape(tokens, heads, size)
    for start, end in itertools.pairwise(offsets):
        wide_q, wide_k, wide_v = (array[start:end].astype(np.float64) for array in (q, k, v))
        # A score is off by head_dim roundings of its largest terms, a weight by that as a factor, a sum by its length.
        terms = np.abs(q[start:end]).max() * np.abs(k[start:end]).max() * size
        bound = (size * terms + (end - start)) * EPS * np.abs(v).max()
        assert np.all(np.abs(found[start:end] - reference_attend(wide_q, wide_k, wide_v, window)) <= bound)
    assert np.isnan(out[tokens:]).all()
    assert np.isnan(out[:, heads * size :]).all()
