"""Matrix products that Numba compiles: exact to the bit, of every shape, with every kind of instruction."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from embgemma.kernels.config import MAX_DIMENSION
from embgemma.kernels.layout import (
    CODEBOOK_INPUTS,
    INT4_CODEBOOKS,
    INT4_MAX,
    MatrixFormat,
    pack_codebooks,
    pack_panels,
)

numba = pytest.importorskip("numba")

from embgemma.kernels.numba_memory import FORMAT_NUMBERS  # noqa: E402
from embgemma.kernels.numba_products import PAIR, multiply  # noqa: E402
from embgemma.kernels.numba_state import Model, Scratch  # noqa: E402
from embgemma.kernels.numba_threads import make_teams  # noqa: E402
from embgemma.kernels.numba_views import Rows, rows_of  # noqa: E402
from tests.processes import PYTHON, run  # noqa: E402

EPS = float(np.finfo(np.float32).eps)

NOWHERE = Rows(0, 0)


@numba.njit
def run_multiply(model: Model, scratch: Scratch, rows: int, n: int, k: int, halves: bool, team: Any) -> None:
    multiply(model, 0, scratch, rows, n, k, halves, team)


def product(
    matrix_format: MatrixFormat,
    x: npt.NDArray[Any],
    weights: npt.NDArray[Any],
    row_scales: npt.NDArray[np.float32] | None = None,
    channel_scales: npt.NDArray[np.float32] | None = None,
    *,
    codebooks: npt.NDArray[Any] | None = None,
    halves: bool = False,
    threads: int = 1,
) -> npt.NDArray[np.float32]:
    """x (rows, k) times weights (n, k), transposed, as compiled code multiplies them. Memory around it is poisoned.

    codebooks (n, k / 16) are those that int4 weights are of; by default they follow from the place.
    """
    rows, k = x.shape
    n = len(weights)
    codebooks = codebooks_of(n, k) if codebooks is None else codebooks
    panels = pack_panels(weights, matrix_format, codebooks if matrix_format == "int4" else None)
    packed_codebooks = pack_codebooks(codebooks)
    row_scales = np.ones(rows, np.float32) if row_scales is None else row_scales
    channel_scales = np.ones(n, np.float32) if channel_scales is None else channel_scales
    sums = x.astype(np.int64).sum(axis=1).astype(np.int32)
    codes, inputs = np.full((rows + 1, k + 64), -77, np.int8), np.full((rows + 1, k + 16), np.nan, np.float32)
    (inputs if matrix_format == "float32" else codes)[:rows, :k] = x
    levels = np.full((threads + 1, PAIR * k), -77, np.int8)
    out = np.full((rows + 1, n + 16), np.nan, np.float32)
    tables = [
        np.array([value], np.int64)
        for value in (
            FORMAT_NUMBERS[matrix_format],
            panels.ctypes.data,
            packed_codebooks.ctypes.data,
            channel_scales.ctypes.data,
        )
    ]
    formats, addresses, books, scales = (table.ctypes.data for table in tables)
    shape = (1, k, n, 1, 1, 64, 0, np.float32(0))
    model = Model(*shape, 0, formats, addresses, books, scales, NOWHERE, NOWHERE, NOWHERE)
    scratch = Scratch(
        codes=rows_of(codes),
        scales=row_scales.ctypes.data,
        sums=sums.ctypes.data,
        inputs=rows_of(inputs),
        levels=rows_of(levels),
        product=rows_of(out),
        keys=NOWHERE,
        key_panels=0,
        values=NOWHERE,
        scores=NOWHERE,
    )
    teams, _counters = make_teams(threads, 1)
    helpers = [
        threading.Thread(target=run_multiply, args=(model, scratch, rows, n, k, halves, team)) for team in teams[1:]
    ]
    for helper in helpers:
        helper.start()
    run_multiply(model, scratch, rows, n, k, halves, teams[0])
    for helper in helpers:
        helper.join()
    assert np.all(levels[threads:] == -77), "only memory of the threads is written"
    assert np.isnan(out[rows:]).all(), "rows past the last are not written"
    assert np.isnan(out[:, n:]).all(), "columns past the last are not written"
    found: npt.NDArray[np.float32] = out[:rows, :n]
    return found


def exact(x: npt.NDArray[Any], weights: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """The product of codes: whole numbers, rounded to float32 once."""
    return np.asarray(x.astype(np.int64) @ weights.astype(np.int64).T, np.float32)


def codebooks_of(n: int, k: int) -> npt.NDArray[np.uint8]:
    """Numbers of codebooks (n, k / 16) that differ from channel to channel and along each."""
    channels, places = np.indices((n, k // CODEBOOK_INPUTS))
    return ((channels + channels // 4 + places + places // 4) % len(INT4_CODEBOOKS)).astype(np.uint8)


def levels_of(random: np.random.Generator, codebooks: npt.NDArray[np.uint8]) -> npt.NDArray[np.int8]:
    """Levels (n, k) of int4, each of its codebook."""
    numbers = np.repeat(codebooks, CODEBOOK_INPUTS, axis=1)
    return INT4_CODEBOOKS[numbers, random.integers(0, INT4_CODEBOOKS.shape[1], numbers.shape)]


def codes_of(random: np.random.Generator, rows: int, k: int) -> npt.NDArray[np.int8]:
    return random.integers(-127, 128, (rows, k)).astype(np.int8)


def weights_of(random: np.random.Generator, matrix_format: MatrixFormat, n: int, k: int) -> npt.NDArray[np.int8]:
    return levels_of(random, codebooks_of(n, k)) if matrix_format == "int4" else codes_of(random, n, k)


@pytest.mark.parametrize("matrix_format", ["int8", "int4"])
@pytest.mark.parametrize("rows", range(1, 71))
def test_integer_products_of_any_height_are_exact(matrix_format: MatrixFormat, rows: int) -> None:
    random = np.random.default_rng(rows)
    n, k = 32 * int(random.integers(1, 6)), 64 * int(random.integers(1, 5))
    weights, x = weights_of(random, matrix_format, n, k), codes_of(random, rows, k)
    assert np.array_equal(product(matrix_format, x, weights), exact(x, weights))


@pytest.mark.parametrize("matrix_format", ["int8", "int4"])
def test_integer_products_of_any_shape_are_exact(matrix_format: MatrixFormat) -> None:
    random = np.random.default_rng(0)
    for n in (32, 64, 96, 320):
        for k in (64, 128, 192, 1152):
            for rows in (1, 7, 300):
                weights, x = weights_of(random, matrix_format, n, k), codes_of(random, rows, k)
                assert np.array_equal(product(matrix_format, x, weights), exact(x, weights)), (n, k, rows)


@pytest.mark.parametrize("matrix_format", ["int8", "int4"])
def test_extreme_codes_of_the_longest_sum_do_not_overflow(matrix_format: MatrixFormat) -> None:
    k, most = MAX_DIMENSION, 127 if matrix_format == "int8" else INT4_MAX
    codebooks = np.full((32, k // CODEBOOK_INPUTS), int(INT4_CODEBOOKS.max(axis=1).argmax()), np.uint8)
    weights = np.repeat(np.array([most, -most, -1, 1], np.int8), 8)[:, None] * np.ones((1, k), np.int8)
    x = np.array([127, -127, 0, 1], np.int8)[:, None] * np.ones((1, k), np.int8)
    assert np.array_equal(product(matrix_format, x, weights, codebooks=codebooks), exact(x, weights))


@pytest.mark.parametrize("number", range(len(INT4_CODEBOOKS)))
def test_every_int4_code_meets_every_int8_code(number: int) -> None:
    k, book = 64, INT4_CODEBOOKS[number]
    weights = np.zeros((16 * k, k), np.int8)  # channel code * k + i has that code at input i, and code 0 elsewhere
    for code, level in enumerate(book):
        weights[code * k : (code + 1) * k] = np.where(np.eye(k), level, book[0])
    x = np.arange(-127, 128, dtype=np.int8)[:, None] * np.ones((1, k), np.int8)
    codebooks = np.full((16 * k, k // CODEBOOK_INPUTS), number, np.uint8)
    assert np.array_equal(product("int4", x, weights, codebooks=codebooks), exact(x, weights))


@pytest.mark.parametrize("number", range(len(INT4_CODEBOOKS)))
def test_codebooks_are_those_of_their_inputs_and_channels(number: int) -> None:
    random = np.random.default_rng(number)
    n, k, x = 96, 192, codes_of(random, 9, 192)
    codebooks = random.integers(0, len(INT4_CODEBOOKS), (n, k // CODEBOOK_INPUTS)).astype(np.uint8)
    weights = levels_of(random, codebooks)
    assert np.array_equal(product("int4", x, weights, codebooks=codebooks), exact(x, weights))


@pytest.mark.parametrize("matrix_format", ["int8", "int4"])
def test_scales_multiply_the_exact_sum(matrix_format: MatrixFormat) -> None:
    random = np.random.default_rng(0)
    weights, x = weights_of(random, matrix_format, 64, 128), codes_of(random, 11, 128)
    row_scales, channel_scales = (random.random(count).astype(np.float32) for count in (11, 64))
    expected = exact(x, weights) * row_scales[:, None] * channel_scales
    assert np.array_equal(product(matrix_format, x, weights, row_scales, channel_scales), expected)


@pytest.mark.parametrize("matrix_format", ["float32", "int8", "int4"])
def test_gate_and_up_come_apart(matrix_format: MatrixFormat) -> None:
    random = np.random.default_rng(0)
    weights, x = weights_of(random, "int4", 192, 64), codes_of(random, 5, 64)
    plain = product(matrix_format, x, weights).reshape(5, 6, 2, 16)
    expected = np.concatenate([plain[:, :, 0].reshape(5, 96), plain[:, :, 1].reshape(5, 96)], axis=1)
    assert np.array_equal(product(matrix_format, x, weights, halves=True), expected)


@pytest.mark.parametrize("rows", [*range(1, 20), 70, 300])
def test_float_products_are_within_their_rounding(rows: int) -> None:
    random = np.random.default_rng(rows)
    k = 192
    x, weights = (random.standard_normal((count, k)).astype(np.float32) for count in (rows, 96))
    found = product("float32", x, weights)
    bound = k * EPS * (np.abs(x).astype(np.float64) @ np.abs(weights).T)
    assert np.all(np.abs(found - x.astype(np.float64) @ weights.T) <= bound)
    assert np.array_equal(found[rows // 2], product("float32", x[rows // 2 : rows // 2 + 1], weights)[0])


@pytest.mark.parametrize("matrix_format", ["float32", "int8", "int4"])
def test_products_have_the_same_bits_on_any_number_of_threads(matrix_format: MatrixFormat) -> None:
    random = np.random.default_rng(0)
    weights, x = weights_of(random, "int4", 320, 256), codes_of(random, 530, 256)
    expected = product(matrix_format, x, weights)
    for threads in (2, 3, 5):
        assert np.array_equal(product(matrix_format, x, weights, threads=threads), expected)


VARIANTS = {
    "avx512vnni": ("skylake-avx512", "+avx512f,+avx512bw,+avx512vl,+avx512dq,+avx512vnni,+avx2,+fma"),
    "avxvnni": ("haswell", "+avxvnni,+avx2,+fma"),
    "avx2": ("haswell", "+avx2,+fma"),
    "any": ("generic", ""),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_integer_products_as_other_cpus_do_them(variant: str) -> None:
    cpu, features = VARIANTS[variant]
    host = {feature[1:] for feature in _host_features().split(",") if feature.startswith("+")}
    missing = {feature[1:] for feature in features.split(",") if feature} - host
    if missing:
        pytest.skip(f"this CPU lacks {', '.join(sorted(missing))}")
    tests = [
        f"{__file__}::{name}"
        for name in (
            "test_integer_products_of_any_shape_are_exact",
            "test_extreme_codes_of_the_longest_sum_do_not_overflow",
            "test_every_int4_code_meets_every_int8_code",
            "test_codebooks_are_those_of_their_inputs_and_channels",
            "test_float_products_are_within_their_rounding",
        )
    ]
    check = f"from embgemma.kernels.numba_tiles import ISA; assert ISA == {variant!r}, ISA"
    environment = {**os.environ, "NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features}
    run(PYTHON, "-c", check, env=environment)
    pytest_quiet = (PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    done = run(*pytest_quiet, *tests, check=False, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def _host_features() -> str:
    import llvmlite.binding

    return str(llvmlite.binding.get_host_cpu_features().flatten())
